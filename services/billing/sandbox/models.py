"""The sandbox provider's tables: what Stripe would remember."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, LargeBinary, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from kit.db import instant
from services.billing.registry import Model


def _json(name: str | None = None, **options: Any) -> Column[Any]:
    column: dict[str, Any] = {"nullable": False} | options
    return Column(name, JSONB, **column) if name else Column(JSONB, **column)


def _money() -> Column[int]:
    return Column(BigInteger, nullable=False)


def _serial() -> Column[int]:
    return Column(BigInteger, Identity(always=True), primary_key=True)


class SandboxCustomer(Model, table=True):
    """Somebody who pays."""

    __tablename__ = "sandbox_customer"

    id: str = Field(primary_key=True)
    email: str | None = None
    name: str | None = None
    phone: str | None = None
    description: str | None = None
    labels: dict[str, str] = Field(default_factory=dict, sa_column=_json("metadata"))
    created_at: datetime = Field(sa_column=instant())


class SandboxSession(Model, table=True):
    """A visit to the cashier; its id is the secret that opens the page."""

    __tablename__ = "sandbox_session"
    __table_args__ = (
        Index("sandbox_session_open", "expires_at", postgresql_where=text("status = 'open'")),
        Index("sandbox_session_unsettled", "settles_at", postgresql_where=text("settles_at IS NOT NULL")),
    )

    id: str = Field(primary_key=True)
    mode: str = "payment"
    status: str = "open"
    payment_status: str = "unpaid"
    currency: str
    amount_total: int = Field(sa_column=_money())
    line_items: list[dict[str, Any]] = Field(sa_column=_json())
    payment_method_types: list[str] = Field(sa_column=_json())
    payment_method_options: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    payment_intent_data: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    setup_intent_data: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    labels: dict[str, str] = Field(default_factory=dict, sa_column=_json("metadata"))
    client_reference_id: str | None = None
    customer_id: str | None = None
    customer_creation: str | None = None
    customer_email: str | None = None
    locale: str | None = None
    success_url: str | None = None
    cancel_url: str | None = None
    url: str
    intent_id: str | None = Field(default=None, index=True)
    setup_id: str | None = None
    created_at: datetime = Field(sa_column=instant())
    expires_at: datetime = Field(sa_column=instant())
    settles_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class SandboxIntent(Model, table=True):
    """One payment, over all its attempts."""

    __tablename__ = "sandbox_intent"

    id: str = Field(primary_key=True)
    session_id: str | None = Field(default=None, index=True, foreign_key="sandbox_session.id")
    status: str = "requires_payment_method"
    currency: str
    amount: int = Field(sa_column=_money())
    amount_received: int = Field(default=0, sa_column=_money())
    payment_method_types: list[str] = Field(sa_column=_json())
    customer_id: str | None = Field(default=None, index=True)
    method_id: str | None = None
    setup_future_usage: str | None = None
    description: str | None = None
    labels: dict[str, str] = Field(default_factory=dict, sa_column=_json("metadata"))
    latest_charge_id: str | None = None
    last_payment_error: dict[str, Any] | None = Field(default=None, sa_column=_json(nullable=True))
    canceled_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    cancellation_reason: str | None = None
    created_at: datetime = Field(sa_column=instant())


class SandboxMethod(Model, table=True):
    """A means of payment; one with a customer is kept, to be charged again."""

    __tablename__ = "sandbox_method"

    id: str = Field(primary_key=True)
    kind: str
    fingerprint: str
    customer_id: str | None = Field(default=None, index=True)
    created_at: datetime = Field(sa_column=instant())


class SandboxSetup(Model, table=True):
    """A card being kept for later, without a payment."""

    __tablename__ = "sandbox_setup"

    id: str = Field(primary_key=True)
    status: str = "requires_payment_method"
    customer_id: str | None = Field(default=None, index=True)
    method_id: str | None = None
    description: str | None = None
    labels: dict[str, str] = Field(default_factory=dict, sa_column=_json("metadata"))
    last_setup_error: dict[str, Any] | None = Field(default=None, sa_column=_json(nullable=True))
    created_at: datetime = Field(sa_column=instant())


class SandboxCharge(Model, table=True):
    """One attempt at a payment."""

    __tablename__ = "sandbox_charge"
    __table_args__ = (CheckConstraint("amount_refunded BETWEEN 0 AND amount", name="refunded_within_amount"),)

    id: str = Field(primary_key=True)
    intent_id: str = Field(index=True, foreign_key="sandbox_intent.id")
    status: str
    currency: str
    amount: int = Field(sa_column=_money())
    amount_refunded: int = Field(default=0, sa_column=_money())
    method: str
    method_id: str | None = None
    fingerprint: str
    failure_code: str | None = None
    customer_id: str | None = None
    description: str | None = None
    labels: dict[str, str] = Field(default_factory=dict, sa_column=_json("metadata"))
    receipt_number: str | None = None
    receipt_url: str | None = None
    disputed: bool = False
    created_at: datetime = Field(sa_column=instant())


class SandboxDispute(Model, table=True):
    """A bank that wants the money of a charge back: withdrawn at once, with a fee, and given back when it is won."""

    __tablename__ = "sandbox_dispute"

    id: str = Field(primary_key=True)
    charge_id: str = Field(index=True, foreign_key="sandbox_charge.id")
    intent_id: str = Field(index=True)
    status: str = "needs_response"
    currency: str
    amount: int = Field(sa_column=_money())
    fee: int = Field(sa_column=_money())
    created_at: datetime = Field(sa_column=instant())
    closed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class SandboxRefund(Model, table=True):
    """Money given back; a wallet's refund is pending until it settles."""

    __tablename__ = "sandbox_refund"
    __table_args__ = (Index("sandbox_refund_pending", "id", postgresql_where=text("status = 'pending'")),)

    id: str = Field(primary_key=True)
    charge_id: str = Field(index=True, foreign_key="sandbox_charge.id")
    intent_id: str = Field(index=True)
    status: str
    currency: str
    amount: int = Field(sa_column=_money())
    method: str
    reason: str | None = None
    labels: dict[str, str] = Field(default_factory=dict, sa_column=_json("metadata"))
    created_at: datetime = Field(sa_column=instant())


