"""The course of a live lesson: which status follows which, who hears of it, and the end of a room that nobody closed."""

from datetime import datetime
from typing import Final

from fastapi import Response
from sqlalchemy import text
from sqlmodel import col

from contracts.courses import LiveLessonCanceled
from kit import audit, clock
from kit.app import Due, Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, problems
from kit.events import emit
from kit.shapes import StrictIn
from services.courses.admin_courses import EDITOR
from services.courses.admin_live import HeldLiveLesson, answer, touch
from services.courses.announcements import offer
from services.courses.lesson_requests import open_again, tell_voters
from services.courses.live import LiveLessonNotFound, LiveLessonOut
from services.courses.live_news import notify, tell, tell_status
from services.courses.models import LiveStatus
from services.courses.points_payments import give_points_back
from services.courses.reminders import pass_over
from services.courses.room_models import PointsPayment
from services.courses.rooms import UNATTENDED, want_closed

router = new_router(prefix="/v1/admin/live-lessons", tags=["admin live lessons"])

LEGAL: Final[dict[LiveStatus, frozenset[LiveStatus]]] = {
    "draft": frozenset({"scheduled", "canceled"}),
    "scheduled": frozenset({"live", "canceled"}),
    "live": frozenset({"paused", "ended"}),
    "paused": frozenset({"live", "ended"}),
    "ended": frozenset({"replay_ready"}),
    "replay_ready": frozenset(),
    "canceled": frozenset(),
}


class IllegalTransition(Conflict):
    """A live lesson cannot go from {held} to {wanted}; reload it to see where it stands."""

    zh = "直播课不能从 {held} 变为 {wanted}，请刷新后查看当前状态。"


class TransitionIn(StrictIn):
    """Where the lesson goes."""

    to: LiveStatus


@router.post("/{lesson_id}/transitions", dependencies=EDITOR, responses=problems(LiveLessonNotFound, IllegalTransition))
async def move_live_lesson(
    body: TransitionIn, lesson: HeldLiveLesson, session: SessionDep, runtime: RuntimeDep, response: Response
) -> LiveLessonOut:
    """Take a live lesson to its next status."""
    if body.to not in LEGAL[lesson.status]:
        raise IllegalTransition(held=lesson.status, wanted=body.to)
    moved = {"before": {"status": lesson.status}, "after": {"status": body.to}}
    await audit.record(session, "live_lesson.moved", lesson.id, **moved)
    lesson.status = body.to
    touch(lesson)
    await session.flush()
    await offer(session, lesson, runtime.settings.live_amount)
    if body.to == "scheduled":
        await pass_over(session, lesson)
        await tell_voters(session, lesson)
    if body.to == "canceled":
        await notify(session, lesson, "lesson_canceled", "")
        await give_points_back(session, col(PointsPayment.lesson_id) == lesson.id)
        await open_again(session, lesson.id)
        await emit(session, LiveLessonCanceled(lesson_id=lesson.id, canceled_at=lesson.updated_at))
    if body.to in {"ended", "canceled"}:
        await want_closed(session, lesson.id)
    await tell_status(session, lesson)
    if body.to == "canceled":
        await tell(session, lesson.id, "notice", {"kind": "canceled"})
    return await answer(session, lesson.id, response)


_END = text(
    "UPDATE live_lesson SET status = 'ended', version = version + 1, updated_at = :now WHERE id IN ("
    "SELECT id FROM live_lesson WHERE status IN ('live', 'paused') AND ends_at <= :before LIMIT 100 "
    "FOR UPDATE SKIP LOCKED) RETURNING id"
)
# Somebody came early, and the lesson never began: an admin cancels it or gives it another time, the room is closed.
_LEFT = text(
    "SELECT lesson_id FROM live_room JOIN live_lesson ON live_lesson.id = lesson_id WHERE opened_at IS NOT NULL "
    "AND NOT close_wanted AND status = 'scheduled' AND ends_at <= :before LIMIT 100 FOR UPDATE SKIP LOCKED"
)
_WAITS = (
    f"SELECT FROM live_lesson WHERE ends_at <= $1 - interval '{UNATTENDED.total_seconds()} s' "  # noqa: S608 - a constant
    "AND (status IN ('live', 'paused') OR status = 'scheduled' AND EXISTS ("
    "SELECT FROM live_room WHERE lesson_id = live_lesson.id AND opened_at IS NOT NULL AND NOT close_wanted))"
)
_NEXT_END = text("SELECT min(ends_at) FROM live_lesson WHERE status IN ('live', 'paused') AND ends_at > :before")


async def _end_unattended(runtime: Runtime) -> int:
    now = clock.now()
    async with runtime.db.session() as session, session.begin():
        moment = {"now": now, "before": now - UNATTENDED}
        ended = (await session.execute(_END, moment)).scalars().all()
        for lesson_id in sorted(ended):
            await want_closed(session, lesson_id)
            await tell(session, lesson_id, "status", {"status": "ended"})
        left = (await session.execute(_LEFT, {"before": now - UNATTENDED})).scalars().all()
        for lesson_id in sorted(left):
            await want_closed(session, lesson_id)
    return len(ended) + len(left)


async def _next_end(runtime: Runtime) -> datetime | None:
    async with runtime.db.session() as session:
        planned: datetime | None = await session.scalar(_NEXT_END, {"before": clock.now() - UNATTENDED})
    return planned + UNATTENDED if planned else None


end_unattended = Due("end unattended rooms", _end_unattended, next_at=_next_end, waits=_WAITS)
