"""Points payments: a member pays a live lesson with points, which members takes or refuses, and gets back."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.courses import PointsReturned, PointsWanted
from contracts.members import PointsAnswered, PointsChanged
from kit import clock
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.events import emit
from kit.ids import new_id
from kit.shapes import Out
from services.courses.live import LiveLessonNotFound
from services.courses.room_models import PaymentStatus, PointsBalance, PointsPayment
from services.courses.seats import EnrolmentClosed, is_over
from services.courses.ways import ShownLiveLesson

router = new_router(prefix="/v1/live-lessons/{lesson_id}/points-payment", tags=["live lessons"])


class NotForPoints(Conflict):
    """This live lesson is not opened by points; its access lists the ways that open it."""

    zh = "这节直播课不能用积分进入，请查看它支持的进入方式。"


class PaymentMissing(NotFound):
    """You have paid no points for this live lesson."""

    zh = "你没有用积分支付过这节直播课。"


class PointsPaymentOut(Out):
    """Points for a live lesson: `pending` for a moment, then `paid`, or `refused` with the balance that was too low."""

    id: UUID
    points: int
    status: PaymentStatus
    balance: int | None


def _mine(lesson_id: UUID, member_id: UUID) -> Any:
    """This member's payments of this lesson, the last first."""
    theirs = select(PointsPayment).where(
        col(PointsPayment.lesson_id) == lesson_id, col(PointsPayment.member_id) == member_id
    )
    return theirs.order_by(col(PointsPayment.asked_at).desc(), col(PointsPayment.id).desc()).limit(1)


@router.post("", status_code=202, responses=problems(LiveLessonNotFound, NotForPoints, EnrolmentClosed))
async def pay_with_points(caller: MemberDep, lesson: ShownLiveLesson, session: SessionDep) -> PointsPaymentOut:
    """Pay with points; they are taken once, however often this is asked."""
    needed = next((way["needed"] for way in lesson.access if way["kind"] == "points"), None)
    if needed is None:
        raise NotForPoints
    # Held until the payment is there: whoever cancels the lesson waits and gives it back, or is waited for and seen here.
    await session.refresh(lesson, with_for_update={"read": True, "key_share": True})
    if lesson.deleted_at is not None:
        raise LiveLessonNotFound
    if is_over(lesson):
        raise EnrolmentClosed
    wanted: dict[str, Any] = {"lesson_id": lesson.id, "member_id": caller.id, "points": needed}
    row = insert(PointsPayment).values(id=new_id(), **wanted, status="pending", asked_at=clock.now())
    # The one payment that is open, or done, is kept by an index: a second at the same moment waits for the first.
    new = (await session.execute(row.on_conflict_do_nothing().returning(col(PointsPayment.id)))).scalar_one_or_none()
    payment: PointsPayment = (await session.execute(_mine(lesson.id, caller.id))).scalar_one()
    if new is not None:
        await emit(
            session,
            PointsWanted(
                request_id=new,
                member_id=caller.id,
                points=needed,
                purpose="live_lesson",
                subject_id=lesson.id,
                wanted_at=payment.asked_at,
            ),
        )
    return PointsPaymentOut.model_validate(payment)


@router.get("", responses=problems(LiveLessonNotFound, PaymentMissing))
async def read_points_payment(caller: MemberDep, lesson: ShownLiveLesson, session: SessionDep) -> PointsPaymentOut:
    """How the caller's last payment with points stands."""
    payment = (await session.execute(_mine(lesson.id, caller.id))).scalar_one_or_none()
    if payment is None:
        raise PaymentMissing
    return PointsPaymentOut.model_validate(payment)


async def on_points_changed(session: AsyncSession, event: PointsChanged) -> None:
    """Keep how many points a member has; an older balance than the one held is ignored."""
    told = {"version": event.version, "balance": event.balance}
    row = insert(PointsBalance).values(member_id=event.member_id, **told)
    newer = col(PointsBalance.version) < event.version
    await session.execute(row.on_conflict_do_update(index_elements=["member_id"], set_=told, where=newer))


async def on_points_answered(session: AsyncSession, event: PointsAnswered) -> None:
    """Note what members did; points taken for what was given up meanwhile go back."""
    payment = await session.get(PointsPayment, event.request_id, with_for_update=True)
    if payment is None:
        return
    if payment.status == "pending":
        payment.status = "paid" if event.taken else "refused"
        payment.balance = event.balance
    elif payment.status == "returned" and event.taken:
        await emit(session, _back(payment))


def _back(payment: PointsPayment) -> PointsReturned:
    return PointsReturned(
        request_id=payment.id, member_id=payment.member_id, points=payment.points, returned_at=clock.now()
    )


async def give_points_back(session: AsyncSession, *conditions: Any) -> None:
    """Give up payments; what is still being taken goes back once members says that it was."""
    # Locked one by one: members' answer to a payment may be heard at the same moment.
    held = select(PointsPayment).where(col(PointsPayment.status).in_(("pending", "paid")), *conditions)
    payments = (await session.execute(held.order_by(col(PointsPayment.id)).with_for_update())).scalars().all()
    await emit(session, *(_back(payment) for payment in payments if payment.status == "paid"))
    ids = [payment.id for payment in payments]
    await session.execute(
        update(PointsPayment)
        .where(col(PointsPayment.id).in_(ids))
        .values(status="returned")
        .execution_options(synchronize_session=False)
    )
