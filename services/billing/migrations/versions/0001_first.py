"""The first tables of billing."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from kit.migrations import create_kit_tables_1, drop_kit_tables_1

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)

TABLES = (
    "ledger_line",
    "ledger_entry",
    "provider_event",
    "refund",
    "payment",
    "revoked_coupon",
    "coupon_use",
    "order",
    "member_time",
    "plan_version",
    "plan",
)

FIXED = """
CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % refused', TG_OP, TG_TABLE_NAME;
END $$
"""
BALANCED = """
CREATE FUNCTION ledger_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entry uuid := CASE TG_TABLE_NAME WHEN 'ledger_line' THEN (to_jsonb(NEW) ->> 'entry_id') ELSE (to_jsonb(NEW) ->> 'id') END;
BEGIN
    IF NOT EXISTS (SELECT FROM ledger_line WHERE entry_id = entry) THEN
        RAISE EXCEPTION 'ledger entry % has no lines', entry;
    END IF;
    IF EXISTS (
        SELECT FROM ledger_line WHERE entry_id = entry GROUP BY currency HAVING sum(debit) <> sum(credit)
    ) THEN
        RAISE EXCEPTION 'ledger entry % does not balance', entry;
    END IF;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    """Create them."""
    create_kit_tables_1()
    _catalogue()
    _orders()
    _money()
    _books()
    op.execute(FIXED)
    op.execute(BALANCED)
    for table in ("ledger_entry", "ledger_line"):
        op.execute(
            f"CREATE TRIGGER {table}_fixed BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()"
        )
        # At commit, so that an entry and its lines may be written one after the other.
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {table}_balances AFTER INSERT ON {table} "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_balances()"
        )


def downgrade() -> None:
    """Drop them."""
    for table in TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION ledger_balances")
    op.execute("DROP FUNCTION ledger_is_append_only")
    drop_kit_tables_1()


