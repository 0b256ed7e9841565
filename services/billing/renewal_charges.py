"""Renewal charges under way: a kept card is asked with the attempt's own key and chased until the outcome is known."""

from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.ids import new_id
from services.billing import payments, renewal_notices, saved_cards, subscribing, subscription_pages
from services.billing.chasing import next_chase
from services.billing.member_time import GRACE
from services.billing.models import Order
from services.billing.payments import Arrival
from services.billing.provider import PaymentProviderUnavailable, Provider, ProviderRefusal, provider_of
from services.billing.saved_cards import Charge
from services.billing.subscribing import RETRIES, SubscriptionBusy
from services.billing.subscription_models import AttemptStatus, RenewalAttempt, Subscription

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
KEYS_LAST = timedelta(hours=12)
"""How long the provider surely knows an idempotency key; Stripe keeps them for a day at least."""
BATCH = 20

# The safety bound: a renewal of this member that was paid, or may be yet, and whose period goes beyond this start. One whose
# time was taken back with its money, by a refund or by a bank, covers nothing any more.
_CHARGED_BEFORE = text("""
SELECT number FROM "order"
WHERE member_id = :member_id AND renews_from IS NOT NULL AND status NOT IN ('canceled', 'expired', 'refunded')
AND (renews_from AT TIME ZONE :zone) + make_interval(months => months) > CAST(:at AS timestamptz) AT TIME ZONE :zone
AND NOT EXISTS (SELECT FROM refund WHERE order_id = "order".id AND status = 'succeeded' AND removes_time)
AND NOT EXISTS (SELECT FROM dispute WHERE order_id = "order".id AND status IN ('open', 'lost') AND removes_time)
LIMIT 1
""")


async def write(session: AsyncSession, subscription: Subscription, order: Order) -> RenewalAttempt | None:
    """A new attempt to charge the subscription's card for its order; None without a card. The caller commits."""
    if subscription.customer_ref is None or subscription.payment_method_ref is None:
        return None
    now = clock.now()
    last = select(func.max(col(RenewalAttempt.number))).where(col(RenewalAttempt.order_id) == order.id)
    attempt = RenewalAttempt(
        id=new_id(),
        subscription_id=subscription.id,
        order_id=order.id,
        number=int(await session.scalar(last) or 0) + 1,
        amount=order.total,
        currency=order.currency,
        customer_ref=subscription.customer_ref,
        payment_method_ref=subscription.payment_method_ref,
        status="pending",
        next_attempt_at=now + LEASE,
        created_at=now,
    )
    session.add(attempt)
    await session.flush()
    return attempt


async def execute(rt: Runtime, attempt_id: UUID) -> None:
    """Charge the attempt's card, or learn what came of it, and record that; nothing is held while the provider is asked.

    PaymentProviderUnavailable leaves the attempt pending, for the next time.
    """
    provider = provider_of(rt)
    async with rt.db.session() as session:
        begun = await _begin(session, provider, attempt_id)
        if begun is None:
            return
        attempt, order = begun
        outcome = await _ask(provider, attempt, order)
        page_url = None
        if outcome.status == "action":
            page_url = await _page_url(session, provider, order)
        await _take_in(session, attempt_id, outcome, page_url)
        await session.commit()


async def _begin(session: AsyncSession, provider: Provider, attempt_id: UUID) -> tuple[RenewalAttempt, Order] | None:
    """Note that the provider is asked now, or drop an attempt whose order needs it no more; None for a settled one."""
    order_id = select(col(RenewalAttempt.order_id)).where(col(RenewalAttempt.id) == attempt_id)
    pages_closed = False
    while True:
        order = await payments.lock_order(session, (await session.scalars(order_id)).one())
        attempt = await session.get_one(RenewalAttempt, attempt_id, populate_existing=True)
        if order is None or attempt.status != "pending":
            await session.commit()
            return None
        if attempt.asked == 0 and order.status != "pending":
            attempt.status, attempt.settled_at = "dropped", clock.now()
            await session.commit()
            return None
        if attempt.asked == 0 and not pages_closed:
            # Whoever is about to pay by hand must not be charged beside it.
            await subscription_pages.close_for_payment(session, provider, order.id)
            await session.commit()
            pages_closed = True
            continue
        attempt.asked += 1
        await session.commit()
        return attempt, order


async def _ask(provider: Provider, attempt: RenewalAttempt, order: Order) -> Charge:
    if attempt.provider_ref is not None:
        return await saved_cards.charge_state(provider, attempt.provider_ref)
    if clock.now() - attempt.created_at > KEYS_LAST:
        # The provider may have forgotten the key of the first call, and would charge the card once more.
        made = await saved_cards.charge_made(provider, attempt)
        if made is not None:
            return made
        if order.status != "pending":
            return Charge("failed", failure="never_made")
    return await saved_cards.charge(provider, attempt, order)


async def _page_url(session: AsyncSession, provider: Provider, order: Order) -> str | None:
    """Where the member can confirm the charge; None when there is no such page now, and the notice then names none."""
    # The attempt is as good as settled: the bank said no, and only its owner can go on.
    try:
        page = await subscription_pages.page_for_payment(session, provider, order, charging=False)
    except (PaymentProviderUnavailable, ProviderRefusal, SubscriptionBusy) as failure:
        log.warning("no page to confirm a renewal", order=order.number, reason=type(failure).__name__)
        await session.rollback()
        return None
    return page.session_url if page else None


