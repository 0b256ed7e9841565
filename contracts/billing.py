"""What billing tells: money that moved and what it bought, and what became of a coupon."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime

from kit.audit import AdminActed
from kit.events import Event


class OrderPaid(Event, type="billing.order.paid"):
    """An order was paid, once; amounts in minor units, `total` is what was really paid."""

    order_id: UUID
    number: str
    member_id: UUID
    kind: Literal["membership", "gift", "course"]
    plan_code: str | None = None
    course_id: UUID | None = None
    months: int = 0
    benefits: tuple[str, ...] = ()
    subtotal: int
    discount: int
    total: int
    currency: str
    coupon_id: UUID | None = None
    payment_method: str
    paid_at: AwareDatetime
    fingerprint: str | None = None
    address_prefix: str | None = None


class OrderClosed(Event, type="billing.order.closed"):
    """An unpaid order ended."""

    order_id: UUID
    member_id: UUID
    reason: Literal["canceled", "expired"]


class OrderRefunded(Event, type="billing.order.refunded"):
    """Money of an order went back; `amount` of this refund, `full` when nothing of the payment is left."""

    order_id: UUID
    refund_id: UUID
    member_id: UUID
    amount: int
    currency: str
    full: bool
    removes_time: bool
    refunded_at: AwareDatetime


class CouponReserved(Event, type="billing.coupon.reserved"):
    """A coupon is held by an open order."""

    coupon_id: UUID
    order_id: UUID
    member_id: UUID


class CouponReleased(Event, type="billing.coupon.released"):
    """A coupon is free again: its order was canceled, expired or refunded in full."""

    coupon_id: UUID
    order_id: UUID
    member_id: UUID


class CouponRedeemed(Event, type="billing.coupon.redeemed"):
    """A coupon was spent by a paid order."""

    coupon_id: UUID
    order_id: UUID
    member_id: UUID


class BillingAdminActed(AdminActed, type="billing.admin.acted"):
    """An admin acted in billing; members keeps the audit log."""
