"""Subscriptions: whose time is renewed with which card, until when it runs, and what the others are told of it."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import SubscriptionChanged
from kit import clock
from kit.errors import Conflict
from kit.events import emit
from kit.ids import new_id
from kit.revocations import revocations
from services.billing import renewal_notices
from services.billing.means import KeptCard
from services.billing.member_time import GRACE, segments_of
from services.billing.models import Order
from services.billing.subscription_models import Subscription

log = structlog.get_logger(__name__)

NOTICE: Final = timedelta(days=5)
RETRIES: Final = (timedelta(days=1), timedelta(days=3), timedelta(days=6))
"""When a charge that failed is tried again, counted from the first one; all of it lies within the grace."""
ON_TIME: Final = timedelta(hours=1)
"""How late a notice may be without moving the charge."""
ATTEMPTS = 5


class SubscriptionBusy(Conflict):
    """Your renewal is being dealt with this moment; ask again in a few seconds."""

    zh = "续费正在处理中，请几秒后重试。"
    action = "retry_after"


async def live_id(session: AsyncSession, member_id: UUID) -> UUID | None:
    """The member's subscription that has not ended; there is one at the most."""
    return await session.scalar(
        select(col(Subscription.id)).where(col(Subscription.member_id) == member_id, col(Subscription.status) != "none")
    )


async def lock(session: AsyncSession, subscription_id: UUID) -> Subscription:
    """The subscription as it is now, locked with its open renewal order; the order first, as payments lock it."""
    order_id = select(col(Subscription.renewal_order_id)).where(col(Subscription.id) == subscription_id)
    whole = select(Subscription).where(col(Subscription.id) == subscription_id).with_for_update()
    for _ in range(ATTEMPTS):
        # What was locked in vain is let go with the savepoint.
        held = await session.begin_nested()
        renewal_id = await session.scalar(order_id)
        if renewal_id is not None:
            await session.execute(select(col(Order.id)).where(col(Order.id) == renewal_id).with_for_update())
        subscription = (await session.scalars(whole, execution_options={"populate_existing": True})).one()
        if subscription.renewal_order_id == renewal_id:
            await held.commit()
            return subscription
        await held.rollback()
    raise SubscriptionBusy(retry_after=1)


async def tell(session: AsyncSession, subscription: Subscription) -> None:
    """Tell how it stands, after what the caller changed; versions rise over all subscriptions of a member."""
    await session.flush()
    last = select(func.max(col(Subscription.version))).where(col(Subscription.member_id) == subscription.member_id)
    subscription.version = max(int(await session.scalar(last) or 0), subscription.version) + 1
    await session.flush()
    await emit(
        session,
        SubscriptionChanged(
            subscription_id=subscription.id,
            member_id=subscription.member_id,
            version=subscription.version,
            status=subscription.status,
            plan_code=subscription.plan_code,
            renewing=subscription.status in ("active", "past_due"),
            renews_at=subscription.renews_at if subscription.status != "none" else None,
        ),
    )


async def line_end(session: AsyncSession, subscription: Subscription) -> datetime | None:
    """When all of the member's time ends, as far as is known; with an order just paid that members has not told of."""
    segments = await segments_of(
        session, subscription.member_id, awaited=None if subscription.order_told else subscription.order_id
    )
    return max((segment.ends_at for segment in segments), default=None)


def charge_at(subscription: Subscription) -> datetime:
    """When an announced renewal is charged: at the end of the time, but never within five days of a late notice."""
    announced_at = subscription.announced_at or clock.now()
    if announced_at <= subscription.renews_at - NOTICE + ON_TIME:
        return subscription.renews_at
    return announced_at + NOTICE


def schedule(subscription: Subscription) -> None:
    """Set when something must be done, for a subscription without an open renewal."""
    if subscription.status == "none":
        subscription.next_at = None
    elif subscription.status == "canceling":
        subscription.next_at = subscription.renews_at
    elif subscription.held_at is not None:
        subscription.next_at = subscription.renews_at + GRACE
    elif subscription.announced_for == subscription.renews_at:
        subscription.next_at = charge_at(subscription)
    else:
        subscription.next_at = subscription.renews_at - NOTICE


