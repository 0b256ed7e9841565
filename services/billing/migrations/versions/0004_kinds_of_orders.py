"""Orders for courses, and orders that renew."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Let an order have a course in place of a plan, and a subscription."""
    op.alter_column("order", "plan_code", nullable=True)
    op.alter_column("order", "plan_version", nullable=True)
    op.add_column("order", sa.Column("course_id", sa.Uuid))
    op.add_column("order", sa.Column("auto_renew", sa.Boolean, nullable=False, server_default=sa.false()))
    op.alter_column("order", "auto_renew", server_default=None)
    op.add_column("order", sa.Column("subscription_id", sa.Uuid))
    op.add_column("order", sa.Column("renews_from", sa.DateTime(timezone=True)))
    op.create_check_constraint("plan_version", "order", "(plan_code IS NULL) = (plan_version IS NULL)")
    op.create_check_constraint("course_id", "order", "(kind = 'course') = (course_id IS NOT NULL)")
    op.create_check_constraint("one_item", "order", "(plan_code IS NULL) = (course_id IS NOT NULL)")
    op.create_index("order_subscription_id_idx", "order", ["subscription_id"])
    op.drop_index("order_one_open", "order")
    op.create_index(
        "order_one_open",
        "order",
        ["member_id", "plan_code", "kind"],
        unique=True,
        postgresql_where=sa.text("status = 'pending' AND renews_from IS NULL"),
    )
    op.create_index(
        "order_one_open_course",
        "order",
        ["member_id", "course_id"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )


def downgrade() -> None:
    """Back to plans alone; fails while there are orders of other kinds."""
    op.drop_index("order_one_open_course", "order")
    op.drop_index("order_one_open", "order")
    op.create_index(
        "order_one_open",
        "order",
        ["member_id", "plan_code", "kind"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_index("order_subscription_id_idx", "order")
    for constraint in ("one_item", "course_id", "plan_version"):
        op.drop_constraint(constraint, "order")
    for column in ("renews_from", "subscription_id", "auto_renew", "course_id"):
        op.drop_column("order", column)
    op.alter_column("order", "plan_version", nullable=False)
    op.alter_column("order", "plan_code", nullable=False)
