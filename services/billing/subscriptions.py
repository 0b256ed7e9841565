"""Auto-renewal as its member sees it: until when, with which card, how to stop it, and what to do when a charge fails."""

from typing import Annotated
from uuid import UUID

from fastapi import Body, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, TooManyRequests, problems
from kit.limits import limit
from kit.shapes import Instant, Out, StrictIn
from services.billing import renewal_notices, renewals, subscribing, subscription_pages
from services.billing.checkout import PaymentMethodRefused
from services.billing.items import PlanNotOnSale
from services.billing.member_time import GRACE
from services.billing.models import Order, PlanVersion
from services.billing.ordering import Url, UrlNotAllowed, is_allowed_url
from services.billing.plans import priced_plan
from services.billing.provider import PaymentProviderUnavailable, ProviderRefusal, provider_of
from services.billing.subscribing import SubscriptionBusy
from services.billing.subscription_models import Subscription, SubscriptionPage, SubscriptionStatus

router = new_router(prefix="/v1/me/subscription", tags=["subscription"])


class NoSubscription(NotFound):
    """You have no auto-renewal; buy a plan by card with auto_renew to have one."""

    zh = "你没有开通自动续费；用银行卡购买套餐并勾选自动续费即可开通。"
    action = "buy_membership"


class SubscriptionOver(Conflict):
    """This auto-renewal has ended and cannot be resumed; buy a plan with auto_renew again."""

    zh = "这份自动续费已经结束，无法恢复；请重新购买并勾选自动续费。"
    action = "buy_membership"


class NothingToPay(Conflict):
    """No renewal is waiting to be paid; your auto-renewal needs nothing from you."""

    zh = "没有待支付的续费，自动续费无需你操作。"


class CardOut(Out):
    """What may be shown of a card."""

    brand: str | None
    last4: str | None


class PageOut(Out):
    """A page at the payment provider, and until when it is good."""

    url: str
    expires_at: Instant


class SubscriptionOut(Out):
    """How auto-renewal stands; `amount` is what the next renewal costs, as announced once it was announced.

    While a renewal is past due, `access_until` is when the membership ends for good, and `order_id` what is to be paid.
    """

    status: SubscriptionStatus
    plan_code: str | None = None
    renews_at: Instant | None = None
    cancel_at: Instant | None = None
    amount: int | None = None
    currency: str | None = None
    card: CardOut | None = None
    order_id: UUID | None = None
    access_until: Instant | None = None


class PageIn(StrictIn):
    """Where the page leads afterwards."""

    success_url: Url | None = None
    cancel_url: Url | None = None


async def shown(session: AsyncSession, subscription: Subscription | None) -> SubscriptionOut:
    """A subscription for its member; judged by the instant, whether or not a job has come by."""
    if subscription is None or subscription.status == "none":
        return SubscriptionOut(status="none")
    canceling = subscription.status == "canceling"
    if canceling and subscription.renews_at <= clock.now():
        return SubscriptionOut(status="none")
    amount, currency = await _price(session, subscription)
    past_due = subscription.status == "past_due"
    return SubscriptionOut(
        status=subscription.status,
        plan_code=subscription.plan_code,
        renews_at=None if canceling else subscription.renews_at,
        cancel_at=subscription.renews_at if canceling else None,
        amount=amount,
        currency=currency,
        card=CardOut(brand=subscription.card_brand, last4=subscription.card_last4),
        order_id=subscription.renewal_order_id,
        access_until=subscription.renews_at + GRACE if past_due else None,
    )


async def _price(session: AsyncSession, subscription: Subscription) -> tuple[int, str]:
    if subscription.renewal_order_id is not None:
        order = await session.get_one(Order, subscription.renewal_order_id)
        return order.total, order.currency
    if subscription.announced_for == subscription.renews_at:
        announced = await session.get_one(PlanVersion, (subscription.plan_code, subscription.announced_version))
        return announced.amount, announced.currency
    plan = await priced_plan(session, subscription.plan_code)
    return plan.amount, plan.currency


async def _live(session: AsyncSession, member_id: UUID) -> Subscription:
    """The caller's live subscription, locked; NoSubscription."""
    subscription_id = await subscribing.live_id(session, member_id)
    if subscription_id is None:
        raise NoSubscription
    subscription = await subscribing.lock(session, subscription_id)
    if subscription.status == "none":
        raise SubscriptionOver
    return subscription


async def _had_one(session: AsyncSession, member_id: UUID) -> bool:
    ended = select(col(Subscription.id)).where(col(Subscription.member_id) == member_id).limit(1)
    return await session.scalar(ended) is not None


