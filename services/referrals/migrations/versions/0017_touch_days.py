"""Touches that brought nobody are counted by channel and day, and forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Create the table, and find those that are old."""
    op.create_table(
        "touch_day",
        sa.Column("channel_code", sa.String, sa.ForeignKey("channel.code"), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("touches", sa.BigInteger, nullable=False),
    )
    op.create_index("touch_idle_at_idx", "touch", ["at"], postgresql_where=sa.text("newcomer_id IS NULL"))


def downgrade() -> None:
    """Drop both."""
    op.drop_index("touch_idle_at_idx", "touch")
    op.drop_table("touch_day")
