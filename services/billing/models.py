"""The tables of billing: what is sold, what was ordered, what was paid, and the books."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, Index, LargeBinary, String, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field

from contracts.merging import MergedMemberColumns
from kit.db import instant
from kit.ids import new_id
from services.billing.registry import Model

__all__ = ["Model"]

OrderStatus = Literal["pending", "paid", "canceled", "expired", "partially_refunded", "refunded", "disputed"]
PaymentMethod = Literal["card", "alipay", "wechat_pay"]
RefundStatus = Literal["pending", "succeeded", "failed"]
_LIVE_RENEWAL = "renews_from IS NOT NULL AND status NOT IN ('canceled', 'expired')"


def _money(**options: Any) -> Column[int]:
    return Column(BigInteger, **({"nullable": False} | options))


def _words() -> Column[list[str]]:
    return Column(ARRAY(String), nullable=False)


class Plan(Model, table=True):
    """Something a member can buy; `version` names its price in force, `revision` counts every edit."""

    __tablename__ = "plan"
    __table_args__ = (CheckConstraint("months > 0", name="months"),)

    code: str = Field(primary_key=True)
    name: str
    months: int
    benefits: list[str] = Field(sa_column=_words())
    active: bool
    version: int
    revision: int
    created_at: datetime = Field(sa_column=instant())
    updated_at: datetime = Field(sa_column=instant())


class PlanVersion(Model, table=True):
    """A price a plan had; never changed, so that an order keeps the one it was quoted."""

    __tablename__ = "plan_version"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("original_amount >= amount", name="original_amount"),
    )

    plan_code: str = Field(primary_key=True, foreign_key="plan.code")
    version: int = Field(primary_key=True)
    amount: int = Field(sa_column=_money())
    original_amount: int | None = Field(default=None, sa_column=_money(nullable=True))
    currency: str
    created_at: datetime = Field(sa_column=instant())


class Order(Model, table=True):
    """One purchase, from its quote to its last refund; `next_check_at` is when the provider is asked about it again."""

    __tablename__ = "order"
    __table_args__ = (
        ForeignKeyConstraint(["plan_code", "plan_version"], ["plan_version.plan_code", "plan_version.version"]),
        CheckConstraint("discount >= 0 AND discount <= subtotal AND total = subtotal - discount", name="total"),
        CheckConstraint("refunded_amount >= 0 AND refunded_amount <= total", name="refunded_amount"),
        CheckConstraint("(paid_at IS NULL) = (status IN ('pending', 'canceled', 'expired'))", name="paid_at"),
        CheckConstraint("(plan_code IS NULL) = (plan_version IS NULL)", name="plan_version"),
        CheckConstraint("(kind = 'course') = (course_id IS NOT NULL)", name="course_id"),
        CheckConstraint("(plan_code IS NULL) = (course_id IS NOT NULL)", name="one_item"),
        # One open order per member and plan, or course; a renewal stands beside what a member orders meanwhile.
        Index(
            "order_one_open",
            "member_id",
            "plan_code",
            "kind",
            unique=True,
            postgresql_where=text("status = 'pending' AND renews_from IS NULL"),
        ),
        Index(
            "order_one_open_course",
            "member_id",
            "course_id",
            unique=True,
            postgresql_where=text("status = 'pending'"),
        ),
        # A period is renewed once, whatever a job believes.
        Index("order_one_renewal", "member_id", "renews_from", unique=True, postgresql_where=text(_LIVE_RENEWAL)),
        Index("order_member", "member_id", "created_at", "id"),
        Index("order_course", "course_id", postgresql_where=text("course_id IS NOT NULL")),
        Index("order_created", "created_at", "id"),
        Index("order_check", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
        Index("order_paid", "paid_at", postgresql_where=text("paid_at IS NOT NULL")),
        Index("order_renews", "renews_from", postgresql_where=text("renews_from IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    number: str = Field(unique=True)
    member_id: UUID
    kind: Literal["membership", "gift", "course"] = Field(sa_type=String)
    status: OrderStatus = Field(sa_type=String)
    plan_code: str | None = None
    plan_version: int | None = None
    course_id: UUID | None = None
    title: str
    months: int
    benefits: list[str] = Field(sa_column=_words())
    subtotal: int = Field(sa_column=_money())
    discount: int = Field(sa_column=_money())
    total: int = Field(sa_column=_money())
    refunded_amount: int = Field(default=0, sa_column=_money())
    currency: str
    coupon_id: UUID | None = None
    coupon_ends_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    payment_method: PaymentMethod = Field(sa_type=String)
    auto_renew: bool = False
    subscription_id: UUID | None = Field(default=None, index=True)
    renews_from: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    success_url: str | None = None
    cancel_url: str | None = None
    request_key: str | None = None
    address_prefix: str | None = None
    session_id: str | None = Field(default=None, unique=True)
    session_url: str | None = None
    session_open: bool = False
    created_at: datetime = Field(sa_column=instant())
    expires_at: datetime = Field(sa_column=instant())
    next_check_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    paid_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    closed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class CouponUse(Model, table=True):
    """A coupon held or spent by an order; released rows stay as history."""

    __tablename__ = "coupon_use"
    __table_args__ = (
        # A coupon is never on two live orders.
        Index("coupon_use_live", "coupon_id", unique=True, postgresql_where=text("status <> 'released'")),
        Index("coupon_use_member_id_idx", "member_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    coupon_id: UUID
    order_id: UUID = Field(foreign_key="order.id", index=True)
    member_id: UUID
    status: Literal["reserved", "redeemed", "released"] = Field(sa_type=String)
    reserved_at: datetime = Field(sa_column=instant())
    settled_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class RevokedCoupon(Model, table=True):
    """A coupon that referrals took back."""

    __tablename__ = "revoked_coupon"

    coupon_id: UUID = Field(primary_key=True)
    revoked_at: datetime = Field(sa_column=instant())


class Payment(Model, table=True):
    """Money that really arrived, once for each payment at the provider.

    `applied` paid the order, `parked` waits for a person, `surplus` goes back.
    """

    __tablename__ = "payment"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount"),
        Index("payment_applied", "order_id", unique=True, postgresql_where=text("status = 'applied'")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    order_id: UUID = Field(foreign_key="order.id", index=True)
    provider_ref: str = Field(unique=True)
    amount: int = Field(sa_column=_money())
    currency: str
    method: str
    fingerprint: str | None = None
    status: Literal["applied", "parked", "surplus"] = Field(sa_type=String)
    reason: str
    received_at: datetime = Field(sa_column=instant(index=True))


class Refund(Model, table=True):
    """Money on its way back; written before the provider is asked, and chased until the outcome is known."""

    __tablename__ = "refund"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        Index(
            "refund_request", "order_id", "request_key", unique=True, postgresql_where=text("request_key IS NOT NULL")
        ),
        Index("refund_due", "next_attempt_at", postgresql_where=text("status = 'pending'")),
        Index("refund_created", "created_at"),
        Index("refund_settled", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
        # A payment that bought nothing goes back once.
        Index("refund_surplus", "payment_id", unique=True, postgresql_where=text("cause = 'surplus'")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    order_id: UUID = Field(foreign_key="order.id", index=True)
    payment_id: UUID = Field(foreign_key="payment.id", index=True)
    cause: Literal["member", "admin", "surplus", "lesson_canceled"] = Field(sa_type=String)
    requested_by: UUID | None = None
    request_key: str | None = None
    reason: str
    amount: int = Field(sa_column=_money())
    currency: str
    removes_time: bool
    status: RefundStatus = Field(sa_type=String)
    provider_ref: str | None = Field(default=None, unique=True)
    error: str | None = None
    attempts: int = 0
    next_attempt_at: datetime = Field(sa_column=instant())
    created_at: datetime = Field(sa_column=instant())
    settled_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class LedgerEntry(Model, table=True):
    """One event in the books; a trigger refuses to change or delete it."""

    __tablename__ = "ledger_entry"
    __table_args__ = (
        Index("ledger_entry_once", "kind", "source_id", unique=True),
        Index("ledger_entry_recent", "at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    kind: str
    source_id: UUID
    order_id: UUID | None = Field(default=None, foreign_key="order.id", index=True)
    at: datetime = Field(sa_column=instant())


class LedgerLine(Model, table=True):
    """One side of an entry; at commit a trigger checks that the entry's debits equal its credits in each currency."""

    __tablename__ = "ledger_line"
    __table_args__ = (
        CheckConstraint("debit >= 0 AND credit >= 0 AND (debit = 0) <> (credit = 0)", name="one_side"),
        Index("ledger_line_account", "account", "currency", postgresql_include=["debit", "credit"]),
    )

    # Its entry is looked for by the trigger; a foreign key would want the right to update entries, which nobody has.
    entry_id: UUID = Field(primary_key=True)
    position: int = Field(primary_key=True)
    account: str
    currency: str
    debit: int = Field(default=0, sa_column=_money())
    credit: int = Field(default=0, sa_column=_money())


class ProviderEvent(Model, table=True):
    """What the provider told, byte for byte; `next_attempt_at` is null once it was handled. Old ones are empty."""

    __tablename__ = "provider_event"
    __table_args__ = (
        Index("provider_event_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        Index(
            "provider_event_kept",
            "received_at",
            postgresql_where=text("handled_at IS NOT NULL AND octet_length(payload) > 0"),
        ),
    )

    id: str = Field(primary_key=True)
    type: str
    payload: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    received_at: datetime = Field(sa_column=instant())
    attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    handled_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    outcome: str | None = None


class MemberTime(Model, table=True):
    """A member's membership time as members last told it, for quotes."""

    __tablename__ = "member_time"

    member_id: UUID = Field(primary_key=True)
    version: int
    segments: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))


class MergedMember(MergedMemberColumns, Model, table=True):
    """Whose account became part of whose."""

    __tablename__ = "merged_member"
