"""Payments: money that arrived is applied to its order once, parked for a person, or sent back; it is never dropped."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import structlog
from sqlalchemy import case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderClosed, OrderPaid
from kit import clock
from kit.events import emit
from kit.ids import new_id
from services.billing import books, coupons, course_sales, gifts, recognition, subscribing
from services.billing.means import Means
from services.billing.member_time import GRACE
from services.billing.models import Order, Payment, Refund
from services.billing.provider import SESSION_LIFE

log = structlog.get_logger(__name__)

EARLY: Final = timedelta(minutes=1)
"""How far the provider's clock may be ahead of ours for a session to be over in time."""

SURPLUS_REASONS = {
    "second_payment": "this order was paid before",
    "coupon_gone": "the payment came after the order had closed, and its coupon could not be had again",
    "renewal_canceled": "the renewal was canceled before the payment came",
    "course_bought_before": "another order paid for this course before",
    "lesson_canceled": "the live lesson was canceled before the payment came",
}


BOOKED_AS = {"applied": books.DEFERRED, "parked": books.PARKED, "surplus": books.OWED_BACK}


@dataclass(frozen=True)
class Arrival:
    """A payment that the provider says has succeeded; `ref` is its id there."""

    ref: str
    amount: int
    currency: str
    means: Means = field(default_factory=Means)


async def lock_order(session: AsyncSession, order_id: UUID) -> Order | None:
    """The order as it is now, locked until the transaction ends."""
    return await session.scalar(
        select(Order).where(col(Order.id) == order_id).with_for_update().execution_options(populate_existing=True)
    )


async def known(session: AsyncSession, ref: str) -> str | None:
    """What became of a payment that was seen before; None for a new one."""
    return await session.scalar(select(col(Payment.status)).where(col(Payment.provider_ref) == ref))


async def settle(session: AsyncSession, order_id: UUID, arrival: Arrival) -> str:
    """Take in a payment in the caller's transaction: applied, parked or surplus; a known one changes nothing."""
    order = await lock_order(session, order_id)
    if order is None:
        log.error("payment for an unknown order", order_id=str(order_id), payment=arrival.ref)
        return "unknown_order"
    if before := await known(session, arrival.ref):
        return before
    if (arrival.amount, arrival.currency) != (order.total, order.currency):
        await _park(session, order, arrival)
        return "parked"
    if refused := await _refused(session, order):
        await _send_back(session, order, arrival, refused)
        if order.status == "pending":
            await close(session, order.id, "canceled")
        return "surplus"
    await _apply(session, order, arrival)
    return "applied"


async def _refused(session: AsyncSession, order: Order) -> str | None:
    """Why this order takes no payment any more; None when it does, and then it has its course and its coupon."""
    if order.status not in ("pending", "canceled", "expired"):
        return "second_payment"
    if order.renews_from is not None and order.status == "canceled":
        return "renewal_canceled"
    if await course_sales.is_canceled(session, order):
        return "lesson_canceled"
    if not await course_sales.take(session, order):
        return "course_bought_before"
    if order.status != "pending" and not await coupons.reserve_again(session, order, clock.now()):
        await course_sales.give_up(session, order)
        return "coupon_gone"
    return None


async def settle_free(session: AsyncSession, order: Order) -> None:
    """An order whose coupon left nothing to pay is paid at once."""
    await _mark_paid(session, order, clock.now(), Means())


async def _apply(session: AsyncSession, order: Order, arrival: Arrival) -> None:
    now = clock.now()
    await _record(session, order, arrival, "applied", "", now)
    await _mark_paid(session, order, now, arrival.means)


