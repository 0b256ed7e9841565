"""Lessons: what a member watches, how far they came, and when they are done."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Response
from pydantic import AfterValidator, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.courses import LessonCompleted
from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep, OptionalMemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.events import emit
from kit.shapes import MAX_INTEGER, Count, In, Out
from kit.wording import Wrong
from services.courses.access import BOUGHT, MembershipRequired, PurchaseRequired, require_access
from services.courses.media import Playback, playback_of
from services.courses.models import CourseAccess

router = new_router(prefix="/v1/lessons", tags=["lessons"])

MAX_INTERVALS = 1000


class LessonNotFound(NotFound):
    """There is no such lesson; it may have been taken down."""

    zh = "没有这节课，它可能已经下架。"


class ProgressOut(Out):
    """How much of a lesson was watched; `completed` stays once it is true."""

    percent: int
    completed: bool
    position_s: int


class LessonOut(Out):
    """A lesson that the caller may watch; `progress` only for a member who began it."""

    id: UUID
    course_id: UUID
    title: str
    description: str
    duration_s: int
    position: int
    access: CourseAccess
    playback: Playback | None
    progress: ProgressOut | None


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


_SHOWN = text(
    "SELECT lesson.id, lesson.course_id, lesson.title, lesson.description, lesson.duration_s, lesson.position, "  # noqa: S608 - constants
    "lesson.media, course.access, course.category FROM lesson JOIN course ON course.id = lesson.course_id "
    "WHERE lesson.id = :id AND lesson.deleted_at IS NULL AND course.deleted_at IS NULL AND "
    "(course.published OR " + BOUGHT.format(course_id="course.id") + ")"
)
SECONDS = (
    "(SELECT coalesce(sum(upper(part) - lower(part)), 0) FROM "
    "unnest({watched} * int4multirange(int4range(0, {duration}))) AS part)"
)
"""How many seconds of a lesson's present length a multirange holds, as SQL."""

_PROGRESS = text(
    "SELECT least(100, 100 * "  # noqa: S608 - constants
    + SECONDS.format(watched="progress.watched", duration=":duration_s")
    + " / :duration_s)::int AS percent, position_s, EXISTS (SELECT FROM completion WHERE "
    "completion.member_id = :member_id AND completion.lesson_id = :lesson_id) AS completed "
    "FROM progress WHERE member_id = :member_id AND lesson_id = :lesson_id"
)
# The update waits for whoever writes the same row and then sees what they wrote: no second is lost, and the one that
# brings it to 90 % is the one that completes it.
_SAVE = text(
    "WITH saved AS ("  # noqa: S608 - constants
    "INSERT INTO progress AS held (member_id, lesson_id, watched, position_s, updated_at) "
    "VALUES (:member_id, :lesson_id, (SELECT coalesce(range_agg(int4range(a, b)), '{}') FROM "
    "unnest(CAST(:starts AS int[]), CAST(:ends AS int[])) AS played (a, b)), :position_s, :now) "
    "ON CONFLICT (member_id, lesson_id) DO UPDATE SET watched = held.watched + excluded.watched, "
    "position_s = excluded.position_s, updated_at = greatest(held.updated_at, excluded.updated_at) "
    "RETURNING " + SECONDS.format(watched="watched", duration=":duration_s") + " AS seconds), "
    "done AS (INSERT INTO completion (member_id, lesson_id, completed_at) "
    "SELECT :member_id, :lesson_id, :now FROM saved WHERE seconds * 10 >= :duration_s * 9 "
    "ON CONFLICT DO NOTHING RETURNING completed_at) "
    "SELECT seconds, EXISTS (SELECT FROM done) AS just_completed, EXISTS (SELECT FROM completion WHERE "
    "member_id = :member_id AND lesson_id = :lesson_id) AS completed_before FROM saved"
)


async def shown_lesson(lesson_id: UUID, caller: OptionalMemberDep, session: SessionDep) -> Any:
    """The lesson's columns, with its course's access; of a course that is not shown any more, for its buyers."""
    return await _shown(session, lesson_id, caller.id if caller else None)


async def _shown(session: AsyncSession, lesson_id: UUID, member_id: UUID | None) -> Any:
    row = (await session.execute(_SHOWN, {"id": lesson_id, "member_id": member_id})).one_or_none()
    if row is None:
        raise LessonNotFound
    return row


ShownLesson = Annotated[Any, Depends(shown_lesson, scope="function")]


async def watchable_lesson(lesson_id: UUID, caller: MemberDep, session: SessionDep) -> Any:
    """The lesson, for a member who may watch it."""
    lesson = await _shown(session, lesson_id, caller.id)
    await require_access(session, lesson.access, lesson.course_id, caller.id)
    return lesson


WatchableLesson = Annotated[Any, Depends(watchable_lesson, scope="function")]
REFUSALS = problems(LessonNotFound, MembershipRequired, PurchaseRequired)


@router.get("/{lesson_id}", responses=REFUSALS)
async def read_lesson(
    lesson: ShownLesson, caller: OptionalMemberDep, session: SessionDep, runtime: RuntimeDep, response: Response
) -> LessonOut:
    """A lesson to watch, with a playback link; a refusal says what would open it."""
    until = await require_access(session, lesson.access, lesson.course_id, caller.id if caller else None)
    progress = await _progress_of(session, lesson, caller.id) if caller else None
    response.headers["Cache-Control"] = "private, no-store"
    fields = {name: value for name, value in lesson._mapping.items() if name != "media"}  # noqa: SLF001 - a row's mapping
    return LessonOut(**fields, playback=playback_of(runtime, lesson.id, lesson.media, until), progress=progress)


async def _progress_of(session: AsyncSession, lesson: Any, member_id: UUID) -> ProgressOut | None:
    values = {"lesson_id": lesson.id, "member_id": member_id, "duration_s": lesson.duration_s}
    row = (await session.execute(_PROGRESS, values)).one_or_none()
    return ProgressOut.model_validate(row) if row else None


@router.put("/{lesson_id}/progress", responses=REFUSALS)
async def save_progress(
    body: ProgressIn, lesson: WatchableLesson, caller: MemberDep, session: SessionDep
) -> ProgressOut:
    """Add what was watched; each second counts once, and 90 % of them complete the lesson."""
    now, duration = clock.now(), lesson.duration_s
    position = min(body.position_s, duration)
    saved = await session.execute(
        _SAVE,
        {
            "member_id": caller.id,
            "lesson_id": lesson.id,
            "starts": [min(start, duration) for start, _ in body.watched],
            "ends": [min(end, duration) for _, end in body.watched],
            "position_s": position,
            "now": now,
            "duration_s": duration,
        },
    )
    row = saved.one()
    if row.just_completed:
        fact = {"member_id": caller.id, "lesson_id": lesson.id, "course_id": lesson.course_id}
        fact |= {"category": lesson.category, "completed_at": now}
        await emit(session, LessonCompleted(**fact))
    # Another request may have completed the lesson while this one waited for it: then neither flag says so.
    completed = row.just_completed or row.completed_before or row.seconds * 10 >= duration * 9
    return ProgressOut(percent=int(row.seconds) * 100 // duration, completed=completed, position_s=position)