async def _take_in(session: AsyncSession, attempt_id: UUID, outcome: Charge, page_url: str | None) -> None:
    """Record what the provider says of a charge, in the caller's transaction; the first final answer counts."""
    order_id = select(col(RenewalAttempt.order_id)).where(col(RenewalAttempt.id) == attempt_id)
    order = await payments.lock_order(session, (await session.scalars(order_id)).one())
    attempt = await session.get_one(RenewalAttempt, attempt_id, populate_existing=True)
    if order is None or attempt.status != "pending":
        return
    now = clock.now()
    attempt.provider_ref = outcome.ref or attempt.provider_ref
    if outcome.status == "pending":
        attempt.next_attempt_at = next_chase(attempt.created_at, now)
        return
    attempt.settled_at = now
    if outcome.status == "succeeded" and outcome.ref is not None:
        attempt.status = "succeeded"
        await session.flush()
        arrival = Arrival(outcome.ref, outcome.amount, outcome.currency, outcome.means)
        await payments.settle(session, order.id, arrival)
        return
    attempt.status = "action_required" if outcome.status == "action" else "failed"
    attempt.failure = outcome.failure
    await session.flush()
    if order.status == "pending":
        await _failed(session, order, attempt, page_url)


async def _failed(session: AsyncSession, order: Order, attempt: RenewalAttempt, page_url: str | None) -> None:
    subscription = await subscribing.lock(session, attempt.subscription_id)
    if subscription.renewal_order_id != order.id or subscription.status not in ("active", "past_due"):
        return
    log.warning("renewal refused", order=order.number, number=attempt.number, failure=attempt.failure)
    retry_at = await next_try(session, order)
    over_at = subscription.renews_at + GRACE
    subscription.next_at = retry_at or over_at
    if subscription.status == "active":
        subscription.status = "past_due"
        await subscribing.tell(session, subscription)
    if attempt.status == "action_required":
        await renewal_notices.action_required(session, subscription, attempt, page_url, over_at)
    else:
        await renewal_notices.failed(session, subscription, attempt, retry_at, over_at)


async def is_any(session: AsyncSession, order_id: UUID, status: AttemptStatus) -> bool:
    """Whether an attempt to charge this order stands so; while one is `pending` nobody knows what came of it."""
    found = select(col(RenewalAttempt.id)).where(
        col(RenewalAttempt.order_id) == order_id, col(RenewalAttempt.status) == status
    )
    return await session.scalar(found.limit(1)) is not None


async def were_made_for(session: AsyncSession, member_id: UUID, at: datetime) -> bool:
    """Whether a renewal of this member's that still stands covers the period that begins at this instant."""
    bound = {"member_id": member_id, "at": at, "zone": clock.ZONE.key}
    return (await session.execute(_CHARGED_BEFORE, bound)).first() is not None


async def next_try(session: AsyncSession, order: Order) -> datetime | None:
    """When this renewal is charged again by itself: 1, 3 and 6 days after its first attempt, while the grace lasts."""
    made = (
        await session.scalars(select(col(RenewalAttempt.created_at)).where(col(RenewalAttempt.order_id) == order.id))
    ).all()
    if not made or order.renews_from is None:
        return None
    tries = (min(made) + days for days in RETRIES)
    return next((at for at in tries if max(made) < at < order.renews_from + GRACE), None)


async def chase(rt: Runtime) -> int:
    """Go on with charges whose outcome is not known yet."""
    now = clock.now()
    room = provider_of(rt).room(BATCH)
    if not room:
        return 0
    async with rt.db.session() as session, session.begin():
        waiting = (
            select(col(RenewalAttempt.id))
            .where(col(RenewalAttempt.status) == "pending", col(RenewalAttempt.next_attempt_at) <= now)
            .order_by(col(RenewalAttempt.next_attempt_at))
            .limit(room)
            .with_for_update(skip_locked=True)
        )
        claim = update(RenewalAttempt).where(col(RenewalAttempt.id).in_(waiting)).values(next_attempt_at=now + LEASE)
        claimed = (await session.scalars(claim.returning(col(RenewalAttempt.id)))).all()
    for attempt_id in claimed:
        await try_to_execute(rt, attempt_id)
    return len(claimed)


async def try_to_execute(rt: Runtime, attempt_id: UUID) -> None:
    """Charge; when nobody knows what came of it, it is asked for again later."""
    try:
        await execute(rt, attempt_id)
    except PaymentProviderUnavailable:
        log.warning("renewal waits for the provider", attempt=str(attempt_id))
        async with rt.db.session() as session, session.begin():
            attempt = await session.get_one(RenewalAttempt, attempt_id, with_for_update=True)
            attempt.next_attempt_at = next_chase(attempt.created_at, clock.now())


async def next_chase_at(rt: Runtime) -> datetime | None:
    """When the next outcome is asked for."""
    async with rt.db.session() as session:
        return await session.scalar(
            select(func.min(col(RenewalAttempt.next_attempt_at))).where(
                col(RenewalAttempt.status) == "pending", col(RenewalAttempt.next_attempt_at) > clock.now()
            )
        )


due = Due(
    "chase renewal charges",
    chase,
    next_at=next_chase_at,
    waits="SELECT FROM renewal_attempt WHERE status = 'pending' AND next_attempt_at <= $1",
)
