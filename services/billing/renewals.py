"""Renewals: announced five days before, charged once when the time ends, tried again in the grace, or lapsed."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Row, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MembershipChanged
from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.ids import new_id
from services.billing import payments, renewal_charges, renewal_notices, subscribing
from services.billing.member_time import GRACE, told_segments, was_given_back
from services.billing.models import Order, PlanVersion
from services.billing.ordering import ATTEMPTS, new_number
from services.billing.plans import priced_plan
from services.billing.provider import provider_of
from services.billing.subscribing import NOTICE
from services.billing.subscription_models import Subscription

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
BATCH = 40
AT_ONCE = 8


async def run(rt: Runtime) -> int:
    """Do what is due for subscriptions: announce, charge, try again, end."""
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        waiting = (
            select(col(Subscription.id))
            .where(col(Subscription.next_at) <= now)
            .order_by(col(Subscription.next_at))
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        # The claim is a lease: what it is due for is judged anew, from the subscription as it is then.
        claim = update(Subscription).where(col(Subscription.id).in_(waiting)).values(next_at=now + LEASE)
        claimed = (await session.scalars(claim.returning(col(Subscription.id)))).all()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(subscription_id: UUID) -> None:
        async with gate:
            try:
                await _go_on(rt, subscription_id)
            except Exception:
                # One that cannot be dealt with must not keep the others from it; its lease brings it up again.
                log.exception("renewal not dealt with", subscription=str(subscription_id))

    await asyncio.gather(*(one(subscription_id) for subscription_id in claimed))
    return len(claimed)


async def _go_on(rt: Runtime, subscription_id: UUID) -> None:
    async with rt.db.session() as session, session.begin():
        subscription = await subscribing.lock(session, subscription_id)
        attempt_id = await _step(session, subscription, clock.now(), able=provider_of(rt).room(1) > 0)
    if attempt_id is not None:
        await renewal_charges.try_to_execute(rt, attempt_id)


async def _step(session: AsyncSession, subscription: Subscription, now: datetime, *, able: bool) -> UUID | None:
    """Do the next thing for a locked subscription and set when there is more to do; an attempt to be executed, or None."""
    await drop_outdated(session, subscription)
    if subscription.status == "none":
        return None
    if subscription.status == "canceling":
        if now >= subscription.renews_at:
            await subscribing.end(session, subscription, subscription.end_reason or "canceled")
        else:
            subscribing.schedule(subscription)
        return None
    if subscription.renewal_order_id is not None:
        return await _try_again(session, subscription, subscription.renewal_order_id, now)
    if now >= subscription.renews_at + GRACE:
        await _lapse(session, subscription)
    elif subscription.held_at is not None or now < subscription.renews_at - NOTICE:
        subscribing.schedule(subscription)
    elif subscription.announced_for != subscription.renews_at:
        await _announce(session, subscription, now)
    elif now < subscribing.charge_at(subscription):
        subscribing.schedule(subscription)
    elif able:
        return await _charge(session, subscription, now)
    else:
        # While the provider is left alone nothing is begun.
        subscription.next_at = now + LEASE
    return None


async def _announce(session: AsyncSession, subscription: Subscription, now: datetime) -> None:
    """Say when and how much will be charged; what is said here holds. A plan that is not sold any more is not renewed."""
    plan = await priced_plan(session, subscription.plan_code)
    if not plan.active:
        subscription.status, subscription.end_reason = "canceling", "plan_not_on_sale"
        subscribing.schedule(subscription)
        await subscribing.tell(session, subscription)
        await renewal_notices.stopped(session, subscription, "plan_not_on_sale")
        return
    subscription.announced_for, subscription.announced_at = subscription.renews_at, now
    subscription.announced_version, subscription.announced_months = plan.version, plan.months
    subscribing.schedule(subscription)
    at = subscribing.charge_at(subscription)
    await renewal_notices.upcoming(session, subscription, plan.name, plan.amount, plan.currency, at)


async def _charge(session: AsyncSession, subscription: Subscription, now: datetime) -> UUID | None:
    """Write the renewal's order and the first attempt to pay it; None when there is nothing to be charged after all."""
    end = await subscribing.line_end(session, subscription)
    if end is not None and end > subscription.renews_at:
        # Bought a moment ago: members has not told of it yet.
        subscribing.move_to(subscription, end)
        await subscribing.tell(session, subscription)
        return None
    order = await _write_order(session, subscription, now)
    if order is None:
        await _hold(session, subscription, now)
        return None
    subscription.renewal_order_id = order.id
    return await _attempt(session, subscription, order)


async def _hold(session: AsyncSession, subscription: Subscription, now: datetime) -> None:
    """Charge nothing until a person has looked."""
    subscription.held_at, subscription.held_reason = now, "charged_before"
    subscribing.schedule(subscription)
    log.error("second charge for one period refused", subscription=str(subscription.id))
    await renewal_notices.stopped(session, subscription, "charged_before")