def _catalogue() -> None:
    op.create_table(
        "plan",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("months", sa.Integer, nullable=False),
        sa.Column("benefits", ARRAY(sa.String), nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.CheckConstraint("months > 0", name=op.f("plan_months_check")),
        sa.PrimaryKeyConstraint("code", name=op.f("plan_pkey")),
    )
    op.create_table(
        "plan_version",
        sa.Column("plan_code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("original_amount", sa.BigInteger),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("plan_version_amount_check")),
        sa.CheckConstraint("original_amount >= amount", name=op.f("plan_version_original_amount_check")),
        sa.ForeignKeyConstraint(["plan_code"], ["plan.code"], name=op.f("plan_version_plan_code_fkey")),
        sa.PrimaryKeyConstraint("plan_code", "version", name=op.f("plan_version_pkey")),
    )
    op.create_table(
        "member_time",
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("segments", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("member_id", name=op.f("member_time_pkey")),
    )


def _orders() -> None:
    op.create_table(
        "order",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("plan_code", sa.String, nullable=False),
        sa.Column("plan_version", sa.Integer, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("months", sa.Integer, nullable=False),
        sa.Column("benefits", ARRAY(sa.String), nullable=False),
        sa.Column("subtotal", sa.BigInteger, nullable=False),
        sa.Column("discount", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("refunded_amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("coupon_id", sa.Uuid),
        sa.Column("coupon_ends_at", MOMENT),
        sa.Column("payment_method", sa.String, nullable=False),
        sa.Column("success_url", sa.String),
        sa.Column("cancel_url", sa.String),
        sa.Column("request_key", sa.String),
        sa.Column("address_prefix", sa.String),
        sa.Column("session_id", sa.String),
        sa.Column("session_url", sa.String),
        sa.Column("session_open", sa.Boolean, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("next_check_at", MOMENT),
        sa.Column("paid_at", MOMENT),
        sa.Column("closed_at", MOMENT),
        sa.CheckConstraint(
            "(paid_at IS NULL) = (status IN ('pending', 'canceled', 'expired'))", name=op.f("order_paid_at_check")
        ),
        sa.CheckConstraint(
            "discount >= 0 AND discount <= subtotal AND total = subtotal - discount", name=op.f("order_total_check")
        ),
        sa.CheckConstraint(
            "refunded_amount >= 0 AND refunded_amount <= total", name=op.f("order_refunded_amount_check")
        ),
        sa.ForeignKeyConstraint(
            ["plan_code", "plan_version"],
            ["plan_version.plan_code", "plan_version.version"],
            name=op.f("order_plan_code_plan_version_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("order_pkey")),
        sa.UniqueConstraint("number", name=op.f("order_number_key")),
        sa.UniqueConstraint("session_id", name=op.f("order_session_id_key")),
    )
    op.create_index("order_check", "order", ["next_check_at"], postgresql_where=sa.text("next_check_at IS NOT NULL"))
    op.create_index("order_created", "order", ["created_at", "id"])
    op.create_index("order_member", "order", ["member_id", "created_at", "id"])
    op.create_index(
        "order_one_open",
        "order",
        ["member_id", "plan_code", "kind"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "coupon_use",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("coupon_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("member_id", sa.Uuid, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reserved_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name=op.f("coupon_use_order_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("coupon_use_pkey")),
    )
    op.create_index(
        "coupon_use_live", "coupon_use", ["coupon_id"], unique=True, postgresql_where=sa.text("status <> 'released'")
    )
    op.create_index(op.f("coupon_use_order_id_idx"), "coupon_use", ["order_id"])
    op.create_table(
        "revoked_coupon",
        sa.Column("coupon_id", sa.Uuid, nullable=False),
        sa.Column("revoked_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("coupon_id", name=op.f("revoked_coupon_pkey")),
    )


def _money() -> None:
    op.create_table(
        "payment",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("provider_ref", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("payment_amount_check")),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name=op.f("payment_order_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("payment_pkey")),
        sa.UniqueConstraint("provider_ref", name=op.f("payment_provider_ref_key")),
    )
    op.create_index(
        "payment_applied", "payment", ["order_id"], unique=True, postgresql_where=sa.text("status = 'applied'")
    )
    op.create_index(op.f("payment_order_id_idx"), "payment", ["order_id"])
    op.create_index(op.f("payment_received_at_idx"), "payment", ["received_at"])
    op.create_table(
        "refund",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("payment_id", sa.Uuid, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("requested_by", sa.Uuid),
        sa.Column("request_key", sa.String),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("removes_time", sa.Boolean, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("provider_ref", sa.String),
        sa.Column("error", sa.String),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.CheckConstraint("amount > 0", name=op.f("refund_amount_check")),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name=op.f("refund_order_id_fkey")),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("refund_payment_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("refund_pkey")),
        sa.UniqueConstraint("provider_ref", name=op.f("refund_provider_ref_key")),
    )
    op.create_index("refund_due", "refund", ["next_attempt_at"], postgresql_where=sa.text("status = 'pending'"))
    op.create_index(op.f("refund_order_id_idx"), "refund", ["order_id"])
    op.create_index(op.f("refund_payment_id_idx"), "refund", ["payment_id"])
    op.create_index(
        "refund_request",
        "refund",
        ["order_id", "request_key"],
        unique=True,
        postgresql_where=sa.text("request_key IS NOT NULL"),
    )
    op.create_index(
        "refund_surplus", "refund", ["payment_id"], unique=True, postgresql_where=sa.text("cause = 'surplus'")
    )
    op.create_table(
        "provider_event",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", MOMENT),
        sa.Column("handled_at", MOMENT),
        sa.Column("outcome", sa.String),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_event_pkey")),
    )
    op.create_index(
        "provider_event_due",
        "provider_event",
        ["next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index(op.f("provider_event_received_at_idx"), "provider_event", ["received_at"])


def _books() -> None:
    op.create_table(
        "ledger_entry",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("source_id", sa.Uuid, nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name=op.f("ledger_entry_order_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("ledger_entry_pkey")),
    )
    op.create_index("ledger_entry_once", "ledger_entry", ["kind", "source_id"], unique=True)
    op.create_index(op.f("ledger_entry_order_id_idx"), "ledger_entry", ["order_id"])
    op.create_index("ledger_entry_recent", "ledger_entry", ["at", "id"])
    op.create_table(
        "ledger_line",
        sa.Column("entry_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("debit", sa.BigInteger, nullable=False),
        sa.Column("credit", sa.BigInteger, nullable=False),
        sa.CheckConstraint(
            "debit >= 0 AND credit >= 0 AND (debit = 0) <> (credit = 0)", name=op.f("ledger_line_one_side_check")
        ),
        sa.ForeignKeyConstraint(["entry_id"], ["ledger_entry.id"], name=op.f("ledger_line_entry_id_fkey")),
        sa.PrimaryKeyConstraint("entry_id", "position", name=op.f("ledger_line_pkey")),
    )
    op.create_index("ledger_line_account", "ledger_line", ["account", "currency"])