class SandboxEvent(Model, table=True):
    """What happened to an object, with the object as it was then."""

    __tablename__ = "sandbox_event"

    id: str = Field(primary_key=True)
    type: str = Field(index=True)
    object: dict[str, Any] = Field(sa_column=_json())
    request: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    created_at: datetime = Field(sa_column=instant())


class SandboxDelivery(Model, table=True):
    """An event on its way to the webhook; tried again until it is taken."""

    __tablename__ = "sandbox_delivery"
    __table_args__ = (Index("sandbox_delivery_due", "due_at", postgresql_where=text("delivered_at IS NULL")),)

    id: int | None = Field(default=None, sa_column=_serial())
    event_id: str = Field(index=True, foreign_key="sandbox_event.id")
    subject: str
    due_at: datetime = Field(sa_column=instant())
    attempts: int = 0
    delivered_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    last_error: str | None = None


class SandboxIdempotency(Model, table=True):
    """The first answer to a key, replayed to every repetition of it."""

    __tablename__ = "sandbox_idempotency"

    key: str = Field(primary_key=True)
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    status: int
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(sa_column=instant(index=True))


class SandboxPayer(Model, table=True):
    """The means of payment of one person, the fingerprint stays theirs; and what their bank will say to charges."""

    __tablename__ = "sandbox_payer"

    id: str = Field(primary_key=True)
    fingerprint: str
    next_charges: list[str] = Field(default_factory=list, sa_column=_json())


class SandboxFault(Model, table=True):
    """Something that is to go wrong with the next so many calls or deliveries."""

    __tablename__ = "sandbox_fault"

    id: int | None = Field(default=None, sa_column=_serial())
    target: str
    kind: str
    match: str = ""
    remaining: int
    seconds: float = 0
