"""Progress: what members watch is written in groups; each second counts once, and 90 % of them complete a lesson once."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

from fastapi import Response
from pydantic import AfterValidator, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.courses import LessonCompleted
from kit import clock
from kit.app import Runtime, RuntimeDep, shortcut
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.errors import Problem, problems
from kit.events import outbox_row, write_outbox
from kit.group import GroupCommit, QueueFull
from kit.http import json_response
from kit.shapes import MAX_INTEGER, Count, In
from kit.trace import current_request_id, current_traceparent
from kit.wording import Wrong
from services.courses.access import BOUGHT, MembershipRequired, PurchaseRequired
from services.courses.lessons import REFUSALS, SECONDS, LessonNotFound, ProgressOut

router = new_router(prefix="/v1/lessons/{lesson_id}/progress", tags=["lessons"])

MAX_INTERVALS: Final = 1000
LONGEST_LESSON_S: Final = 86_400


def _forward(interval: tuple[int, int]) -> tuple[int, int]:
    if interval[1] < interval[0]:
        raise Wrong("an interval must not end before it begins", "区间的结束不能早于开始")
    return interval


Second = Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER)]
Interval = Annotated[tuple[Second, Second], AfterValidator(_forward)]


class ProgressIn(In):
    """Where the player stands, and what it has played since it last told, in whole seconds."""

    position_s: Count
    watched: Annotated[list[Interval], Field(max_length=MAX_INTERVALS)]


class _Report(NamedTuple):
    lesson_id: UUID
    member_id: UUID
    watched: str
    position_s: int
    request_id: str | None
    traceparent: str | None


class _Saved(NamedTuple):
    percent: int
    completed: bool
    position_s: int


_REFUSED: Final[dict[str, type[Problem]]] = {
    problem.code: problem for problem in (LessonNotFound, MembershipRequired, PurchaseRequired)
}
_LENGTH: Final = "coalesce(completion.duration_s, lesson.duration_s)"
_BOUGHT: Final = BOUGHT.format(member_id="asked.member_id", course_id="course.id")
# What one member reports of one lesson at once is one row: the intervals together, the place told last. An update waits
# for whoever writes the same row and then sees what they wrote: no second is lost, and the one that brings it to 90 % is
# the one that completes it. What was saved is joined with the lessons, by their keys: with what was told, whose number the
# planner cannot know, it would be joined row by row. Rows are written in one order, so that processes never wait in a ring.
_SAVE = text(f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(
        CAST(:lessons AS uuid[]), CAST(:members AS uuid[]), CAST(CAST(:watched AS text[]) AS int4multirange[]),
        CAST(:positions AS int[])
    ) WITH ORDINALITY AS asked (lesson_id, member_id, watched, position_s, turn)
), judged AS MATERIALIZED (
    SELECT asked.*, lesson.course_id, lesson.duration_s, course.category, course.version, CASE
        WHEN course.id IS NULL OR NOT (course.published OR {_BOUGHT}) THEN 'lesson_not_found'
        WHEN course.access = 'member' AND NOT (EXISTS (
            SELECT FROM access WHERE access.member_id = asked.member_id
            AND access.member_lessons @> CAST(:now AS timestamptz)
        ) OR {_BOUGHT}) THEN 'membership_required'
        WHEN course.access = 'paid' AND NOT {_BOUGHT} THEN 'purchase_required'
        END AS refusal
    FROM asked
    LEFT JOIN lesson ON lesson.id = asked.lesson_id AND lesson.deleted_at IS NULL
    LEFT JOIN course ON course.id = lesson.course_id AND course.deleted_at IS NULL
), told AS MATERIALIZED (
    SELECT member_id, lesson_id, course_id, duration_s, version, range_agg(watched) AS watched,
        (array_agg(position_s ORDER BY turn DESC))[1] AS position_s
    FROM judged WHERE refusal IS NULL GROUP BY member_id, lesson_id, course_id, duration_s, version
), saved AS (
    INSERT INTO progress AS held (member_id, lesson_id, watched, position_s, updated_at)
    SELECT member_id, lesson_id, watched * int4multirange(int4range(0, duration_s)), least(position_s, duration_s), :now
    FROM told ORDER BY member_id, lesson_id
    ON CONFLICT (member_id, lesson_id) DO UPDATE SET watched = held.watched + excluded.watched,
        position_s = excluded.position_s, updated_at = greatest(held.updated_at, excluded.updated_at)
    RETURNING member_id, lesson_id, watched, position_s
), counted AS MATERIALIZED (
    SELECT saved.member_id, saved.lesson_id, saved.position_s, lesson.duration_s, course.version, completion.completed_at,
        {_LENGTH} AS length,
        {SECONDS.format(watched="saved.watched", duration=_LENGTH)} AS seconds
    FROM saved JOIN lesson ON lesson.id = saved.lesson_id JOIN course ON course.id = lesson.course_id
    LEFT JOIN completion USING (member_id, lesson_id)
), done AS (
    INSERT INTO completion (member_id, lesson_id, completed_at, duration_s, course_version)
    SELECT member_id, lesson_id, :now, duration_s, version FROM counted
    WHERE completed_at IS NULL AND seconds * 10 >= length * 9 ORDER BY member_id, lesson_id
    ON CONFLICT DO NOTHING RETURNING member_id, lesson_id
)
SELECT judged.refusal, judged.course_id, judged.category, counted.position_s, done.lesson_id IS NOT NULL AS just_completed,
    least(100, 100 * counted.seconds / counted.length)::int AS percent,
    counted.completed_at IS NOT NULL OR counted.seconds * 10 >= counted.length * 9 AS completed
FROM judged LEFT JOIN counted USING (member_id, lesson_id) LEFT JOIN done USING (member_id, lesson_id)
ORDER BY judged.turn
""")  # noqa: S608 - constants


