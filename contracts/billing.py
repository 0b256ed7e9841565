"""What billing tells: money that moved and what it bought, and what became of a coupon."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime

from kit.audit import AdminActed
from kit.events import Event


class OrderPaid(Event, type="billing.order.paid"):
    """An order was paid, once; amounts in minor units, `total` is what was really paid.

    `renews_from` is where the time of a renewal begins, the end of the time before it; null for what a member bought.
    """

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
    renews_from: AwareDatetime | None = None


class OrderClosed(Event, type="billing.order.closed"):
    """An unpaid order ended."""

    order_id: UUID
    member_id: UUID
    reason: Literal["canceled", "expired"]


class OrderRefunded(Event, type="billing.order.refunded"):
    """Money of an order went back; `amount` of this refund, `full` when nothing of the payment is left.

    `removes_time` when the membership time that the order bought goes with it: a refund of all that was refundable then,
    be it a part of the price for the days that were not used.
    """

    order_id: UUID
    refund_id: UUID
    member_id: UUID
    amount: int
    currency: str
    full: bool
    removes_time: bool
    refunded_at: AwareDatetime
    kind: Literal["membership", "gift", "course"] = "membership"
    beneficiary_id: UUID | None = None


class OrderDisputed(Event, type="billing.order.disputed"):
    """A payer's bank asked for the money of an order back: it was opened, or decided; the house wins or loses it.

    `removes_time` is whether what the order bought is lost while the dispute lasts, or for good.
    """

    order_id: UUID
    member_id: UUID
    kind: Literal["membership", "gift", "course"]
    outcome: Literal["opened", "won", "lost"]
    amount: int
    currency: str
    removes_time: bool
    beneficiary_id: UUID | None = None
    disputed_at: AwareDatetime


class CodeRedeemed(Event, type="billing.code.redeemed"):
    """A gift's or a batch's code became membership time of whoever redeemed it.

    Billing has shown the segment already: members makes it under `segment_id`. `source_id` is the gift's order, or the
    code of a batch.
    """

    segment_id: UUID
    source: Literal["gift", "redeem_code"]
    source_id: UUID
    member_id: UUID
    plan_code: str
    months: int
    benefits: tuple[str, ...]
    redeemed_at: AwareDatetime


class PlanChanged(Event, type="billing.plan.changed"):
    """A plan is new or was edited; the whole picture, a listener ignores a revision not above the one it holds."""

    plan_code: str
    revision: int
    name: str
    months: int
    benefits: tuple[str, ...]
    active: bool


class SubscriptionChanged(Event, type="billing.subscription.changed"):
    """How a member's auto-renewal stands; the whole picture, a listener ignores a version not above the one it holds.

    While `renewing`, access lasts 7 days past the end of the paid time: `past_due` is those days, or a part of them.
    """

    subscription_id: UUID
    member_id: UUID
    version: int
    status: Literal["active", "past_due", "canceling", "none"]
    plan_code: str
    renewing: bool
    renews_at: AwareDatetime | None = None


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
