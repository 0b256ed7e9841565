"""Refund windows: how long members take money back themselves, and how long the way they paid gives any back."""

from datetime import timedelta

from kit import clock
from kit.errors import Conflict
from services.billing.models import Order
from services.billing.settings import Settings


class RefundWindowOver(Conflict):
    """The time to take the money back yourself is over; write to the community's support."""

    zh = "已超过自助退款期限，请联系社区客服。"


class ProviderRefundWindowOver(Conflict):
    """This way of paying gives money back for {days} days only; pay the member another way, such as by bank transfer."""

    zh = "该支付方式仅支持在付款后 {days} 天内原路退款，请通过银行转账等其他方式退还。"


def in_members_window(order: Order, settings: Settings) -> bool:
    """Whether the buyer may still take the money back without asking."""
    return order.paid_at is not None and clock.now() < order.paid_at + timedelta(days=settings.refund_days)


def in_providers_window(order: Order, settings: Settings) -> bool:
    """Whether the provider still sends this order's money back the way it came."""
    days = settings.provider_refund_days[order.payment_method]
    return days == 0 or (order.paid_at is not None and clock.now() < order.paid_at + timedelta(days=days))


def require_window(order: Order, settings: Settings, *, by_admin: bool) -> None:
    """Refuse a refund that comes too late: RefundWindowOver for a member, ProviderRefundWindowOver for anybody."""
    if not by_admin and not in_members_window(order, settings):
        raise RefundWindowOver
    if not in_providers_window(order, settings):
        raise ProviderRefundWindowOver(days=settings.provider_refund_days[order.payment_method])