@router.get("")
async def read_subscription(caller: MemberDep, session: SessionDep) -> SubscriptionOut:
    """How the caller's auto-renewal stands; status `none` when there is none."""
    found = await session.scalar(
        select(Subscription).where(col(Subscription.member_id) == caller.id, col(Subscription.status) != "none")
    )
    return await shown(session, found)


@router.post("/cancel", responses=problems(NoSubscription, SubscriptionBusy))
async def cancel_subscription(caller: MemberDep, session: SessionDep) -> SubscriptionOut:
    """Charge nothing any more, from this moment; what is paid for stays until its end. Asking again changes nothing."""
    try:
        subscription = await _live(session, caller.id)
    except (NoSubscription, SubscriptionOver):
        if await _had_one(session, caller.id):
            return SubscriptionOut(status="none")
        raise
    if subscription.status != "canceling":
        await give_up(session, subscription, "canceled")
        await renewal_notices.canceled(session, subscription)
    return await shown(session, subscription)


async def give_up(session: AsyncSession, subscription: Subscription, reason: str) -> None:
    """Renew a locked subscription no more: it ends with the paid time, or now when that is over."""
    if subscription.renews_at <= clock.now():
        await renewals.stop(session, subscription, reason, told=False)
        return
    subscription.status, subscription.end_reason = "canceling", reason
    subscribing.schedule(subscription)
    await subscribing.tell(session, subscription)


@router.post("/resume", responses=problems(NoSubscription, SubscriptionOver, PlanNotOnSale, SubscriptionBusy))
async def resume_subscription(caller: MemberDep, session: SessionDep) -> SubscriptionOut:
    """Renew after all, as long as the paid time lasts; asking again changes nothing."""
    try:
        subscription = await _live(session, caller.id)
    except NoSubscription:
        if await _had_one(session, caller.id):
            raise SubscriptionOver from None
        raise
    if subscription.status == "canceling":
        if subscription.renews_at <= clock.now():
            raise SubscriptionOver
        if not (await priced_plan(session, subscription.plan_code)).active:
            raise PlanNotOnSale
        subscription.status, subscription.end_reason = "active", None
        subscribing.schedule(subscription)
        await subscribing.tell(session, subscription)
        await renewal_notices.resumed(session, subscription)
    return await shown(session, subscription)


def _check(body: PageIn, rt: RuntimeDep) -> None:
    for url in (body.success_url, body.cancel_url):
        if url is not None and not is_allowed_url(url, rt.settings):
            raise UrlNotAllowed


def _page(page: SubscriptionPage | None) -> PageOut:
    if page is None or page.session_url is None:
        raise NothingToPay
    return PageOut(url=page.session_url, expires_at=page.expires_at)


@router.post(
    "/card",
    status_code=201,
    responses=problems(
        NoSubscription,
        SubscriptionOver,
        UrlNotAllowed,
        SubscriptionBusy,
        TooManyRequests,
        PaymentMethodRefused,
        PaymentProviderUnavailable,
    ),
)
async def change_card(
    body: Annotated[PageIn, Body(default_factory=PageIn)],
    caller: MemberDep,
    session: SessionDep,
    rt: RuntimeDep,
    request: Request,
) -> PageOut:
    """A page on which another card is kept for renewals; a renewal that is past due is charged to it at once."""
    _check(body, rt)
    await limit(request, "subscription:card", str(caller.id), times=20, seconds=3600)
    subscription = await _live(session, caller.id)
    try:
        page = await subscription_pages.page_for_card(
            session, provider_of(rt), subscription, success_url=body.success_url, cancel_url=body.cancel_url
        )
    except ProviderRefusal as refusal:
        raise PaymentMethodRefused from refusal
    return _page(page)


@router.post(
    "/pay",
    status_code=201,
    responses=problems(
        NoSubscription,
        SubscriptionOver,
        NothingToPay,
        SubscriptionBusy,
        TooManyRequests,
        PaymentMethodRefused,
        PaymentProviderUnavailable,
    ),
)
async def pay_renewal(caller: MemberDep, session: SessionDep, rt: RuntimeDep, request: Request) -> PageOut:
    """A page on which a renewal that is past due is paid and, if the bank asks for it, confirmed."""
    await limit(request, "subscription:pay", str(caller.id), times=20, seconds=3600)
    subscription = await _live(session, caller.id)
    if subscription.status != "past_due" or subscription.renewal_order_id is None:
        raise NothingToPay
    order = await session.get_one(Order, subscription.renewal_order_id)
    try:
        page = await subscription_pages.page_for_payment(session, provider_of(rt), order)
    except ProviderRefusal as refusal:
        raise PaymentMethodRefused from refusal
    return _page(page)
