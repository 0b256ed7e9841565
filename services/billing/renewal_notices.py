"""Notices of auto-renewal: what a member is told before a charge, after it, and when it does not work."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.notices import BillingNoticeWanted
from kit import clock
from kit.events import emit
from services.billing.amounts import moment_en, moment_zh, money
from services.billing.models import Order
from services.billing.subscription_models import RenewalAttempt, Subscription

_WHY_STOPPED = {
    "plan_not_on_sale": ("这个套餐已下架，不再续费", "the plan is not sold any more and is not renewed"),
    "charged_before": (
        "系统发现这段时间可能已经扣过款，因此没有再扣，客服会尽快核对",
        "this period seems to have been charged before, so nothing was charged; a person is looking at it",
    ),
    "card_not_kept": ("支付渠道没有保存银行卡", "the payment provider did not keep the card"),
    "time_gone": ("会员时长已全部退回", "all of the membership was given back"),
    "given_back": ("这次购买已退款", "the purchase it came with was refunded"),
    "accounts_merged": (
        "两个账号已合并，只保留其中一份自动续费",
        "two accounts became one, which keeps one auto-renewal",
    ),
    "disputed": ("银行卡的付款存在争议，不再扣款", "a payment by this card is disputed, so it is not charged any more"),
    "frozen": (
        "账号已冻结，期间无法自行取消，因此不再扣款",
        "your account is frozen, and while you could not cancel it, nothing is charged",
    ),
    "admin": ("客服已为你停止自动续费", "the community's support has stopped it for you"),
}


async def _want(session: AsyncSession, member_id: UUID, kind: str, reference: str, zh: str, en: str) -> None:
    await emit(
        session,
        BillingNoticeWanted(
            member_id=member_id,
            kind=kind,
            reference=f"{kind}:{reference}",
            body_zh=zh,
            body_en=en,
            wanted_at=clock.now(),
        ),
    )


def _card(subscription: Subscription) -> tuple[str, str]:
    if subscription.card_last4 is None:
        return "已保存的银行卡", "your saved card"
    return f"尾号 {subscription.card_last4} 的银行卡", f"your card ending in {subscription.card_last4}"


async def upcoming(
    session: AsyncSession, subscription: Subscription, title: str, amount: int, currency: str, charge_at: datetime
) -> None:
    """When, what for, how much and from which card, and how to stop it: days before it happens."""
    zh, en = _card(subscription)
    await _want(
        session,
        subscription.member_id,
        "renewal_upcoming",
        f"{subscription.id}:{subscription.renews_at.isoformat()}",
        f"你的「{title}」将于 {moment_zh(charge_at)} 自动续费，届时从{zh}扣款 {money(amount, currency)}。"
        "如不需要，请在此之前在「我的会员」中取消自动续费。",
        f"Your {title} renews on {moment_en(charge_at)}: {money(amount, currency)} will be charged to {en}. "
        "If you do not want this, cancel auto-renewal in your membership before then.",
    )


async def paid(session: AsyncSession, order: Order, until: datetime) -> None:
    """A renewal was paid."""
    amount = money(order.total, order.currency)
    await _want(
        session,
        order.member_id,
        "renewal_paid",
        str(order.id),
        f"「{order.title}」续费成功，已扣款 {amount}，会员有效期至 {moment_zh(until)}。订单号 {order.number}。",
        f"Your {order.title} was renewed for {amount}; your membership runs until {moment_en(until)}. "
        f"Order {order.number}.",
    )


async def failed(
    session: AsyncSession, subscription: Subscription, attempt: RenewalAttempt, retry_at: datetime | None, end: datetime
) -> None:
    """A charge was refused: when it is tried again, and until when there is time."""
    zh, en = _card(subscription)
    amount = money(attempt.amount, attempt.currency)
    again_zh = f"我们会在 {moment_zh(retry_at)} 再试一次；" if retry_at else "这是最后一次尝试；"
    again_en = f"It is tried again on {moment_en(retry_at)}. " if retry_at else "This was the last try. "
    await _want(
        session,
        subscription.member_id,
        "renewal_failed",
        str(attempt.id),
        f"自动续费失败：从{zh}扣款 {amount} 未成功。{again_zh}"
        f"你可以在「我的会员」中更换银行卡或直接支付，{moment_zh(end)} 前会员权益照常。",
        f"Auto-renewal failed: {amount} could not be charged to {en}. {again_en}"
        f"Change the card or pay in your membership; your benefits stay until {moment_en(end)}.",
    )


async def action_required(
    session: AsyncSession, subscription: Subscription, attempt: RenewalAttempt, url: str | None, end: datetime
) -> None:
    """The bank asks for its customer: where the renewal is confirmed and paid, and until when."""
    amount = money(attempt.amount, attempt.currency)
    where_zh = f"请打开 {url} 完成验证并支付" if url else "请在「我的会员」中完成验证并支付"
    where_en = f"Confirm and pay it at {url}" if url else "Confirm and pay it in your membership"
    await _want(
        session,
        subscription.member_id,
        "renewal_action_required",
        str(attempt.id),
        f"银行要求你本人确认 {amount} 的自动续费。{where_zh}，{moment_zh(end)} 前会员权益照常；"
        "链接过期后可在「我的会员」中重新获取。",
        f"Your bank wants you to confirm the renewal of {amount}. {where_en}; your benefits stay until "
        f"{moment_en(end)}. When the page has expired, get a new one in your membership.",
    )


async def lapsed(session: AsyncSession, subscription: Subscription) -> None:
    """The grace is over, and nothing was paid."""
    await _want(
        session,
        subscription.member_id,
        "renewal_lapsed",
        f"{subscription.id}:{subscription.renews_at.isoformat()}",
        "自动续费未能完成，会员已到期，自动续费已停止，没有扣款。欢迎随时重新购买。",
        "Auto-renewal did not work: your membership has ended, auto-renewal has stopped, and nothing was charged. "
        "You can buy again at any time.",
    )


async def stopped(session: AsyncSession, subscription: Subscription, why: str) -> None:
    """Auto-renewal ends for a reason that is not the member's own wish."""
    zh, en = _WHY_STOPPED[why]
    await _want(
        session,
        subscription.member_id,
        "renewal_stopped",
        f"{subscription.id}:{why}:{subscription.renews_at.isoformat()}",
        f"自动续费已停止：{zh}。已购买的时长不受影响，之后不会再自动扣款。",
        f"Auto-renewal has stopped: {en}. Time you have paid for stays yours, and nothing more is charged by itself.",
    )


