"""Pages of a subscription at the provider: another card is kept there, or a renewal paid that the bank refused."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.due import Due
from services.billing import checkout, payments, renewal_notices, saved_cards, subscribing
from services.billing.means import KeptCard
from services.billing.member_time import GRACE
from services.billing.models import Order
from services.billing.provider import PaymentProviderUnavailable, Provider, ProviderRefusal, provider_of
from services.billing.subscribing import SubscriptionBusy
from services.billing.subscription_models import RenewalAttempt, Subscription, SubscriptionPage

log = structlog.get_logger(__name__)

USEFUL = timedelta(minutes=10)
"""A page with less time left than this is not given out any more."""
OFTEN = timedelta(minutes=10)
BATCH = 20


async def page_for_payment(
    session: AsyncSession, provider: Provider, order: Order, *, charging: bool = True
) -> SubscriptionPage | None:
    """The page on which an open renewal order is paid; None when it is not open any more.

    SubscriptionBusy while its card is being charged, unless the caller knows that the bank has refused. Commits; nothing
    is held while the provider is asked.
    """
    locked = await payments.lock_order(session, order.id)
    if locked is None or locked.status != "pending" or locked.subscription_id is None:
        return None
    under_way = select(col(RenewalAttempt.id)).where(
        col(RenewalAttempt.order_id) == order.id, col(RenewalAttempt.status) == "pending"
    )
    page = await _open_page(session, locked.subscription_id, "payment")
    if page is None:
        if charging and await session.scalar(under_way) is not None:
            raise SubscriptionBusy(retry_after=5)
        subscription = await session.get_one(Subscription, locked.subscription_id)
        page = _new_page(subscription, "payment", locked.renews_from and locked.renews_from + GRACE)
        page.order_id = order.id
        session.add(page)
    return await _give_address(session, provider, page, locked)


async def page_for_card(
    session: AsyncSession,
    provider: Provider,
    subscription: Subscription,
    *,
    success_url: str | None,
    cancel_url: str | None,
) -> SubscriptionPage:
    """The page on which the member keeps another card; the one that is open already, if there is one. Commits."""
    page = await _open_page(session, subscription.id, "card")
    if page is None or (page.success_url, page.cancel_url) != (success_url, cancel_url):
        if page is not None:
            # It leads elsewhere afterwards; what is kept on it counts all the same.
            page.status = "over"
        page = _new_page(subscription, "card", None)
        page.success_url, page.cancel_url = success_url, cancel_url
        session.add(page)
    return await _give_address(session, provider, page, None)


async def _open_page(session: AsyncSession, subscription_id: UUID, purpose: str) -> SubscriptionPage | None:
    page = await session.scalar(
        select(SubscriptionPage)
        .where(
            col(SubscriptionPage.subscription_id) == subscription_id,
            col(SubscriptionPage.purpose) == purpose,
            col(SubscriptionPage.status) == "open",
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if page is None or page.expires_at > clock.now() + USEFUL:
        return page
    # Watched on until it is over at the provider, too.
    page.status = "over"
    await session.flush()
    return None


def _new_page(subscription: Subscription, purpose: Any, until: datetime | None) -> SubscriptionPage:
    now = clock.now()
    return SubscriptionPage(
        subscription_id=subscription.id,
        member_id=subscription.member_id,
        purpose=purpose,
        customer_ref=subscription.customer_ref or "",
        status="open",
        created_at=now,
        expires_at=saved_cards.page_life(now, until),
        next_check_at=_next_check(now, now),
    )


async def _give_address(
    session: AsyncSession, provider: Provider, page: SubscriptionPage, order: Order | None
) -> SubscriptionPage:
    # Written before the provider is asked: its key is what makes a repetition the same page.
    await session.commit()
    if page.session_id is None:
        opened = await saved_cards.open_page(provider, page, order)
        page.session_id, page.session_url = opened.id, opened.url
        if order is not None:
            await session.execute(
                update(Order)
                .where(col(Order.id) == order.id, col(Order.status) == "pending")
                .values(session_url=opened.url, expires_at=page.expires_at)
            )
        await session.commit()
    return page


def _next_check(opened_at: datetime, now: datetime) -> datetime:
    """Every minute while somebody is probably at it, later every quarter of an hour: a webhook may be lost."""
    return now + (timedelta(minutes=1) if now < opened_at + OFTEN else timedelta(minutes=15))


async def close_for_payment(session: AsyncSession, provider: Provider, order_id: UUID) -> None:
    """End the pages on which this renewal could still be paid; one that was paid first is taken in. Commits."""
    pages = await session.scalars(
        select(SubscriptionPage).where(
            col(SubscriptionPage.order_id) == order_id, col(SubscriptionPage.next_check_at).is_not(None)
        )
    )
    for page in pages.all():
        await _end(session, provider, page)


async def _end(session: AsyncSession, provider: Provider, page: SubscriptionPage) -> None:
    await session.commit()
    if page.session_id is None:
        # An answer was lost: asked with the same key it is the same session.
        order = await session.get(Order, page.order_id) if page.order_id else None
        await session.commit()
        try:
            page.session_id = (await saved_cards.open_page(provider, page, order)).id
        except ProviderRefusal:
            await _over(session, page)
            return
    found = await provider.close_session(page.session_id)
    if page.purpose == "card" and found.status == "complete":
        await _take_card(session, provider, page.id)
        await session.commit()
        return
    if found.paid and page.order_id is not None:
        await checkout.take_in(session, provider, page.order_id, found)
    await _over(session, page, done=found.paid)


async def _over(session: AsyncSession, page: SubscriptionPage, *, done: bool = False) -> None:
    page.status, page.next_check_at = "done" if done else "over", None
    if page.order_id is not None:
        gone = update(Order).where(col(Order.id) == page.order_id, col(Order.session_url) == page.session_url)
        await session.execute(gone.values(session_url=None))
    await session.commit()


async def on_card_kept(rt: Runtime, session: AsyncSession, subject: dict[str, Any]) -> str:
    """A webhook says that a page for a card was finished: look at what was kept on it."""
    ref = subject.get("id")
    page_id = await session.scalar(select(col(SubscriptionPage.id)).where(col(SubscriptionPage.session_id) == ref))
    if page_id is None:
        return "not_ours"
    await session.commit()
    return await _take_card(session, provider_of(rt), page_id)


async def _take_card(session: AsyncSession, provider: Provider, page_id: UUID) -> str:
    page = await session.get_one(SubscriptionPage, page_id)
    await session.commit()
    if page.status == "done" or page.session_id is None:
        return "known"
    card = await saved_cards.card_kept_on(provider, page.session_id)
    subscription = await subscribing.lock(session, page.subscription_id)
    page = await session.get_one(SubscriptionPage, page_id, populate_existing=True)
    if card is None or page.status == "done":
        return "known"
    page.status, page.next_check_at = "done", None
    if subscription.status != "none":
        await _use(session, subscription, card, page_id)
    await session.flush()
    return "card_kept"


async def _use(session: AsyncSession, subscription: Subscription, card: KeptCard, page_id: UUID) -> None:
    subscribing.keep_card(subscription, card)
    if subscription.status == "past_due":
        # The new card is tried at once.
        subscription.next_at = clock.now()
    await session.flush()
    await renewal_notices.card_updated(session, subscription, page_id)


async def watch(rt: Runtime) -> int:
    """Look at the pages whose moment has come: done without a webhook, no longer needed, or over."""
    now = clock.now()
    provider = provider_of(rt)
    room = provider.room(BATCH)
    if not room:
        return 0
    async with rt.db.session() as session, session.begin():
        waiting = (
            select(col(SubscriptionPage.id))
            .where(col(SubscriptionPage.next_check_at) <= now)
            .order_by(col(SubscriptionPage.next_check_at))
            .limit(room)
            .with_for_update(skip_locked=True)
        )
        claim = update(SubscriptionPage).where(col(SubscriptionPage.id).in_(waiting))
        pages = (
            await session.execute(
                claim.values(next_check_at=now + timedelta(minutes=1)).returning(
                    col(SubscriptionPage.id), col(SubscriptionPage.order_id)
                )
            )
        ).all()
    for page_id, order_id in pages:
        try:
            await _look_at(rt, provider, page_id, order_id)
        except PaymentProviderUnavailable:
            log.warning("page waits for the provider", page=str(page_id))
    return len(pages)


async def _look_at(rt: Runtime, provider: Provider, page_id: UUID, order_id: UUID | None) -> None:
    async with rt.db.session() as session:
        page = await session.get_one(SubscriptionPage, page_id)
        needed = True
        if order_id is not None:
            needed = await session.scalar(select(col(Order.status)).where(col(Order.id) == order_id)) == "pending"
        await session.commit()
        if not needed or page.expires_at <= clock.now() or page.session_id is None:
            await _end(session, provider, page)
            return
        found = await provider.session(page.session_id)
        if found.status != "open":
            await _end(session, provider, page)
        else:
            page.next_check_at = _next_check(page.created_at, clock.now())
            await session.commit()


due = Due("watch subscription pages", watch, waits="SELECT FROM subscription_page WHERE next_check_at <= $1")
