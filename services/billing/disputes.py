"""Disputes: a payer's bank asks for the money of an order back; what that does to the order, its time and the books."""

from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderDisputed
from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.events import emit
from services.billing import (
    books,
    course_sales,
    invoices,
    payments,
    provider_disputes,
    recognition,
    renewals,
    subscribing,
)
from services.billing.chasing import next_chase
from services.billing.code_models import RedeemCode
from services.billing.dispute_models import Dispute
from services.billing.models import Order, Payment
from services.billing.payments import Arrival
from services.billing.provider import PaymentProviderUnavailable, ProviderRefusal, provider_of
from services.billing.provider_disputes import FoundDispute
from services.billing.settings import Settings

log = structlog.get_logger(__name__)

BATCH = 20
LONGEST_REF = 255
_RANK = {"inquiry": 0, "open": 1, "closed": 2, "won": 2, "lost": 2}


async def on_provider_dispute(rt: Runtime, session: AsyncSession, subject: dict[str, Any]) -> str:
    """A dispute moved at the provider: ask how it stands now, because events come in any order."""
    ref = subject.get("id")
    if not isinstance(ref, str) or not 0 < len(ref) <= LONGEST_REF or not (ref.isascii() and ref.isprintable()):
        return "malformed"
    await session.commit()
    return await _look(rt, session, ref)


async def _look(rt: Runtime, session: AsyncSession, ref: str) -> str:
    """Ask the provider about a dispute and take in the answer; PaymentProviderUnavailable changes nothing."""
    provider = provider_of(rt)
    try:
        found = await provider_disputes.ask(provider, ref)
    except ProviderRefusal as refusal:
        log.exception("dispute unknown to the provider", dispute=ref, refusal=refusal.code)
        await session.execute(update(Dispute).where(col(Dispute.provider_ref) == ref).values(next_check_at=None))
        return "unknown_to_provider"
    paid = found.payment
    if paid and paid.order_id and paid.received and not await payments.known(session, paid.ref):
        # The news of the payment itself is lost, or late: a dispute of it proves it as well.
        await session.commit()
        arrival = Arrival(paid.ref, paid.received, paid.currency, await provider.means(paid.ref))
        await payments.settle(session, paid.order_id, arrival)
    return await take_in(session, rt.settings, found)


async def take_in(session: AsyncSession, settings: Settings, found: FoundDispute) -> str:
    """Bring a dispute, and its order with it, to where the provider says it stands, in the caller's transaction."""
    payment = await session.scalar(
        select(Payment).where(col(Payment.provider_ref) == (found.payment.ref if found.payment else None))
    )
    order = await payments.lock_order(session, payment.order_id) if payment else None
    dispute = await _record(session, found, order)
    rank = _RANK[found.standing]
    if rank < _RANK[provider_disputes.standing_of(dispute.provider_status)]:
        # Asked before the answer that is known already.
        return dispute.status
    now = clock.now()
    if not dispute.withdrawn:
        dispute.amount, dispute.currency = found.amount, found.currency
    dispute.provider_status, dispute.withdrawn = found.status, dispute.withdrawn or found.withdrawn
    dispute.fee, dispute.fee_currency = max(dispute.fee, found.fee), found.fee_currency
    dispute.order_id = order.id if order else None
    dispute.next_check_at = next_chase(dispute.created_at, now) if rank < _RANK["closed"] else None
    if order is None or payment is None:
        _park(dispute, "of a payment that billing does not know", order)
        return dispute.status
    if dispute.decided_at is not None:
        if dispute.status not in (found.standing, "parked"):
            _park(dispute, f"decided as {dispute.status}, and now {found.standing}", order)
    elif dispute.opened_at is None and (wrong := _mismatch(order, payment, dispute)):
        _park(dispute, wrong, order)
    else:
        dispute.status, dispute.note = found.standing, ""
    await _book_withdrawal(session, dispute, order, now)
    if dispute.status in ("open", "won", "lost") and dispute.opened_at is None:
        await _open(session, settings, dispute, order, now)
    if dispute.status in ("won", "lost") and dispute.decided_at is None:
        await _decide(session, settings, dispute, order, now)
    await session.flush()
    return dispute.status


async def _record(session: AsyncSession, found: FoundDispute, order: Order | None) -> Dispute:
    """The dispute's row, locked; a new one is written first."""
    row = Dispute(
        provider_ref=found.ref,
        payment_ref=found.payment.ref if found.payment else None,
        order_id=order.id if order else None,
        status="inquiry",
        provider_status=found.status,
        reason=found.reason,
        amount=found.amount,
        currency=found.currency,
        fee_currency=found.fee_currency,
        created_at=clock.now(),
    )
    await session.execute(upsert(Dispute).values(row.model_dump()).on_conflict_do_nothing())
    locked = select(Dispute).where(col(Dispute.provider_ref) == found.ref).with_for_update()
    return (await session.scalars(locked, execution_options={"populate_existing": True})).one()


def _mismatch(order: Order, payment: Payment, dispute: Dispute) -> str | None:
    if payment.status != "applied":
        return f"of a payment that is {payment.status} and bought nothing"
    left = order.total - order.refunded_amount
    if dispute.currency != order.currency or dispute.amount > left:
        return f"{dispute.amount} {dispute.currency} are asked for where {left} {order.currency} are left"
    return None


