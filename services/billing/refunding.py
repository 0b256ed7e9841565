"""Refunds under way: the provider is asked with a key of our own and chased until its outcome is known, then booked once."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderRefunded
from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.events import emit
from services.billing import books, coupons, course_sales, gifts, invoices, payments, recognition
from services.billing.chasing import next_chase
from services.billing.models import Order, Payment, Refund
from services.billing.provider import PaymentProviderUnavailable, Provider, ProviderRefund, ProviderRefusal, provider_of

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=1)
"""How long an attempt may take; a call and its repetitions have far less."""
BATCH = 20


async def execute(rt: Runtime, refund_id: UUID) -> None:
    """Ask the provider to send the money, or how it stands, and take in the answer; nothing is held while it is asked.

    PaymentProviderUnavailable leaves the refund pending, for the next attempt.
    """
    async with rt.db.session() as session:
        # Counted before it is made: whoever tries after this one knows that there may be a refund already.
        attempt = update(Refund).where(col(Refund.id) == refund_id, col(Refund.status) == "pending")
        refund = await session.scalar(attempt.values(attempts=col(Refund.attempts) + 1).returning(Refund))
        if refund is None:
            return
        payment_ref = (await session.get_one(Payment, refund.payment_id)).provider_ref
        await session.commit()
        provider = provider_of(rt)
        try:
            if refund.provider_ref:
                outcome = await provider.refund_state(refund.provider_ref)
            else:
                outcome = await _send(provider, refund, payment_ref)
        except ProviderRefusal as refusal:
            log.exception("refund refused", refund=str(refund.id), refusal=refusal.code)
            outcome = ProviderRefund(refund.provider_ref or "", "failed", refusal.code)
        await take_in(session, refund_id, outcome)
        await session.commit()


async def _send(provider: Provider, refund: Refund, payment_ref: str) -> ProviderRefund:
    made = None
    if refund.attempts > 1:
        # An attempt before this one may have made it: the provider may have forgotten the key since, and would send the
        # money once more; or it keeps repeating under that key the failure that it answered first.
        made = await provider.refund_made(str(refund.id), payment_ref)
    return made or await provider.refund(str(refund.id), payment_ref, refund.amount)


async def take_in(session: AsyncSession, refund_id: UUID, outcome: ProviderRefund) -> str:
    """Record what the provider says of a refund, in the caller's transaction; the first final answer counts."""
    order_id = await session.scalar(select(col(Refund.order_id)).where(col(Refund.id) == refund_id))
    order = await payments.lock_order(session, order_id) if order_id else None
    if order is None:
        return "not_ours"
    refund = await session.get_one(Refund, refund_id, populate_existing=True)
    if refund.status != "pending":
        if refund.status == "succeeded" and outcome.status in ("failed", "canceled"):
            log.error("a refund failed after it had succeeded", refund=str(refund.id), order=order.number)
        return refund.status
    refund.provider_ref = outcome.id or refund.provider_ref
    if outcome.status in ("failed", "canceled"):
        refund.status, refund.error, refund.settled_at = "failed", outcome.failure or outcome.status, clock.now()
        return "failed"
    if outcome.status != "succeeded":
        refund.next_attempt_at = next_chase(refund.created_at, clock.now())
        return "pending"
    refund.status, refund.settled_at = "succeeded", clock.now()
    await session.flush()
    await _money_is_back(session, order, refund)
    return "succeeded"


async def book(session: AsyncSession, order: Order, refund: Refund, *, at: datetime) -> bool:
    """Write a refund that succeeded into the ledger, once; the caller holds the order's lock."""
    if refund.cause != "surplus":
        return await recognition.give_back(
            session, "refund", refund.id, order, refund.amount, credit=books.PROVIDER, at=at
        )
    payment = await session.get_one(Payment, refund.payment_id)
    return await books.post(
        session,
        "refund_surplus",
        refund.id,
        debit=payments.BOOKED_AS[payment.status],
        credit=books.PROVIDER,
        amount=refund.amount,
        currency=refund.currency,
        order_id=order.id,
        at=at,
    )


