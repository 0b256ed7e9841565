"""Canceled lessons: whoever paid for a live lesson that will not happen gets all of it back, once."""

from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Exists, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.courses import LiveLessonCanceled
from kit import clock
from kit.app import Runtime
from kit.due import Due
from services.billing import payments
from services.billing.course_models import CanceledLesson
from services.billing.models import Order, Payment, Refund
from services.billing.refunds import left_of

log = structlog.get_logger(__name__)

REQUEST: Final = "lesson canceled"
"""Under which an order is given back once, however often this is tried; a unique index keeps it."""
REASON: Final = "the live lesson was canceled"
BATCH: Final = 100


async def on_live_lesson_canceled(session: AsyncSession, event: LiveLessonCanceled) -> None:
    """Keep that the lesson is canceled: no payment for it is good from now on."""
    row = insert(CanceledLesson).values(lesson_id=event.lesson_id, canceled_at=event.canceled_at)
    await session.execute(row.on_conflict_do_nothing())


def _asked(order_id: Any) -> Exists:
    return exists().where(col(Refund.order_id) == order_id, col(Refund.request_key) == REQUEST)


async def _give_back(rt: Runtime) -> int:
    """Close the open orders of canceled lessons, and write the refunds of the paid ones, which are then chased.

    A payment that is being taken in while the news comes is found here a moment later, and one whose dispute is won then.
    """
    canceled = exists().where(col(CanceledLesson.lesson_id) == col(Order.course_id))
    under_way = exists().where(
        col(Refund.order_id) == col(Order.id), col(Refund.status) == "pending", col(Refund.cause) != "surplus"
    )
    waiting = (
        select(col(Order.id))
        .where(
            col(Order.course_id).is_not(None),
            canceled,
            (col(Order.status) == "pending")
            | (col(Order.status).in_(("paid", "partially_refunded")) & ~_asked(col(Order.id)) & ~under_way),
        )
        .order_by(col(Order.id))
        .limit(BATCH)
    )
    async with rt.db.session() as session:
        order_ids = (await session.scalars(waiting)).all()
    done = 0
    for order_id in order_ids:
        async with rt.db.session() as session, session.begin():
            done += await _give_back_one(session, order_id)
    return done


async def _give_back_one(session: AsyncSession, order_id: UUID) -> bool:
    order = await payments.lock_order(session, order_id)
    if order is None or order.status == "pending":
        return await payments.close(session, order_id, "canceled")
    asked = await session.scalar(select(_asked(order_id)))
    payment_id = await session.scalar(
        select(col(Payment.id)).where(col(Payment.order_id) == order_id, col(Payment.status) == "applied")
    )
    amount = await left_of(session, order)
    if asked or amount <= 0 or payment_id is None:
        return False
    now = clock.now()
    session.add(
        Refund(
            order_id=order.id,
            payment_id=payment_id,
            cause="lesson_canceled",
            request_key=REQUEST,
            reason=REASON,
            amount=amount,
            currency=order.currency,
            removes_time=True,
            status="pending",
            next_attempt_at=now,
            created_at=now,
        )
    )
    await session.flush()
    log.info("a canceled lesson is given back", order=order.number, amount=amount)
    return True


due = Due("give canceled lessons back", _give_back, waits="SELECT FROM canceled_lesson")
