"""Seats: who comes to a live lesson and who leaves it, written in the order in which they asked; never one too many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from kit import clock
from kit.errors import Conflict, Problem
from kit.events import outbox_row, write_outbox
from kit.shapes import Out
from kit.text import instant
from services.courses.live import LiveLessonNotFound
from services.courses.live_news import notices
from services.courses.models import LiveLesson, LiveStatus, SeatStatus
from services.courses.rooms import UNATTENDED

_OPEN: Final = ("scheduled", "live", "paused")


class EnrolmentClosed(Conflict):
    """This lesson takes no enrolments now: it is over or canceled."""

    zh = "这节直播课已结束或取消，现在不能报名。"


class EnrolmentOut(Out):
    """A seat, or a place in the queue: `position` 1 is the next to move up."""

    status: SeatStatus
    position: int | None = None


class Wish(NamedTuple):
    """What a member asks for: a seat, or to give theirs back."""

    lesson_id: UUID
    member_id: UUID
    leaves: bool = False
    request_id: str | None = None
    traceparent: str | None = None


@dataclass
class Held:
    """A lesson whose row is held, and its seats as this transaction leaves them."""

    id: UUID
    title: str
    starts_at: datetime
    ends_at: datetime
    zone: str
    status: LiveStatus
    capacity: int | None
    priority_seats: int
    enrolled: int
    general: int


def is_over(lesson: Held | LiveLesson) -> bool:
    """Whether nobody can come to a lesson any more: also one that nobody began, half an hour after its planned end."""
    return lesson.status not in _OPEN or clock.now() >= lesson.ends_at + UNATTENDED


# Sorted, so that two processes lock in one order.
_LESSONS: Final = text(
    "SELECT id, title, starts_at, ends_at, zone, status, capacity, priority_seats, enrolled, general FROM live_lesson "
    "WHERE id = ANY(CAST(:ids AS uuid[])) AND status <> 'draft' AND deleted_at IS NULL ORDER BY id FOR UPDATE"
)
# A statement of its own: what the lock waited for is visible to the next one only.
_WAITING: Final = text(
    "SELECT lesson_id, count(*) AS waiting FROM enrolment "
    "WHERE lesson_id = ANY(CAST(:ids AS uuid[])) AND status = 'waitlisted' GROUP BY lesson_id"
)
SEATS_OF: Final = text(
    "SELECT lesson_id, member_id, status, CASE WHEN status = 'waitlisted' THEN (SELECT count(*) FROM enrolment AS ahead "
    "WHERE ahead.lesson_id = enrolment.lesson_id AND ahead.status = 'waitlisted' AND ahead.place <= enrolment.place) END "
    "AS position FROM enrolment WHERE (lesson_id, member_id) IN "
    "(SELECT * FROM unnest(CAST(:lessons AS uuid[]), CAST(:members AS uuid[])))"
)
_PRIORITY: Final = text(
    "SELECT member_id FROM access WHERE member_id = ANY(CAST(:members AS uuid[])) "
    "AND live_priority @> CAST(:now AS timestamptz)"
)
# Places are given in the order in which the answers were.
_SEAT: Final = text("""
INSERT INTO enrolment (lesson_id, member_id, status, priority, enrolled_at)
SELECT lesson_id, member_id, status, priority, :now FROM unnest(
    CAST(:lessons AS uuid[]), CAST(:members AS uuid[]), CAST(:statuses AS text[]), CAST(:priorities AS boolean[])
) WITH ORDINALITY AS seat (lesson_id, member_id, status, priority, nth) ORDER BY nth
""")
_LEAVE: Final = text(
    "DELETE FROM enrolment WHERE (lesson_id, member_id) IN "
    "(SELECT * FROM unnest(CAST(:lessons AS uuid[]), CAST(:members AS uuid[]))) RETURNING lesson_id, status, priority"
)
_TALLY: Final = text("UPDATE live_lesson SET enrolled = :enrolled, general = :general WHERE id = :id")
# The seats that are reserved go to whoever has the benefit now, the others to anyone; `nth` counts who waits for those.
_NEXT: Final = text("""
WITH waiting AS (
    SELECT member_id, place, preferred, count(*) FILTER (WHERE NOT preferred) OVER (ORDER BY place) AS nth
    FROM (
        SELECT member_id, place, coalesce(live_priority @> CAST(:now AS timestamptz), false) AS preferred
        FROM enrolment LEFT JOIN access USING (member_id) WHERE lesson_id = :id AND status = 'waitlisted'
    ) AS queue
)
SELECT member_id, preferred FROM waiting
WHERE preferred OR CAST(:general AS bigint) IS NULL OR nth <= CAST(:general AS bigint)
ORDER BY place LIMIT CAST(:free AS bigint)
""")
_MOVE: Final = text(
    "UPDATE enrolment SET status = 'enrolled', priority = preferred "
    "FROM unnest(CAST(:members AS uuid[]), CAST(:preferred AS boolean[])) AS next (member_id, preferred) "
    "WHERE enrolment.lesson_id = :id AND enrolment.member_id = next.member_id"
)


async def write(connection: AsyncConnection, wishes: Sequence[Wish]) -> list[EnrolmentOut | Problem | None]:
    """Do what everyone who waits for an answer asked for, one after the other; None answers who left."""
    ids = sorted({wish.lesson_id for wish in wishes})
    found = await connection.execute(_LESSONS, {"ids": ids})
    lessons = {row.id: Held(*row) for row in found}
    before = {lesson.id: (lesson.enrolled, lesson.general) for lesson in lessons.values()}
    answers: list[EnrolmentOut | Problem | None] = []
    for leaves, some in groupby(wishes, key=lambda wish: wish.leaves):
        answers += await (_go if leaves else _come)(connection, lessons, list(some))
    tallies = [
        {"id": lesson.id, "enrolled": lesson.enrolled, "general": lesson.general}
        for lesson in lessons.values()
        if before[lesson.id] != (lesson.enrolled, lesson.general)
    ]
    if tallies:
        await connection.execute(_TALLY, tallies)
    return answers


def _pairs(wishes: Iterable[Wish]) -> dict[str, list[UUID]]:
    lessons, members = zip(*((wish.lesson_id, wish.member_id) for wish in wishes), strict=True)
    return {"lessons": list(lessons), "members": list(members)}


async def _come(
    connection: AsyncConnection, lessons: dict[UUID, Held], wishes: list[Wish]
) -> list[EnrolmentOut | Problem | None]:
    now, pairs = clock.now(), _pairs(wishes)
    waiting = {row.lesson_id: row.waiting for row in await connection.execute(_WAITING, {"ids": list(lessons)})}
    held = {
        (row.lesson_id, row.member_id): EnrolmentOut(status=row.status, position=row.position)
        for row in await connection.execute(SEATS_OF, pairs)
    }
    found = await connection.execute(_PRIORITY, {"members": pairs["members"], "now": now})
    preferred = {row.member_id for row in found}
    seats: list[tuple[UUID, UUID, SeatStatus, bool]] = []
    answers: list[EnrolmentOut | Problem | None] = []
    for wish in wishes:
        lesson, pair = lessons.get(wish.lesson_id), wish[:2]
        if lesson is None:
            answers.append(LiveLessonNotFound())
        elif pair in held:
            answers.append(held[pair])
        elif is_over(lesson):
            answers.append(EnrolmentClosed())
        else:
            priority = wish.member_id in preferred
            if _has_room(lesson, priority=priority):
                lesson.enrolled += 1
                lesson.general += not priority
                held[pair] = EnrolmentOut(status="enrolled")
            else:
                waiting[lesson.id] = waiting.get(lesson.id, 0) + 1
                held[pair] = EnrolmentOut(status="waitlisted", position=waiting[lesson.id])
            answers.append(held[pair])
            seats.append((*pair, held[pair].status, priority))
    if seats:
        columns = zip(
            ("lessons", "members", "statuses", "priorities"), map(list, zip(*seats, strict=True)), strict=True
        )
        await connection.execute(_SEAT, {"now": now} | dict(columns))
    return answers


def _has_room(lesson: Held, *, priority: bool) -> bool:
    """Whether one more finds a seat; those without priority leave the reserved ones free."""
    if lesson.capacity is None:
        return True
    general_seats = lesson.capacity - lesson.priority_seats
    return lesson.enrolled < lesson.capacity and (priority or lesson.general < general_seats)


async def _go(
    connection: AsyncConnection, lessons: dict[UUID, Held], wishes: list[Wish]
) -> list[EnrolmentOut | Problem | None]:
    known = [wish for wish in wishes if wish.lesson_id in lessons]
    if known:
        freed = await _leave(connection, lessons, _pairs(known))
        for lesson_id in sorted(freed):
            origin = next(wish for wish in known if wish.lesson_id == lesson_id)
            await fill(connection, lessons[lesson_id], request_id=origin.request_id, traceparent=origin.traceparent)
    return [None if wish.lesson_id in lessons else LiveLessonNotFound() for wish in wishes]


async def _leave(connection: AsyncConnection, lessons: dict[UUID, Held], pairs: dict[str, list[UUID]]) -> set[UUID]:
    """Take members off the lists; the lessons in which that frees a seat."""
    freed = set()
    for row in await connection.execute(_LEAVE, pairs):
        if row.status == "enrolled":
            lessons[row.lesson_id].enrolled -= 1
            lessons[row.lesson_id].general -= not row.priority
            freed.add(row.lesson_id)
    return freed


async def fill(connection: AsyncConnection, lesson: Held | LiveLesson, **origin: str | None) -> None:
    """Give free seats to the queue in its order, and tell who gets one; the lesson's row is held, and counted by the caller."""
    if is_over(lesson) or (lesson.capacity is not None and lesson.enrolled >= lesson.capacity):
        return
    now = clock.now()
    room: dict[str, Any] = {"id": lesson.id, "now": now, "free": None, "general": None}
    if lesson.capacity is not None:
        room["free"] = lesson.capacity - lesson.enrolled
        room["general"] = max(lesson.capacity - lesson.priority_seats - lesson.general, 0)
    found = (await connection.execute(_NEXT, room)).all()
    if found:
        members, preferred = [row.member_id for row in found], [row.preferred for row in found]
        await connection.execute(_MOVE, {"id": lesson.id, "members": members, "preferred": preferred})
        lesson.enrolled += len(found)
        lesson.general += preferred.count(False)
        told = notices(lesson, "lesson_seat", instant(now), members)
        await write_outbox(connection, [outbox_row(notice) | origin for notice in told])