async def not_set_up(session: AsyncSession, order: Order) -> None:
    """An order was to renew, and cannot."""
    zh, en = _WHY_STOPPED["card_not_kept"]
    await _want(
        session,
        order.member_id,
        "renewal_stopped",
        str(order.id),
        f"订单 {order.number} 已支付，但未能开通自动续费：{zh}。到期后不会自动扣款。",
        f"Order {order.number} is paid, but auto-renewal could not be set up: {en}. Nothing is charged when it ends.",
    )


async def canceled(session: AsyncSession, subscription: Subscription) -> None:
    """The member gave auto-renewal up."""
    end = subscription.renews_at
    await _want(
        session,
        subscription.member_id,
        "renewal_canceled",
        f"{subscription.id}:{subscription.version}",
        f"自动续费已取消，不会再扣款，会员有效期至 {moment_zh(end)}。",
        f"Auto-renewal is canceled and nothing more is charged; your membership runs until {moment_en(end)}.",
    )


async def resumed(session: AsyncSession, subscription: Subscription) -> None:
    """The member wants auto-renewal after all."""
    end = subscription.renews_at
    await _want(
        session,
        subscription.member_id,
        "renewal_resumed",
        f"{subscription.id}:{subscription.version}",
        f"自动续费已恢复，将于 {moment_zh(end)} 续费，扣款前会提前通知你。",
        f"Auto-renewal is on again and renews on {moment_en(end)}; you are told before anything is charged.",
    )


async def card_updated(session: AsyncSession, subscription: Subscription, page_id: UUID) -> None:
    """Another card pays from now on."""
    zh, en = _card(subscription)
    await _want(
        session,
        subscription.member_id,
        "card_updated",
        str(page_id),
        f"自动续费的付款方式已更换为{zh}。",
        f"Auto-renewal is now paid by {en}.",
    )
