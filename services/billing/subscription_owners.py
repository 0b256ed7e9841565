"""Whose a subscription is: it follows a merged account, ends with an erased one, and is given up for a frozen one."""

from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberChanged, MemberErased
from services.billing import renewal_notices, renewals, subscribing, subscriptions
from services.billing.subscription_models import Subscription, SubscriptionPage


async def end_one_of_two(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> Subscription | None:
    """Before the merged member's subscription moves: of two the younger goes on, and the other ends. The one that moves."""
    theirs = await _live(session, merged_id)
    mine = await _live(session, kept_id) if theirs is not None else None
    if theirs is not None and mine is not None:
        older = mine if (mine.created_at, mine.id) < (theirs.created_at, theirs.id) else theirs
        await renewals.stop(session, older, "accounts_merged")
        await session.flush()
    return theirs


async def tell_moved(session: AsyncSession, kept_id: UUID, moved: Subscription | None) -> None:
    """After it moved: tell whose it is now, and let it follow their time."""
    if moved is None:
        return
    await session.refresh(moved)
    if moved.status != "none":
        await subscribing.tell(session, moved)
    await renewals.follow(session, kept_id)


async def _live(session: AsyncSession, member_id: UUID) -> Subscription | None:
    subscription_id = await subscribing.live_id(session, member_id)
    return await subscribing.lock(session, subscription_id) if subscription_id else None


async def on_member_changed(session: AsyncSession, event: MemberChanged) -> None:
    """Charge nobody who cannot log in to cancel; what they paid for stays, and they may resume once they are let in again."""
    live = await _live(session, event.member_id) if event.frozen else None
    if live is not None and live.status in ("active", "past_due"):
        await subscriptions.give_up(session, live, "frozen")
        await renewal_notices.stopped(session, live, "frozen")


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """End it without a word, and forget the card; what was charged stays on record."""
    member_id = event.member_id
    live = await _live(session, member_id)
    if live is not None:
        await renewals.stop(session, live, "erased", told=False)
    await session.flush()
    await session.execute(
        update(Subscription)
        .where(col(Subscription.member_id) == member_id)
        .values(customer_ref=None, payment_method_ref=None, card_brand=None, card_last4=None)
    )
    await session.execute(
        update(SubscriptionPage)
        .where(col(SubscriptionPage.member_id) == member_id)
        .values(success_url=None, cancel_url=None, session_url=None)
    )
