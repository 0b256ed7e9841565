"""Lessons: what a member watches, and how far they came."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep, OptionalMemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.shapes import Out
from services.courses.access import BOUGHT, CALLER, MembershipRequired, PurchaseRequired, require_access
from services.courses.attachment_links import AttachmentLink, attachments_of
from services.courses.media import Playback, playback_of
from services.courses.models import CourseAccess
from services.courses.works import LessonWorkOut, best_works

router = new_router(prefix="/v1/lessons", tags=["lessons"])


class LessonNotFound(NotFound):
    """There is no such lesson; it may have been taken down."""

    zh = "没有这节课，它可能已经下架。"


class ProgressOut(Out):
    """How much of a lesson was watched; `completed` stays once it is true."""

    percent: int
    completed: bool
    position_s: int


class LessonOut(Out):
    """A lesson that the caller may watch; `progress` only for a member who began it, `works` the best made from it."""

    id: UUID
    course_id: UUID
    title: str
    description: str
    duration_s: int
    position: int
    access: CourseAccess
    playback: Playback | None
    attachments: list[AttachmentLink]
    progress: ProgressOut | None
    works: list[LessonWorkOut]


_SHOWN = text(
    "SELECT lesson.id, lesson.course_id, lesson.title, lesson.description, lesson.duration_s, lesson.position, "  # noqa: S608 - constants
    "lesson.media, course.access, course.category FROM lesson JOIN course ON course.id = lesson.course_id "
    "WHERE lesson.id = :id AND lesson.deleted_at IS NULL AND course.deleted_at IS NULL AND "
    "(course.published OR " + BOUGHT.format(member_id=CALLER, course_id="course.id") + ")"
)
SECONDS = (
    "(SELECT coalesce(sum(upper(part) - lower(part)), 0) FROM "
    "unnest({watched} * int4multirange(int4range(0, {duration}))) AS part)"
)
"""How many of a lesson's seconds a multirange holds, as SQL."""

LENGTH = "coalesce(completion.duration_s, lesson.duration_s)"
"""What percent are of, as SQL: whoever completed a lesson completed it as long as it was then."""
PERCENT = "least(100, 100 * " + SECONDS.format(watched="progress.watched", duration=LENGTH) + " / " + LENGTH + ")::int"
"""How much of a lesson a member watched, as SQL over progress, lesson and their completion, if any."""

_PROGRESS = text(
    "SELECT " + PERCENT + " AS percent, position_s, completed_at IS NOT NULL AS completed FROM progress "  # noqa: S608 - constants
    "JOIN lesson ON lesson.id = progress.lesson_id LEFT JOIN completion USING (member_id, lesson_id) "
    "WHERE progress.member_id = :member_id AND progress.lesson_id = :lesson_id"
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
    playback = playback_of(runtime, lesson.id, lesson.media, until)
    around: dict[str, Any] = {
        "attachments": await attachments_of(session, runtime, lesson.id, until),
        "works": await best_works(session, lesson.id),
    }
    return LessonOut(**fields, playback=playback, progress=progress, **around)


async def _progress_of(session: AsyncSession, lesson: Any, member_id: UUID) -> ProgressOut | None:
    values = {"lesson_id": lesson.id, "member_id": member_id}
    row = (await session.execute(_PROGRESS, values)).one_or_none()
    return ProgressOut.model_validate(row) if row else None
