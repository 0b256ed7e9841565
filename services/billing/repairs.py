"""Repairs: a difference between provider, orders and ledger is set right on the way that a notice would have taken."""

from uuid import UUID

from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.ids import new_id
from services.billing import disputes, payments, refunding
from services.billing.models import Payment, Refund
from services.billing.payments import Arrival
from services.billing.provider import ProviderRefund, provider_of
from services.billing.provider_lists import payment_at, refund_at
from services.billing.reconciliation_models import ReconciliationDifference

MADE_THERE = "made at the payment provider"
WRONG_AMOUNT = "the payment was not of the amount that was due"


async def repair(session: AsyncSession, rt: Runtime, difference: ReconciliationDifference, by: UUID) -> str | None:
    """Do a difference's repair in the request's transaction; a word for what came of it, None when it cannot be done.

    The provider is asked before, with no connection held: what it says now counts, not what it said then.
    """
    match difference.repair:
        case "settle":
            return await _settle(session, rt, difference)
        case "record":
            return await _record(session, rt, difference, by)
        case "follow":
            return await _follow(session, rt, difference)
        case "post":
            return await _post(session, difference)
        case _:
            return None


async def _settle(session: AsyncSession, rt: Runtime, difference: ReconciliationDifference) -> str | None:
    order_id, ref = difference.order_id, difference.provider_ref
    await session.commit()
    payment = await payment_at(provider_of(rt), ref) if ref else None
    if payment is None or order_id is None:
        return None
    means = await provider_of(rt).means(payment.ref)
    return await payments.settle(session, order_id, Arrival(payment.ref, payment.amount, payment.currency, means))


async def _record(session: AsyncSession, rt: Runtime, difference: ReconciliationDifference, by: UUID) -> str | None:
    payment_id, ref = difference.source_id, difference.provider_ref
    await session.commit()
    made = await refund_at(provider_of(rt), ref) if ref else None
    payment = await session.get(Payment, payment_id) if payment_id else None
    if made is None or payment is None or made.payment_ref != payment.provider_ref:
        return None
    order = await payments.lock_order(session, payment.order_id)
    parked = payment.status == "parked"
    left = payment.amount if parked else (order.total - order.refunded_amount if order else 0)
    if order is None or payment.status == "surplus" or made.amount > left or (parked and made.amount != left):
        return None
    now = clock.now()
    row = {
        "id": new_id(),
        "order_id": order.id,
        "payment_id": payment.id,
        "cause": "surplus" if parked else "admin",
        "requested_by": by,
        "reason": MADE_THERE,
        "amount": made.amount,
        "currency": made.currency,
        # As with a refund made here: all of the money takes the time, a part leaves it.
        "removes_time": not parked and made.amount == left,
        "status": "pending",
        "provider_ref": made.ref,
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": made.made_at,
    }
    refund_id = await session.scalar(upsert(Refund).values(row).on_conflict_do_nothing().returning(col(Refund.id)))
    if refund_id is None:
        return "known"
    return await refunding.take_in(session, refund_id, ProviderRefund(made.ref, made.status))


async def _follow(session: AsyncSession, rt: Runtime, difference: ReconciliationDifference) -> str | None:
    refund_id, ref = difference.source_id, difference.provider_ref
    if difference.kind in ("missing_dispute", "dispute_state_differs"):
        return await disputes.on_provider_dispute(rt, session, {"id": ref})
    await session.commit()
    made = await refund_at(provider_of(rt), ref) if ref else None
    if made is None or refund_id is None:
        return None
    return await refunding.take_in(session, refund_id, ProviderRefund(made.ref, made.status))


async def _post(session: AsyncSession, difference: ReconciliationDifference) -> str | None:
    """Write the entry that a payment or a refund of ours lacks, with the date it should have had."""
    payment = await session.get(Payment, difference.source_id)
    if payment is not None:
        posted = await payments.book(session, payment)
    else:
        refund = await session.get(Refund, difference.source_id)
        order = await payments.lock_order(session, refund.order_id) if refund else None
        if refund is None or order is None or refund.status != "succeeded":
            return None
        posted = await refunding.book(session, order, refund, at=refund.settled_at or clock.now())
    return "posted" if posted else "known"


async def send_back(session: AsyncSession, difference: ReconciliationDifference, by: UUID) -> str | None:
    """Give a payment that waits for a person back; written here, and sent and chased as every refund is."""
    payment = await session.get(Payment, difference.source_id)
    order = await payments.lock_order(session, payment.order_id) if payment else None
    if payment is None or order is None or payment.status != "parked" or not payment.amount:
        return None
    now = clock.now()
    row = {
        "id": new_id(),
        "order_id": order.id,
        "payment_id": payment.id,
        "cause": "surplus",
        "requested_by": by,
        "reason": WRONG_AMOUNT,
        "amount": payment.amount,
        "currency": payment.currency,
        "removes_time": False,
        "status": "pending",
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
    }
    await session.execute(upsert(Refund).values(row).on_conflict_do_nothing())
    return "sent_back"
