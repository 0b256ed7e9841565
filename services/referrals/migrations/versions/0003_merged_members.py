"""Whose account became part of whose."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TRIGGER = """
CREATE TRIGGER attribution_is_fixed BEFORE UPDATE OR DELETE ON attribution
FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION attribution_is_fixed()
"""
FIXED = "OLD.fixed_at IS NOT NULL"
# A merge says so for its transaction: then two origins of one person may become one.
NOT_MERGING = f"{FIXED} AND current_setting('heika.merging', true) IS DISTINCT FROM 'on'"


def upgrade() -> None:
    """Create the table, and let a merge join two origins."""
    op.create_table(
        "merged_member",
        sa.Column("merged_id", sa.Uuid, nullable=False),
        sa.Column("kept_id", sa.Uuid, nullable=False),
        sa.Column("moves", sa.Integer, nullable=False),
        sa.Column("next_move_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("merged_id", name="merged_member_pkey"),
    )
    op.create_index("merged_member_next_move_at_idx", "merged_member", ["next_move_at"])
    op.execute("DROP TRIGGER attribution_is_fixed ON attribution")
    op.execute(TRIGGER.format(when=NOT_MERGING))


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP TRIGGER attribution_is_fixed ON attribution")
    op.execute(TRIGGER.format(when=FIXED))
    op.drop_table("merged_member")
