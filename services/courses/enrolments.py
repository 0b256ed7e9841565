"""Enrolments: members take a seat in a live lesson, or the next place in its queue; seats are never oversold."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlmodel import col

from contracts.members import MembershipChanged
from kit import clock
from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, Problem, problems
from kit.group import GroupCommit, QueueFull
from kit.shapes import Out
from kit.text import instant
from services.courses.live import LiveLessonNotFound
from services.courses.live_news import notify
from services.courses.models import Enrolment, LiveLesson, SeatStatus

router = new_router(prefix="/v1/live-lessons/{lesson_id}/enrolment", tags=["live lessons"])

OPEN = ("scheduled", "live", "paused")


class EnrolmentClosed(Conflict):
    """This lesson takes no enrolments now: it is over or canceled."""

    zh = "这节直播课已结束或取消，现在不能报名。"


class NotEnrolled(NotFound):
    """You have no seat in this lesson, and no place in its queue."""

    zh = "你还没有报名这节直播课。"


class EnrolmentOut(Out):
    """A seat, or a place in the queue: `position` 1 is the next to move up."""

    status: SeatStatus
    position: int | None = None


class _Wish(NamedTuple):
    lesson_id: UUID
    member_id: UUID


# Sorted, so that two processes lock in one order.
_LESSONS = text(
    "SELECT id, status, capacity, priority_seats, enrolled, general FROM live_lesson "
    "WHERE id = ANY(CAST(:ids AS uuid[])) AND status <> 'draft' AND deleted_at IS NULL ORDER BY id FOR UPDATE"
)
# A statement of its own: what the lock waited for is visible to the next one only.
_WAITING = text(
    "SELECT lesson_id, count(*) AS waiting FROM enrolment "
    "WHERE lesson_id = ANY(CAST(:ids AS uuid[])) AND status = 'waitlisted' GROUP BY lesson_id"
)
_HELD = text(
    "SELECT lesson_id, member_id, status, CASE WHEN status = 'waitlisted' THEN (SELECT count(*) FROM enrolment AS ahead "
    "WHERE ahead.lesson_id = enrolment.lesson_id AND ahead.status = 'waitlisted' AND ahead.place <= enrolment.place) END "
    "AS position FROM enrolment WHERE (lesson_id, member_id) IN "
    "(SELECT * FROM unnest(CAST(:lessons AS uuid[]), CAST(:members AS uuid[])))"
)
_PRIORITY = text(
    "SELECT member_id FROM access WHERE member_id = ANY(CAST(:members AS uuid[])) "
    "AND live_priority @> CAST(:now AS timestamptz)"
)
_RESERVED = text(
    "SELECT id FROM live_lesson JOIN enrolment ON enrolment.lesson_id = live_lesson.id "
    "WHERE enrolment.member_id = :member_id AND enrolment.status = 'waitlisted' AND priority_seats > 0 "
    "AND enrolled < capacity AND live_lesson.status IN ('scheduled', 'live', 'paused')"
)
_SEAT = text(
    "INSERT INTO enrolment (lesson_id, member_id, status, priority, enrolled_at) "
    "VALUES (:lesson_id, :member_id, :status, :priority, :now)"
)
_TALLY = text("UPDATE live_lesson SET enrolled = enrolled + :enrolled, general = general + :general WHERE id = :id")


async def _write(connection: AsyncConnection, wishes: Sequence[_Wish]) -> list[EnrolmentOut | Problem]:
    """Seat everyone who waits for an answer, in the order in which they came."""
    now = clock.now()
    pairs = {"lessons": [wish.lesson_id for wish in wishes], "members": [wish.member_id for wish in wishes]}
    found = await connection.execute(_LESSONS, {"ids": pairs["lessons"]})
    lessons = {row.id: dict(row._mapping) | {"waiting": 0} for row in found}  # noqa: SLF001 - a row as a mapping
    for row in await connection.execute(_WAITING, {"ids": list(lessons)}):
        lessons[row.lesson_id]["waiting"] = row.waiting
    held = {
        (row.lesson_id, row.member_id): EnrolmentOut(status=row.status, position=row.position)
        for row in await connection.execute(_HELD, pairs)
    }
    found = await connection.execute(_PRIORITY, {"members": pairs["members"], "now": now})
    preferred = {row.member_id for row in found}
    seats: list[dict[str, Any]] = []
    tallies: dict[UUID, dict[str, int]] = defaultdict(lambda: {"enrolled": 0, "general": 0})
    answers: list[EnrolmentOut | Problem] = []
    for wish in wishes:
        lesson = lessons.get(wish.lesson_id)
        if lesson is None:
            answers.append(LiveLessonNotFound())
        elif wish in held:
            answers.append(held[wish])
        elif lesson["status"] not in OPEN:
            answers.append(EnrolmentClosed())
        else:
            priority = wish.member_id in preferred
            answer = held[wish] = _seat(lesson, tallies[wish.lesson_id], priority=priority)
            answers.append(answer)
            seats.append(wish._asdict() | {"status": answer.status, "priority": priority, "now": now})
    if seats:
        await connection.execute(_SEAT, seats)
        await connection.execute(_TALLY, [{"id": key} | tally for key, tally in sorted(tallies.items())])
    return answers


def _seat(lesson: dict[str, Any], tally: dict[str, int], *, priority: bool) -> EnrolmentOut:
    general = lesson["general"] + tally["general"]
    if not has_room(
        lesson["capacity"], lesson["priority_seats"], lesson["enrolled"] + tally["enrolled"], general, priority
    ):
        lesson["waiting"] += 1
        return EnrolmentOut(status="waitlisted", position=lesson["waiting"])
    tally["enrolled"] += 1
    tally["general"] += not priority
    return EnrolmentOut(status="enrolled")


def has_room(capacity: int | None, reserved: int, enrolled: int, general: int, priority: bool) -> bool:  # noqa: FBT001
    """Whether one more finds a seat; those without priority leave the reserved ones free."""
    return capacity is None or (enrolled < capacity and (priority or general < capacity - reserved))


# The seats that are reserved go to whoever has the benefit now, the others to anyone; `nth` counts who waits for those.
_FILL = text("""
WITH waiting AS (
    SELECT member_id, place, preferred, count(*) FILTER (WHERE NOT preferred) OVER (ORDER BY place) AS nth
    FROM (
        SELECT member_id, place, coalesce(live_priority @> CAST(:now AS timestamptz), false) AS preferred
        FROM enrolment LEFT JOIN access USING (member_id) WHERE lesson_id = :id AND status = 'waitlisted'
    ) AS queue
), next AS (
    SELECT member_id, preferred FROM waiting
    WHERE preferred OR CAST(:general AS bigint) IS NULL OR nth <= CAST(:general AS bigint)
    ORDER BY place LIMIT CAST(:free AS bigint)
)
UPDATE enrolment SET status = 'enrolled', priority = next.preferred FROM next
WHERE enrolment.lesson_id = :id AND enrolment.member_id = next.member_id
RETURNING enrolment.member_id, enrolment.priority, enrolment.place
""")


async def fill_seats(session: AsyncSession, lesson: LiveLesson) -> None:
    """Give free seats to the queue in its order, and tell who gets one; the caller holds the lesson's row."""
    if lesson.status not in OPEN or (lesson.capacity is not None and lesson.enrolled >= lesson.capacity):
        return
    bounded = lesson.capacity is not None
    room = {
        "free": (lesson.capacity or 0) - lesson.enrolled if bounded else None,
        "general": max((lesson.capacity or 0) - lesson.priority_seats - lesson.general, 0) if bounded else None,
    }
    found = (await session.execute(_FILL, {"id": lesson.id, "now": clock.now()} | room)).all()
    seated = sorted(found, key=lambda row: row.place)
    lesson.enrolled += len(seated)
    lesson.general += sum(not row.priority for row in seated)
    await session.flush()
    if seated:
        await notify(session, lesson, "lesson_seat", instant(clock.now()), [row.member_id for row in seated])


