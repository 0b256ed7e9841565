"""What commissions waited for stays known when it is over."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the end of a hold."""
    op.add_column("commission_hold", sa.Column("ended_at", sa.DateTime(timezone=True)))
    op.create_index("commission_hold_cause_idx", "commission_hold", ["cause"])


def downgrade() -> None:
    """Forget the holds that are over."""
    op.drop_index("commission_hold_cause_idx")
    op.execute("DELETE FROM commission_hold WHERE ended_at IS NOT NULL")
    op.drop_column("commission_hold", "ended_at")