def _park(dispute: Dispute, note: str, order: Order | None) -> None:
    dispute.status, dispute.note = "parked", note
    log.error("dispute parked", dispute=dispute.provider_ref, order=order.number if order else None, reason=note)


async def _book_withdrawal(session: AsyncSession, dispute: Dispute, order: Order, at: datetime) -> None:
    """What the bank took, and what the provider asks for its trouble; each once, parked or not: it is gone."""
    if dispute.withdrawn and dispute.amount:
        await books.post(
            session,
            "dispute",
            dispute.id,
            debit=books.DISPUTED,
            credit=books.PROVIDER,
            amount=dispute.amount,
            currency=dispute.currency,
            order_id=order.id,
            at=at,
        )
    if dispute.fee:
        await books.post(
            session,
            "dispute_fee",
            dispute.id,
            debit=books.FEES,
            credit=books.PROVIDER,
            amount=dispute.fee,
            currency=dispute.fee_currency,
            order_id=order.id,
            at=at,
        )


async def _open(session: AsyncSession, settings: Settings, dispute: Dispute, order: Order, at: datetime) -> None:
    first = order.status != "disputed"
    order.status = "disputed"
    dispute.opened_at, dispute.removes_time = at, settings.dispute_policy == "opened"
    await session.flush()
    if first:
        await _tell(session, dispute, order, "opened", at)
        await _stop_renewing(session, order)


async def _stop_renewing(session: AsyncSession, order: Order) -> None:
    """Never charge a card again whose owner disputes what it was charged; the member may subscribe anew."""
    if order.subscription_id is None and not order.auto_renew:
        return
    subscription_id = await subscribing.live_id(session, order.member_id)
    if subscription_id is None:
        return
    subscription = await subscribing.lock(session, subscription_id)
    if subscription.status != "none":
        await renewals.stop(session, subscription, "disputed")


async def _decide(session: AsyncSession, settings: Settings, dispute: Dispute, order: Order, at: datetime) -> None:
    """Won: the order is what it was, unless another dispute of it goes on. Lost: it stays disputed for good."""
    dispute.decided_at = at
    if dispute.status == "won":
        if dispute.withdrawn:
            await books.post(
                session,
                "dispute_won",
                dispute.id,
                debit=books.PROVIDER,
                credit=books.DISPUTED,
                amount=dispute.amount,
                currency=dispute.currency,
                order_id=order.id,
                at=at,
            )
        if not await _others(session, dispute, order):
            order.status = _undisputed(order)
            await session.flush()
            await _tell(session, dispute, order, "won", at)
        return
    dispute.removes_time = settings.dispute_policy != "never"
    if dispute.withdrawn:
        amount = min(dispute.amount, order.total - order.refunded_amount)
        await recognition.give_back(session, "dispute_lost", dispute.id, order, amount, credit=books.DISPUTED, at=at)
        await invoices.follow_money_back(session, order, amount)
    if dispute.removes_time:
        await course_sales.give_up(session, order)
    await _tell(session, dispute, order, "lost", at)


async def _others(session: AsyncSession, dispute: Dispute, order: Order) -> bool:
    others = select(col(Dispute.id)).where(
        col(Dispute.order_id) == order.id,
        col(Dispute.id) != dispute.id,
        col(Dispute.opened_at).is_not(None),
        col(Dispute.status) != "won",
    )
    return await session.scalar(others.limit(1)) is not None


def _undisputed(order: Order) -> Any:
    if not order.refunded_amount:
        return "paid"
    return "refunded" if order.refunded_amount == order.total else "partially_refunded"


async def _tell(session: AsyncSession, dispute: Dispute, order: Order, outcome: Any, at: datetime) -> None:
    holder: UUID | None = await session.scalar(
        select(col(RedeemCode.member_id)).where(col(RedeemCode.order_id) == order.id)
    )
    await emit(
        session,
        OrderDisputed(
            order_id=order.id,
            member_id=order.member_id,
            kind=order.kind,
            outcome=outcome,
            amount=dispute.amount,
            currency=dispute.currency,
            removes_time=dispute.removes_time,
            beneficiary_id=holder,
            disputed_at=at,
        ),
    )


async def chase(rt: Runtime) -> int:
    """Ask about disputes that are not decided: a webhook may be lost."""
    now = clock.now()
    room = provider_of(rt).room(BATCH)
    async with rt.db.session() as session, session.begin():
        waiting = (
            select(Dispute)
            .where(col(Dispute.next_check_at) <= now)
            .order_by(col(Dispute.next_check_at))
            .limit(room)
            .with_for_update(skip_locked=True)
        )
        disputes = (await session.scalars(waiting)).all()
        for dispute in disputes:
            dispute.next_check_at = next_chase(dispute.created_at, now)
        refs = [dispute.provider_ref for dispute in disputes]
    for ref in refs:
        async with rt.db.session() as session:
            try:
                await _look(rt, session, ref)
            except PaymentProviderUnavailable:
                log.warning("dispute waits for the provider", dispute=ref)
                continue
            await session.commit()
    return len(refs)


due = Due("chase disputes", chase, waits="SELECT FROM dispute WHERE next_check_at <= $1")