async def _write(connection: AsyncConnection, reports: Sequence[_Report]) -> list[_Saved | Problem]:
    """Write what everyone who waits for an answer has watched, and tell of the lessons that this completed."""
    now = clock.now()
    values = {
        "lessons": [report.lesson_id for report in reports],
        "members": [report.member_id for report in reports],
        "watched": [report.watched for report in reports],
        "positions": [report.position_s for report in reports],
        "now": now,
    }
    answers: list[_Saved | Problem] = []
    told: dict[tuple[UUID, UUID], dict[str, Any]] = {}
    for report, row in zip(reports, await connection.execute(_SAVE, values), strict=True):
        if row.refusal is not None:
            answers.append(_REFUSED[row.refusal]())
            continue
        answers.append(_Saved(row.percent, row.completed, row.position_s))
        key = report.member_id, report.lesson_id
        if row.just_completed and key not in told:
            fact = {"member_id": key[0], "lesson_id": key[1], "course_id": row.course_id}
            event = LessonCompleted(**fact, category=row.category, completed_at=now)
            origin = {"request_id": report.request_id, "traceparent": report.traceparent}
            told[key] = outbox_row(event) | origin
    if told:
        await write_outbox(connection, list(told.values()))
    return answers


@asynccontextmanager
async def progress_ready(runtime: Runtime) -> AsyncIterator[None]:
    """One writer of progress in this process."""
    runtime.state["progress"] = GroupCommit(runtime.db, _write, name="progress")
    yield


def _multirange(intervals: Sequence[tuple[int, int]]) -> str:
    """The intervals as PostgreSQL reads them, cut to what any lesson could be."""
    parts = (f"[{min(start, LONGEST_LESSON_S)},{min(end, LONGEST_LESSON_S)})" for start, end in intervals)
    return "{" + ",".join(parts) + "}"


@router.put("", response_model=ProgressOut, responses=REFUSALS | problems(QueueFull))
@shortcut
async def save_progress(body: ProgressIn, lesson_id: UUID, caller: MemberDep, runtime: RuntimeDep) -> Response:
    """Add what was watched; each second counts once, and 90 % of them complete the lesson."""
    group: GroupCommit[_Report, _Saved] = runtime.state["progress"]
    position = min(body.position_s, LONGEST_LESSON_S)
    origin = current_request_id(), current_traceparent()
    saved = await group.submit(_Report(lesson_id, caller.id, _multirange(body.watched), position, *origin))
    return json_response(saved._asdict(), headers={"Cache-Control": "private, no-store"})