def move_to(subscription: Subscription, end: datetime) -> None:
    """The member's time ends then: that is when it renews. A renewal for another end is nothing to wait for any more."""
    subscription.renews_at = end
    if subscription.status == "past_due":
        subscription.status = "active"
    subscription.held_at = subscription.held_reason = None
    schedule(subscription)


async def end(session: AsyncSession, subscription: Subscription, reason: str) -> None:
    """End it now, and tell; the caller has locked it, and closed the renewal order if one is open."""
    subscription.status = "none"
    subscription.ended_at = clock.now()
    subscription.end_reason = reason
    subscription.next_at = None
    subscription.renewal_order_id = None
    await tell(session, subscription)


async def on_paid(session: AsyncSession, order: Order, card: KeptCard | None) -> None:
    """What a payment means for auto-renewal, in the transaction of the payment; the order is locked and paid."""
    if order.subscription_id is not None:
        await _renewed(session, order.subscription_id, order, card)
    elif order.auto_renew and order.kind == "membership":
        await _subscribed(session, order, card)


async def _renewed(session: AsyncSession, subscription_id: UUID, order: Order, card: KeptCard | None) -> None:
    subscription = await lock(session, subscription_id)
    subscription.order_id, subscription.order_told = order.id, False
    # Paid so late that auto-renewal had ended: the time is theirs, and nothing is charged after it.
    until = await line_end(session, subscription) or clock.now()
    if subscription.status != "none":
        keep_card(subscription, card)
        if subscription.renewal_order_id == order.id:
            subscription.renewal_order_id = None
        move_to(subscription, until)
        await tell(session, subscription)
    await renewal_notices.paid(session, order, until)


async def _subscribed(session: AsyncSession, order: Order, card: KeptCard | None) -> None:
    if card is None or order.plan_code is None:
        log.error("auto-renewal without a card", order=order.number)
        await renewal_notices.not_set_up(session, order)
        return
    now = clock.now()
    row = {
        "id": new_id(),
        "member_id": order.member_id,
        "version": 0,
        "status": "active",
        "plan_code": order.plan_code,
        "order_id": order.id,
        "order_told": False,
        "renews_at": now,
        "created_at": now,
    }
    # Two orders of one member may be paid at once: whoever comes second goes on with the subscription of the first.
    await session.execute(upsert(Subscription).values(row).on_conflict_do_nothing())
    held = await live_id(session, order.member_id)
    if held is None:
        raise SubscriptionBusy(retry_after=1)
    subscription = await lock(session, held)
    subscription.plan_code, subscription.order_id, subscription.order_told = order.plan_code, order.id, False
    frozen = str(order.member_id) in revocations.frozen
    if frozen:
        # Paid at a page that was open before: who cannot log in to cancel is charged no more, and may resume later.
        subscription.status, subscription.end_reason = "canceling", "frozen"
    elif subscription.status == "canceling":
        subscription.status, subscription.end_reason = "active", None
    keep_card(subscription, card)
    # What was announced was another plan, perhaps.
    subscription.announced_for = None
    move_to(subscription, await line_end(session, subscription) or now)
    if subscription.renewal_order_id is not None:
        # This payment gave the time that was to be renewed: the open renewal is closed at once.
        subscription.next_at = now
    await tell(session, subscription)
    if frozen:
        await renewal_notices.stopped(session, subscription, "frozen")


def keep_card(subscription: Subscription, card: KeptCard | None) -> None:
    """Charge this card from now on; None changes nothing."""
    if card is not None:
        subscription.customer_ref, subscription.payment_method_ref = card.customer, card.payment_method
        subscription.card_brand, subscription.card_last4 = card.brand, card.last4
