"""The sandbox payment provider's tables; empty where Stripe is the provider."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text(name: str, **options: Any) -> "sa.Column[Any]":
    return sa.Column(name, sa.String, **({"nullable": False} | options))


def _json(name: str, **options: Any) -> "sa.Column[Any]":
    return sa.Column(name, JSONB, **({"nullable": False} | options))


def _money(name: str) -> "sa.Column[Any]":
    return sa.Column(name, sa.BigInteger, nullable=False)


def _instant(name: str, **options: Any) -> "sa.Column[Any]":
    return sa.Column(name, sa.DateTime(timezone=True), **({"nullable": False} | options))


def _maybe(*names: str) -> "list[sa.Column[Any]]":
    return [_text(name, nullable=True) for name in names]


def upgrade() -> None:
    """Make the provider's tables."""
    op.create_table(
        "sandbox_customer",
        _text("id", primary_key=True),
        *_maybe("email", "name", "phone", "description"),
        _json("metadata"),
        _instant("created_at"),
    )
    op.create_table(
        "sandbox_session",
        _text("id", primary_key=True),
        _text("status"),
        _text("payment_status"),
        _text("currency"),
        _money("amount_total"),
        _json("line_items"),
        _json("payment_method_types"),
        _json("payment_method_options"),
        _json("payment_intent_data"),
        _json("metadata"),
        *_maybe("client_reference_id", "customer_id", "customer_email", "locale", "success_url", "cancel_url"),
        _text("url"),
        _text("intent_id", nullable=True, index=True),
        _instant("created_at"),
        _instant("expires_at"),
        _instant("settles_at", nullable=True),
    )
    op.create_index(
        "sandbox_session_open", "sandbox_session", ["expires_at"], postgresql_where=sa.text("status = 'open'")
    )
    op.create_index(
        "sandbox_session_unsettled",
        "sandbox_session",
        ["settles_at"],
        postgresql_where=sa.text("settles_at IS NOT NULL"),
    )
    op.create_table(
        "sandbox_intent",
        _text("id", primary_key=True),
        sa.Column("session_id", sa.String, sa.ForeignKey("sandbox_session.id"), nullable=True, index=True),
        _text("status"),
        _text("currency"),
        _money("amount"),
        _money("amount_received"),
        _json("payment_method_types"),
        *_maybe("customer_id", "description"),
        _json("metadata"),
        _text("latest_charge_id", nullable=True),
        _json("last_payment_error", nullable=True),
        _instant("canceled_at", nullable=True),
        _instant("created_at"),
    )
    op.create_table(
        "sandbox_charge",
        _text("id", primary_key=True),
        sa.Column("intent_id", sa.String, sa.ForeignKey("sandbox_intent.id"), nullable=False, index=True),
        _text("status"),
        _text("currency"),
        _money("amount"),
        _money("amount_refunded"),
        _text("method"),
        _text("fingerprint"),
        *_maybe("failure_code", "customer_id", "description"),
        _json("metadata"),
        *_maybe("receipt_number", "receipt_url"),
        _instant("created_at"),
        sa.CheckConstraint("amount_refunded BETWEEN 0 AND amount", name="refunded_within_amount"),
    )
    op.create_table(
        "sandbox_refund",
        _text("id", primary_key=True),
        sa.Column("charge_id", sa.String, sa.ForeignKey("sandbox_charge.id"), nullable=False, index=True),
        _text("intent_id", index=True),
        _text("status"),
        _text("currency"),
        _money("amount"),
        _text("method"),
        _text("reason", nullable=True),
        _json("metadata"),
        _instant("created_at"),
    )
    op.create_index("sandbox_refund_pending", "sandbox_refund", ["id"], postgresql_where=sa.text("status = 'pending'"))
    op.create_table(
        "sandbox_event",
        _text("id", primary_key=True),
        _text("type", index=True),
        _json("object"),
        _json("request"),
        _instant("created_at"),
    )
    op.create_table(
        "sandbox_delivery",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("event_id", sa.String, sa.ForeignKey("sandbox_event.id"), nullable=False, index=True),
        _text("subject"),
        _instant("due_at"),
        sa.Column("attempts", sa.Integer, nullable=False),
        _instant("delivered_at", nullable=True),
        _text("last_error", nullable=True),
    )
    op.create_index(
        "sandbox_delivery_due", "sandbox_delivery", ["due_at"], postgresql_where=sa.text("delivered_at IS NULL")
    )
    op.create_table(
        "sandbox_idempotency",
        _text("key", primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        _instant("created_at", index=True),
    )
    op.create_table("sandbox_payer", _text("id", primary_key=True), _text("fingerprint"))
    op.create_table(
        "sandbox_fault",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _text("target"),
        _text("kind"),
        _text("match"),
        sa.Column("remaining", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Remove them."""
    for table in (
        "fault",
        "payer",
        "idempotency",
        "delivery",
        "event",
        "refund",
        "charge",
        "intent",
        "session",
        "customer",
    ):
        op.drop_table(f"sandbox_{table}")
