"""Subscriptions, the charges that renew them, and their pages at the provider."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables, and let the database renew a period once."""
    op.create_index(
        "order_one_renewal",
        "order",
        ["member_id", "renews_from"],
        unique=True,
        postgresql_where=sa.text("renews_from IS NOT NULL AND status NOT IN ('canceled', 'expired')"),
    )
    op.create_table(
        "subscription",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("plan_code", sa.String, nullable=False),
        sa.Column("customer_ref", sa.String),
        sa.Column("payment_method_ref", sa.String),
        sa.Column("card_brand", sa.String),
        sa.Column("card_last4", sa.String),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("order_told", sa.Boolean, nullable=False),
        sa.Column("renewal_order_id", sa.Uuid),
        sa.Column("renews_at", MOMENT, nullable=False),
        sa.Column("announced_for", MOMENT),
        sa.Column("announced_at", MOMENT),
        sa.Column("announced_version", sa.Integer),
        sa.Column("announced_months", sa.Integer),
        sa.Column("held_at", MOMENT),
        sa.Column("held_reason", sa.String),
        sa.Column("next_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("end_reason", sa.String),
        sa.PrimaryKeyConstraint("id", name="subscription_pkey"),
        sa.ForeignKeyConstraint(["plan_code"], ["plan.code"], name="subscription_plan_code_fkey"),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name="subscription_order_id_fkey"),
        sa.ForeignKeyConstraint(["renewal_order_id"], ["order.id"], name="subscription_renewal_order_id_fkey"),
        sa.CheckConstraint("(status = 'none') = (ended_at IS NOT NULL)", name=op.f("subscription_ended_at_check")),
        sa.CheckConstraint("status <> 'none' OR next_at IS NULL", name=op.f("subscription_next_at_check")),
        sa.CheckConstraint("(held_at IS NULL) = (held_reason IS NULL)", name=op.f("subscription_held_check")),
    )
    op.create_index(
        "subscription_one_live",
        "subscription",
        ["member_id"],
        unique=True,
        postgresql_where=sa.text("status <> 'none'"),
    )
    op.create_index("subscription_due", "subscription", ["next_at"], postgresql_where=sa.text("next_at IS NOT NULL"))
    op.create_index("subscription_member", "subscription", ["member_id", "created_at"])
    op.create_index("subscription_recent", "subscription", ["created_at", "id"])
    op.create_table(
        "renewal_attempt",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("customer_ref", sa.String, nullable=False),
        sa.Column("payment_method_ref", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("provider_ref", sa.String),
        sa.Column("failure", sa.String),
        sa.Column("asked", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="renewal_attempt_pkey"),
        sa.ForeignKeyConstraint(["subscription_id"], ["subscription.id"], name="renewal_attempt_subscription_id_fkey"),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name="renewal_attempt_order_id_fkey"),
        sa.UniqueConstraint("provider_ref", name="renewal_attempt_provider_ref_key"),
        sa.CheckConstraint(
            "(status = 'pending') = (settled_at IS NULL)", name=op.f("renewal_attempt_settled_at_check")
        ),
    )
    op.create_index("renewal_attempt_subscription_id_idx", "renewal_attempt", ["subscription_id"])
    op.create_index("renewal_attempt_number", "renewal_attempt", ["order_id", "number"], unique=True)
    pending = sa.text("status = 'pending'")
    op.create_index(
        "renewal_attempt_one_pending", "renewal_attempt", ["order_id"], unique=True, postgresql_where=pending
    )
    op.create_index("renewal_attempt_due", "renewal_attempt", ["next_attempt_at"], postgresql_where=pending)
    op.create_table(
        "subscription_page",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("customer_ref", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("success_url", sa.String),
        sa.Column("cancel_url", sa.String),
        sa.Column("session_id", sa.String),
        sa.Column("session_url", sa.String),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("next_check_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="subscription_page_pkey"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscription.id"], name="subscription_page_subscription_id_fkey"
        ),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name="subscription_page_order_id_fkey"),
        sa.UniqueConstraint("session_id", name="subscription_page_session_id_key"),
        sa.CheckConstraint(
            "(purpose = 'payment') = (order_id IS NOT NULL)", name=op.f("subscription_page_order_id_check")
        ),
    )
    op.create_index("subscription_page_member_id_idx", "subscription_page", ["member_id"])
    op.create_index(
        "subscription_page_open",
        "subscription_page",
        ["subscription_id", "purpose"],
        unique=True,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(
        "subscription_page_check",
        "subscription_page",
        ["next_check_at"],
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop them; nobody renews any more."""
    for table in ("subscription_page", "renewal_attempt", "subscription"):
        op.drop_table(table)
    op.drop_index("order_one_renewal", "order")