async def _mark_paid(session: AsyncSession, order: Order, at: datetime, means: Means) -> None:
    order.status = "paid"
    order.paid_at = at
    order.session_open = False
    order.next_check_at = None
    await session.flush()
    await recognition.open_schedule(session, order)
    await gifts.become_good(session, order)
    await coupons.redeem(session, order)
    await emit(
        session,
        OrderPaid(
            order_id=order.id,
            number=order.number,
            member_id=order.member_id,
            kind=order.kind,
            plan_code=order.plan_code,
            course_id=order.course_id,
            months=order.months,
            benefits=tuple(order.benefits),
            subtotal=order.subtotal,
            discount=order.discount,
            total=order.total,
            currency=order.currency,
            coupon_id=order.coupon_id,
            payment_method=order.payment_method,
            paid_at=at,
            fingerprint=means.fingerprint,
            address_prefix=order.address_prefix,
            # Past the grace the old end is long over: the time begins with the payment.
            renews_from=order.renews_from if order.renews_from and at < order.renews_from + GRACE else None,
        ),
    )
    await subscribing.on_paid(session, order, means.card)


async def _park(session: AsyncSession, order: Order, arrival: Arrival) -> None:
    now = clock.now()
    reason = f"{arrival.amount} {arrival.currency} came where {order.total} {order.currency} was due"
    log.error("payment parked", order=order.number, payment=arrival.ref, reason=reason)
    await _record(session, order, arrival, "parked", reason, now)


async def _send_back(session: AsyncSession, order: Order, arrival: Arrival, why: str) -> None:
    now = clock.now()
    log.warning("surplus payment goes back", order=order.number, payment=arrival.ref, reason=why)
    payment_id = await _record(session, order, arrival, "surplus", why, now)
    if not arrival.amount:
        return
    session.add(
        Refund(
            order_id=order.id,
            payment_id=payment_id,
            cause="surplus",
            reason=SURPLUS_REASONS[why],
            amount=arrival.amount,
            currency=arrival.currency,
            removes_time=False,
            status="pending",
            next_attempt_at=now,
            created_at=now,
        )
    )
    await session.flush()


async def _record(
    session: AsyncSession, order: Order, arrival: Arrival, status: str, reason: str, at: datetime
) -> UUID:
    row = {
        "id": new_id(),
        "order_id": order.id,
        "provider_ref": arrival.ref,
        "amount": arrival.amount,
        "currency": arrival.currency,
        "method": order.payment_method,
        "fingerprint": arrival.means.fingerprint,
        "status": status,
        "reason": reason,
        "received_at": at,
    }
    await session.execute(insert(Payment).values(row))
    payment = Payment.model_validate(row)
    await book(session, payment)
    return payment.id


async def book(session: AsyncSession, payment: Payment) -> bool:
    """Write a payment into the ledger, once; False when it is there, or brought nothing."""
    kind = "payment" if payment.status == "applied" else f"payment_{payment.status}"
    return await books.post(
        session,
        kind,
        payment.id,
        debit=books.PROVIDER,
        credit=BOOKED_AS[payment.status],
        amount=payment.amount,
        currency=payment.currency,
        order_id=payment.order_id,
        at=payment.received_at,
    )


async def close(session: AsyncSession, order_id: UUID, reason: Literal["canceled", "expired"] | None = None) -> bool:
    """End an unpaid order and free its coupon; False when it was not open any more.

    Without a reason its session is over, which before its time is by being canceled: the provider's word of that may be
    here before the request that canceled has come to its end.
    """
    now = clock.now()
    in_time = func.least(col(Order.expires_at), col(Order.created_at) + SESSION_LIFE)
    by_time = case((in_time > now + EARLY, "canceled"), else_="expired")
    order = await session.scalar(
        update(Order)
        .where(col(Order.id) == order_id, col(Order.status) == "pending")
        .values(status=reason or by_time, closed_at=now)
        .returning(Order)
        .execution_options(populate_existing=True)
    )
    if order is None:
        return False
    # A session still open at the provider is closed by the next check; without one there is nothing left to ask.
    order.next_check_at = now if order.session_open else None
    await session.flush()
    await coupons.release(session, order)
    ended: Literal["canceled", "expired"] = "canceled" if order.status == "canceled" else "expired"
    await emit(session, OrderClosed(order_id=order.id, member_id=order.member_id, reason=ended))
    return True
