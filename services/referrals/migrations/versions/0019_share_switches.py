"""Inviting can be switched off in each of the app's channels."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "share_switch",
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("invites", sa.Boolean, nullable=False),
        sa.CheckConstraint("channel IN ('mini_program', 'h5', 'app')", name="channel"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("share_switch")
