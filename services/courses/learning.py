"""Learning: everything a member has begun, the latest first; a course once finished stays so when it gets new lessons."""

from typing import Any
from uuid import UUID

from fastapi import Response
from sqlalchemy import Integer, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import json_response
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.courses.lessons import PERCENT
from services.courses.models import Completion, Course, Lesson, Progress

router = new_router(prefix="/v1/me/learning", tags=["lessons"])


class LearningItem(Out):
    """How far the caller came in one lesson; `at` is when they last watched it."""

    course_id: UUID
    course_title: str
    lesson_id: UUID
    lesson_title: str
    percent: int
    completed: bool
    position_s: int
    at: Instant


class NewLesson(Out):
    """A lesson that a course got after the caller had finished it."""

    id: UUID
    title: str


class LearnedCourse(Out):
    """How far the caller came in one course; finished, it is finished for good, as `completed_version` of it was.

    `next_lesson_id` is the first lesson in order that is not completed, `new_lessons` those that came since.
    """

    course_id: UUID
    course_title: str
    version: int
    lessons: int
    lessons_completed: int
    percent: int
    completed: bool
    completed_at: Instant | None
    completed_version: int | None
    new_lessons: list[NewLesson]
    next_lesson_id: UUID | None
    at: Instant


@router.get("", response_model=Page[LearningItem])
async def list_learning(caller: MemberDep, session: SessionDep, page: PageDep) -> Response:
    """The lessons the caller has begun, also those taken down since, the latest first."""
    columns: tuple[Any, ...] = (
        col(Lesson.course_id),
        col(Course.title).label("course_title"),
        col(Progress.lesson_id),
        col(Lesson.title).label("lesson_title"),
        literal_column(PERCENT, Integer).label("percent"),
        col(Completion.completed_at).is_not(None).label("completed"),
        col(Progress.position_s),
        col(Progress.updated_at),
    )
    statement = (
        select(*columns)
        .select_from(Progress)
        .join(Lesson, col(Lesson.id) == col(Progress.lesson_id))
        .join(Course, col(Course.id) == col(Lesson.course_id))
        .outerjoin(
            Completion,
            (col(Completion.lesson_id) == col(Progress.lesson_id))
            & (col(Completion.member_id) == col(Progress.member_id)),
        )
        .where(col(Progress.member_id) == caller.id)
    )
    order = (col(Progress.updated_at).desc(), col(Progress.lesson_id).desc())
    rows, next_cursor = await keyset(session, statement, page, order)
    items = []
    for row in rows:
        item = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
        items.append(item | {"at": item.pop("updated_at")})
    return json_response({"items": items, "next_cursor": next_cursor}, headers={"Cache-Control": "private, no-store"})


_COURSES = text("""
SELECT lesson.course_id, lesson.id, lesson.title, completion.completed_at,
    completion.lesson_id IS NOT NULL AS completed
FROM lesson LEFT JOIN completion ON completion.lesson_id = lesson.id AND completion.member_id = :member_id
WHERE lesson.course_id = ANY(CAST(:courses AS uuid[])) AND lesson.deleted_at IS NULL ORDER BY lesson.position
""")
_PINNED = text("""
SELECT course_id, version, completed_at FROM course_completion
WHERE member_id = :member_id AND course_id = ANY(CAST(:courses AS uuid[]))
""")


@router.get("/courses", response_model=Page[LearnedCourse])
async def list_learned_courses(caller: MemberDep, session: SessionDep, page: PageDep) -> Response:
    """The courses the caller has begun, the latest watched first."""
    begun = (
        select(col(Lesson.course_id), func.max(Progress.updated_at).label("at"))
        .join(Progress, col(Progress.lesson_id) == col(Lesson.id))
        .where(col(Progress.member_id) == caller.id)
        .group_by(col(Lesson.course_id))
        .subquery()
    )
    statement = select(begun.c.course_id, begun.c.at, col(Course.title), col(Course.version)).join(
        Course, col(Course.id) == begun.c.course_id
    )
    rows, next_cursor = await keyset(session, statement, page, (begun.c.at.desc(), begun.c.course_id.desc()))
    values = {"member_id": caller.id, "courses": [row.course_id for row in rows]}
    lessons: dict[UUID, list[Any]] = {row.course_id: [] for row in rows}
    for lesson in await session.execute(_COURSES, values):
        lessons[lesson.course_id].append(lesson)
    pinned = {row.course_id: row for row in await session.execute(_PINNED, values)}
    items = [_learned(row, lessons[row.course_id], pinned.get(row.course_id)) for row in rows]
    return json_response({"items": items, "next_cursor": next_cursor}, headers={"Cache-Control": "private, no-store"})


def _learned(course: Any, lessons: list[Any], pinned: Any) -> dict[str, Any]:
    left = [lesson for lesson in lessons if not lesson.completed]
    done = len(lessons) - len(left)
    now_done = bool(lessons) and not left
    finished = max(lesson.completed_at for lesson in lessons) if now_done else None
    completed = now_done or pinned is not None
    return {
        "course_id": course.course_id,
        "course_title": course.title,
        "version": course.version,
        "lessons": len(lessons),
        "lessons_completed": done,
        "percent": 100 if completed else 100 * done // (len(lessons) or 1),
        "completed": completed,
        "completed_at": pinned.completed_at if pinned else finished,
        "completed_version": course.version if now_done else pinned.version if pinned else None,
        "new_lessons": [{"id": lesson.id, "title": lesson.title} for lesson in left] if pinned else [],
        "next_lesson_id": left[0].id if left else None,
        "at": course.at,
    }


_PIN = text("""
INSERT INTO course_completion AS held (member_id, course_id, version, lessons, completed_at)
SELECT completion.member_id, course.id, course.version, count(*), max(completion.completed_at)
FROM course JOIN lesson ON lesson.course_id = course.id AND lesson.deleted_at IS NULL
JOIN completion ON completion.lesson_id = lesson.id
WHERE course.id = ANY(CAST(:courses AS uuid[]))
GROUP BY completion.member_id, course.id, course.version
HAVING count(*) = (SELECT count(*) FROM lesson AS every WHERE every.course_id = course.id AND every.deleted_at IS NULL)
ORDER BY completion.member_id, course.id
ON CONFLICT (member_id, course_id) DO UPDATE SET version = excluded.version, lessons = excluded.lessons
""")


async def pin(session: AsyncSession, *course_ids: UUID) -> None:
    """Keep who has finished these courses as they are now, before lessons come or go; the caller holds their rows."""
    await session.execute(_PIN, {"courses": list(course_ids)})