async def on_membership_changed(session: AsyncSession, event: MembershipChanged) -> None:
    """Give a member who waits, and now has the benefit that opens the reserved seats, one of them if it is free."""
    found = await session.scalars(_RESERVED, {"member_id": event.member_id})
    lessons = select(LiveLesson).where(col(LiveLesson.id).in_(found.all())).order_by(col(LiveLesson.id))
    for lesson in (await session.scalars(lessons.with_for_update())).all():
        await fill_seats(session, lesson)


@asynccontextmanager
async def seats_ready(runtime: Runtime) -> AsyncIterator[None]:
    """One writer of enrolments in this process."""
    runtime.state["enrolments"] = GroupCommit(runtime.db, _write, name="enrolments")
    yield


@router.put("", responses=problems(LiveLessonNotFound, EnrolmentClosed, QueueFull))
async def enrol_in_live_lesson(lesson_id: UUID, caller: MemberDep, runtime: RuntimeDep) -> EnrolmentOut:
    """Take a seat, or the next place in the queue; asking again changes nothing."""
    seats: GroupCommit[_Wish, EnrolmentOut] = runtime.state["enrolments"]
    return await seats.submit(_Wish(lesson_id, caller.id))


@router.get("", responses=problems(NotEnrolled))
async def read_enrolment(lesson_id: UUID, caller: MemberDep, session: SessionDep) -> EnrolmentOut:
    """The caller's seat, or their present place in the queue."""
    row = (await session.execute(_HELD, {"lessons": [lesson_id], "members": [caller.id]})).one_or_none()
    if row is None:
        raise NotEnrolled
    return EnrolmentOut(status=row.status, position=row.position)


@router.delete("", status_code=204, responses=problems(LiveLessonNotFound))
async def leave_live_lesson(lesson_id: UUID, caller: MemberDep, session: SessionDep) -> None:
    """Give the seat, or the place in the queue, back; a freed seat goes to the first in the queue."""
    lesson = await session.get(LiveLesson, lesson_id, with_for_update=True)
    if lesson is None or lesson.deleted_at is not None or lesson.status == "draft":
        raise LiveLessonNotFound
    await give_back(session, lesson, caller.id)


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
