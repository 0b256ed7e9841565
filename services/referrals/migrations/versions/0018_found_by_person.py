"""Touches and commissions are found by whom they are about, and commissions that wait by when they are due."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Index them."""
    op.create_index("commission_pending_idx", "commission", ["due_at"], postgresql_where=sa.text("status = 'pending'"))
    op.create_index("commission_member_id_idx", "commission", ["member_id"])
    for column in ("member_id", "inviter_id"):
        there = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"touch_{column}_idx", "touch", [column], postgresql_where=there)
    # The old one last, so that nobody waits for the new.
    op.create_index("touch_visitor_id_at_idx", "touch", ["visitor_id", "at"])
    op.drop_index("touch_visitor_id_idx", "touch")


def downgrade() -> None:
    """Go back to what was found before."""
    op.create_index("touch_visitor_id_idx", "touch", ["visitor_id", "at"], postgresql_where=sa.text("outcome = 'open'"))
    op.drop_index("touch_visitor_id_at_idx", "touch")
    for name in ("touch_inviter_id_idx", "touch_member_id_idx"):
        op.drop_index(name, "touch")
    for name in ("commission_member_id_idx", "commission_pending_idx"):
        op.drop_index(name, "commission")
