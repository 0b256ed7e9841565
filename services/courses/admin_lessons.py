"""Lessons as admins edit them: their place in a course, their length, their recording."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import StaleVersion, problems
from kit.http import require_version, version_tag
from kit.patch import Patch
from kit.shapes import Out, StrictIn
from services.courses.admin_courses import EDITOR, READER, Description, HeldCourse, Title, held_course, touch
from services.courses.courses import CourseNotFound
from services.courses.learning import pin
from services.courses.lessons import LessonNotFound
from services.courses.models import Course, Lesson

router = new_router(prefix="/v1/admin", tags=["admin courses"])

Duration = Annotated[int, Field(strict=True, ge=1, le=86_400)]
Position = Annotated[int, Field(strict=True, ge=1, le=10_000)]
# A plain file name: nothing in it can leave the media folder.
Media = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]


class LessonIn(StrictIn):
    """A new lesson; without a position it comes last, `media` names a file of the media folder."""

    title: Title
    description: Description = ""
    duration_s: Duration
    position: Position | None = None
    media: Media | None = None


class LessonPatch(Patch):
    """What to change in a lesson."""

    nullable = frozenset({"media"})

    title: Title | None = None
    description: Description | None = None
    duration_s: Duration | None = None
    position: Position | None = None
    media: Media | None = None


class LessonEdit(Out):
    """A lesson as its editors see it."""

    id: UUID
    course_id: UUID
    title: str
    description: str
    duration_s: int
    position: int
    media: str | None
    version: int


async def held_lesson(lesson_id: UUID, session: SessionDep) -> tuple[Lesson, Course]:
    """The lesson and its course; the course is locked, which orders all changes of its lessons."""
    found = await session.execute(
        select(col(Lesson.course_id)).where(col(Lesson.id) == lesson_id, col(Lesson.deleted_at).is_(None))
    )
    course_id = found.scalar_one_or_none()
    if course_id is None:
        raise LessonNotFound
    course = await held_course(course_id, session)
    lesson = await session.get(Lesson, lesson_id)
    if lesson is None or lesson.deleted_at is not None:
        raise LessonNotFound
    return lesson, course


HeldLesson = Annotated[tuple[Lesson, Course], Depends(held_lesson, scope="function")]


async def _place(session: AsyncSession, course: Course, lesson: Lesson | None, position: int | None) -> None:
    """Number the course's lessons from 1, with this one at `position` or last."""
    statement = select(Lesson).where(col(Lesson.course_id) == course.id, col(Lesson.deleted_at).is_(None))
    found = await session.execute(statement.order_by(col(Lesson.position), col(Lesson.id)))
    order = [item for item in found.scalars() if item is not lesson]
    if lesson is not None:
        order.insert(len(order) if position is None else position - 1, lesson)
    for number, item in enumerate(order, 1):
        item.position = number


def _answer(lesson: Lesson, response: Response) -> LessonEdit:
    response.headers["ETag"] = version_tag(lesson.version)
    return LessonEdit.model_validate(lesson)


@router.post("/courses/{course_id}/lessons", dependencies=EDITOR, status_code=201, responses=problems(CourseNotFound))
async def create_lesson(body: LessonIn, course: HeldCourse, session: SessionDep, response: Response) -> LessonEdit:
    """Add a lesson to a course; those after its position move on by one."""
    await pin(session, course.id)
    now = clock.now()
    fields = body.model_dump(exclude={"position"})
    lesson = Lesson(**fields, course_id=course.id, position=0, created_at=now, updated_at=now)
    await _place(session, course, lesson, body.position)
    session.add(lesson)
    touch(course)
    await session.flush()
    await audit.record(session, "lesson.created", lesson.id, after=lesson.model_dump())
    response.headers["Location"] = f"/v1/admin/lessons/{lesson.id}"
    return _answer(lesson, response)


@router.get("/lessons/{lesson_id}", dependencies=READER, responses=problems(LessonNotFound))
async def read_lesson_to_edit(lesson_id: UUID, session: SessionDep, response: Response) -> LessonEdit:
    """One lesson, with the ETag that a change names in If-Match."""
    lesson = await session.get(Lesson, lesson_id)
    if lesson is None or lesson.deleted_at is not None:
        raise LessonNotFound
    return _answer(lesson, response)


@router.patch("/lessons/{lesson_id}", dependencies=EDITOR, responses=problems(LessonNotFound, StaleVersion))
async def change_lesson(
    body: LessonPatch, held: HeldLesson, session: SessionDep, request: Request, response: Response
) -> LessonEdit:
    """Change a lesson; whoever completed it has completed it, also when it grows longer."""
    lesson, course = held
    require_version(request, lesson.version)
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    position = changes.pop("position", None)
    before = lesson.model_dump()
    lesson.sqlmodel_update(changes)
    if position is not None:
        await _place(session, course, lesson, position)
    lesson.version += 1
    lesson.updated_at = clock.now()
    touch(course)
    await session.flush()
    await audit.record(session, "lesson.changed", lesson.id, before=before, after=lesson.model_dump())
    return _answer(lesson, response)


@router.delete(
    "/lessons/{lesson_id}", dependencies=EDITOR, status_code=204, responses=problems(LessonNotFound, StaleVersion)
)
async def delete_lesson(held: HeldLesson, session: SessionDep, request: Request) -> None:
    """Take a lesson out of its course; what members learned in it stays theirs."""
    lesson, course = held
    require_version(request, lesson.version)
    await pin(session, course.id)
    await audit.record(session, "lesson.deleted", lesson.id, before=lesson.model_dump())
    lesson.deleted_at = clock.now()
    lesson.version += 1
    await session.flush()
    await _place(session, course, None, None)
    touch(course)
