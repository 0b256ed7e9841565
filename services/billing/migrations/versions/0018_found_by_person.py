"""Uses of coupons are found by their member, and subscriptions that are held by when."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Index them."""
    op.create_index("coupon_use_member_id_idx", "coupon_use", ["member_id"])
    op.create_index(
        "subscription_held", "subscription", ["held_at", "id"], postgresql_where=sa.text("held_at IS NOT NULL")
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_index("subscription_held", "subscription")
    op.drop_index("coupon_use_member_id_idx", "coupon_use")
