"""Whose account became part of whose."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "merged_member",
        sa.Column("merged_id", sa.Uuid, nullable=False),
        sa.Column("kept_id", sa.Uuid, nullable=False),
        sa.Column("moves", sa.Integer, nullable=False),
        sa.Column("next_move_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("merged_id", name="merged_member_pkey"),
    )
    op.create_index("merged_member_next_move_at_idx", "merged_member", ["next_move_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("merged_member")