async def _money_is_back(session: AsyncSession, order: Order, refund: Refund) -> None:
    now = clock.now()
    await book(session, order, refund, at=now)
    if refund.cause == "surplus":
        return
    order.refunded_amount += refund.amount
    await invoices.follow_money_back(session, order, refund.amount)
    full = order.refunded_amount == order.total
    if order.status != "disputed":
        order.status = "refunded" if full else "partially_refunded"
    await session.flush()
    removes_time = full and await _removes_time(session, order)
    if full:
        await coupons.release(session, order)
    if removes_time:
        await course_sales.give_up(session, order)
        await gifts.take_back(session, order)
    gift = await gifts.redeemed(session, order)
    await emit(
        session,
        OrderRefunded(
            order_id=order.id,
            refund_id=refund.id,
            member_id=order.member_id,
            amount=refund.amount,
            currency=refund.currency,
            full=full,
            removes_time=refund.removes_time or removes_time,
            refunded_at=now,
            kind=order.kind,
            beneficiary_id=gift.member_id if gift else None,
        ),
    )


async def _removes_time(session: AsyncSession, order: Order) -> bool:
    """Whether a refund of this order that succeeded takes its time; the last to succeed may not be the one."""
    taking = select(col(Refund.id)).where(
        col(Refund.order_id) == order.id, col(Refund.status) == "succeeded", col(Refund.removes_time)
    )
    return await session.scalar(taking.limit(1)) is not None


async def on_provider_refund(rt: Runtime, session: AsyncSession, subject: dict[str, Any]) -> str:
    """A refund moved at the provider: ask how it stands now, because events come in any order."""
    ref = subject.get("id")
    metadata = subject.get("metadata")
    named = metadata.get("refund_id") if isinstance(metadata, dict) else None
    try:
        refund_id = UUID(named)
    except (ValueError, TypeError, AttributeError):
        return "not_ours"
    pending = await session.scalar(
        select(col(Refund.id)).where(col(Refund.id) == refund_id, col(Refund.status) == "pending")
    )
    if pending is None or not isinstance(ref, str):
        return "known"
    await session.commit()
    try:
        found = await provider_of(rt).refund_state(ref)
    except ProviderRefusal as refusal:
        log.exception("refund unknown to the provider", refund=str(refund_id), refusal=refusal.code)
        return "unknown_to_provider"
    return await take_in(session, refund_id, found)


async def chase(rt: Runtime) -> int:
    """Go on with refunds whose outcome is not known yet."""
    now = clock.now()
    room = provider_of(rt).room(BATCH)
    if not room:
        return 0
    async with rt.db.session() as session, session.begin():
        due_refunds = (
            select(col(Refund.id))
            .where(col(Refund.status) == "pending", col(Refund.next_attempt_at) <= now)
            .order_by(col(Refund.next_attempt_at))
            .limit(room)
            .with_for_update(skip_locked=True)
        )
        claim = update(Refund).where(col(Refund.id).in_(due_refunds)).values(next_attempt_at=now + LEASE)
        claimed = (await session.scalars(claim.returning(col(Refund.id)))).all()
    for refund_id in claimed:
        try:
            await execute(rt, refund_id)
        except PaymentProviderUnavailable:
            log.warning("refund waits for the provider", refund=str(refund_id))
            await _put_off(rt, refund_id)
    return len(claimed)


async def _put_off(rt: Runtime, refund_id: UUID) -> None:
    if not provider_of(rt).room(1):
        # The provider is away for everybody: the lease is long enough, and the circuit keeps it from being asked.
        return
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        refund = await session.get_one(Refund, refund_id, with_for_update=True)
        refund.next_attempt_at = next_chase(refund.created_at, now)


due = Due("chase refunds", chase, waits="SELECT FROM refund WHERE status = 'pending' AND next_attempt_at <= $1")
