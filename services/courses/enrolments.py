"""Enrolments: members take a seat in a live lesson, or the next place in its queue; seats are never oversold."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import Response
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MembershipChanged
from kit.app import Runtime, RuntimeDep, json_response, shortcut
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.group import GroupCommit, QueueFull
from kit.trace import current_request_id, current_traceparent
from services.courses.live import LiveLessonNotFound
from services.courses.models import Enrolment, LiveLesson
from services.courses.seats import SEATS_OF, EnrolmentClosed, EnrolmentOut, Wish, fill, write

router = new_router(prefix="/v1/live-lessons/{lesson_id}/enrolment", tags=["live lessons"])


class NotEnrolled(NotFound):
    """You have no seat in this lesson, and no place in its queue."""

    zh = "你还没有报名这节直播课。"


_RESERVED = text(
    "SELECT id FROM live_lesson JOIN enrolment ON enrolment.lesson_id = live_lesson.id "
    "WHERE enrolment.member_id = :member_id AND enrolment.status = 'waitlisted' AND priority_seats > 0 "
    "AND enrolled < capacity AND live_lesson.status IN ('scheduled', 'live', 'paused')"
)


async def on_membership_changed(session: AsyncSession, event: MembershipChanged) -> None:
    """Give a member who waits, and now has the benefit that opens the reserved seats, one of them if it is free."""
    found = await session.scalars(_RESERVED, {"member_id": event.member_id})
    lessons = select(LiveLesson).where(col(LiveLesson.id).in_(found.all())).order_by(col(LiveLesson.id))
    for lesson in (await session.scalars(lessons.with_for_update())).all():
        await fill_seats(session, lesson)


async def fill_seats(session: AsyncSession, lesson: LiveLesson) -> None:
    """Give free seats to the queue in its order, and tell who gets one; the caller holds the lesson's row."""
    await fill(await session.connection(), lesson)
    await session.flush()


async def give_back(session: AsyncSession, lesson: LiveLesson, member_id: UUID) -> None:
    """Take a member off the lesson's list; the caller holds the lesson's row."""
    held = await session.get(Enrolment, (lesson.id, member_id))
    if held is None:
        return
    if held.status == "enrolled":
        lesson.enrolled -= 1
        lesson.general -= not held.priority
    await session.delete(held)
    await session.flush()
    await fill_seats(session, lesson)


@asynccontextmanager
async def seats_ready(runtime: Runtime) -> AsyncIterator[None]:
    """One writer of enrolments in this process."""
    runtime.state["enrolments"] = GroupCommit(runtime.db, write, name="enrolments")
    yield


@router.put("", response_model=EnrolmentOut, responses=problems(LiveLessonNotFound, EnrolmentClosed, QueueFull))
@shortcut
async def enrol_in_live_lesson(lesson_id: UUID, caller: MemberDep, runtime: RuntimeDep) -> Response:
    """Take a seat, or the next place in the queue; asking again changes nothing."""
    seats: GroupCommit[Wish, EnrolmentOut] = runtime.state["enrolments"]
    seat = await seats.submit(Wish(lesson_id, caller.id))
    return json_response({"status": seat.status, "position": seat.position})


@router.get("", responses=problems(NotEnrolled))
async def read_enrolment(lesson_id: UUID, caller: MemberDep, session: SessionDep) -> EnrolmentOut:
    """The caller's seat, or their present place in the queue."""
    row = (await session.execute(SEATS_OF, {"lessons": [lesson_id], "members": [caller.id]})).one_or_none()
    if row is None:
        raise NotEnrolled
    return EnrolmentOut(status=row.status, position=row.position)


@router.delete("", status_code=204, responses=problems(LiveLessonNotFound, QueueFull))
@shortcut
async def leave_live_lesson(lesson_id: UUID, caller: MemberDep, runtime: RuntimeDep) -> Response:
    """Give the seat, or the place in the queue, back; a freed seat goes to the first in the queue."""
    seats: GroupCommit[Wish, None] = runtime.state["enrolments"]
    origin = {"request_id": current_request_id(), "traceparent": current_traceparent()}
    await seats.submit(Wish(lesson_id, caller.id, leaves=True, **origin))
    return Response(status_code=204)