async def _write_order(session: AsyncSession, subscription: Subscription, now: datetime) -> Order | None:
    """The order of the period that begins now; None when one of this member's covers it, which the database decides."""
    if await renewal_charges.were_made_for(session, subscription.member_id, subscription.renews_at):
        return None
    plan = await priced_plan(session, subscription.plan_code)
    version, amount, currency = await _price(session, subscription, plan)
    row = {
        "member_id": subscription.member_id,
        "kind": "membership",
        "status": "pending",
        "plan_code": subscription.plan_code,
        "plan_version": version,
        "title": plan.name,
        "months": subscription.announced_months,
        "benefits": plan.benefits,
        "subtotal": amount,
        "discount": 0,
        "total": amount,
        "refunded_amount": 0,
        "currency": currency,
        "payment_method": "card",
        "auto_renew": True,
        "subscription_id": subscription.id,
        "renews_from": subscription.renews_at,
        "session_open": False,
        "created_at": now,
        "expires_at": subscription.renews_at + GRACE,
    }
    same = select(col(Order.id)).where(
        col(Order.member_id) == subscription.member_id,
        col(Order.renews_from) == subscription.renews_at,
        col(Order.status).not_in(["canceled", "expired"]),
    )
    for _ in range(ATTEMPTS):
        numbered = row | {"id": new_id(), "number": new_number()}
        order = await session.scalar(upsert(Order).values(numbered).on_conflict_do_nothing().returning(Order))
        if order is not None or await session.scalar(same) is not None:
            return order
    raise subscribing.SubscriptionBusy(retry_after=1)


async def _price(session: AsyncSession, subscription: Subscription, plan: Row[Any]) -> tuple[int, int, str]:
    """Version, amount and currency: as announced, or the plan's price in force where that is lower."""
    announced = await session.get_one(PlanVersion, (subscription.plan_code, subscription.announced_version))
    same = (plan.currency, plan.months) == (announced.currency, subscription.announced_months)
    if same and plan.amount < announced.amount:
        return plan.version, plan.amount, plan.currency
    return announced.version, announced.amount, announced.currency


async def _attempt(session: AsyncSession, subscription: Subscription, order: Order) -> UUID | None:
    attempt = await renewal_charges.write(session, subscription, order)
    # Set anew when the outcome is known; until then the attempt itself is what is looked after.
    subscription.next_at = await renewal_charges.next_try(session, order) or subscription.renews_at + GRACE
    return attempt.id if attempt else None


async def _try_again(session: AsyncSession, subscription: Subscription, order_id: UUID, now: datetime) -> UUID | None:
    """Charge an open renewal once more, or give it up when its grace is over."""
    order = await session.get_one(Order, order_id, populate_existing=True)
    over_at = subscription.renews_at + GRACE
    if await renewal_charges.is_any(session, order_id, "pending"):
        # Nobody knows yet whether it was charged: neither charged again nor given up before that is known.
        next_at = await renewal_charges.next_try(session, order) or over_at
        subscription.next_at = max(next_at, now + timedelta(days=1))
        return None
    if now >= over_at:
        await payments.close(session, order_id, "expired")
        await _lapse(session, subscription)
        return None
    if subscription.held_at is not None:
        subscribing.schedule(subscription)
        return None
    if await renewal_charges.is_any(session, order_id, "succeeded"):
        # Charged, and not taken for this order: its payment is parked. One charge a period it stays.
        await _hold(session, subscription, now)
        return None
    return await _attempt(session, subscription, order)


async def _lapse(session: AsyncSession, subscription: Subscription) -> None:
    await subscribing.end(session, subscription, "lapsed")
    await renewal_notices.lapsed(session, subscription)


async def drop_outdated(session: AsyncSession, subscription: Subscription) -> None:
    """Close an open renewal that is for another end than the member's time has now; the caller holds the subscription."""
    if subscription.renewal_order_id is None:
        return
    order = await session.get_one(Order, subscription.renewal_order_id, populate_existing=True)
    if order.renews_from == subscription.renews_at and order.status == "pending":
        return
    await payments.close(session, order.id, "canceled")
    subscription.renewal_order_id = None
    await session.flush()


async def stop(session: AsyncSession, subscription: Subscription, reason: str, *, told: bool = True) -> None:
    """End a locked subscription at once, with its open renewal: whatever is paid for that one goes back."""
    if subscription.renewal_order_id is not None:
        await payments.close(session, subscription.renewal_order_id, "canceled")
    await subscribing.end(session, subscription, reason)
    if told:
        await renewal_notices.stopped(session, subscription, reason)


async def on_membership_changed(session: AsyncSession, event: MembershipChanged) -> None:
    """The member's time ends at another moment: that is when it renews, or never, if nothing is left of it."""
    await follow(session, event.member_id)


async def follow(session: AsyncSession, member_id: UUID) -> None:
    """Bring a member's subscription in line with what is known of their time."""
    subscription_id = await subscribing.live_id(session, member_id)
    if subscription_id is None:
        return
    subscription = await subscribing.lock(session, subscription_id)
    if not subscription.order_told:
        told = await told_segments(session, member_id)
        subscription.order_told = any(segment.source_id == subscription.order_id for segment in told)
    end = await subscribing.line_end(session, subscription)
    now = clock.now()
    if subscription.status == "none":
        return
    moved = end != subscription.renews_at
    if end is None or (moved and end <= min(now, subscription.renews_at)):
        await stop(session, subscription, "time_gone")
        return
    if await was_given_back(session, subscription.order_id):
        # Whoever took their money back does not expect the card to be charged when their other time ends, also when what
        # was given back was over, so that their time ends when it did before.
        await stop(session, subscription, "given_back")
        return
    if not moved:
        return
    subscribing.move_to(subscription, end)
    await drop_outdated(session, subscription)
    await subscribing.tell(session, subscription)


async def next_at(rt: Runtime) -> datetime | None:
    """When the next subscription needs something."""
    async with rt.db.session() as session:
        return await session.scalar(
            select(func.min(col(Subscription.next_at))).where(col(Subscription.next_at) > clock.now())
        )


# The first, by its index: of a parameter PostgreSQL expects that a third are due, and reads all that are active.
_WAITS: Final = (
    "SELECT FROM (SELECT next_at FROM subscription WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1) AS first "
    "WHERE next_at <= $1"
)
due = Due("renew subscriptions", run, next_at=next_at, waits=_WAITS)
