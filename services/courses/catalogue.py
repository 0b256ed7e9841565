"""The catalogue as rows: one lesson each, beside what its course is; written in bulk, told apart by titles."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.shapes import Out
from kit.wording import Wrong
from services.courses.admin_courses import Description, Title, touch
from services.courses.announcements import announce
from services.courses.categories import NAMES, Category
from services.courses.learning import pin
from services.courses.models import Course, CourseAccess, Lesson, Level

CHINESE = {zh: code for code, (zh, _) in NAMES.items()}
# Titles are not unique in the database, so two imports at once go one after the other.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('courses import'))")


def _code(value: object) -> object:
    return CHINESE.get(value, value) if isinstance(value, str) else value


def _number(value: object) -> object:
    if value == "":
        return None
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 10):  # noqa: PLR2004
        raise Wrong("must be a whole number in digits", "应为整数")
    return value


class Row(BaseModel):
    """One lesson, beside what its course is."""

    course: Title
    category: Annotated[Category, BeforeValidator(_code)]
    level: Level
    access: CourseAccess
    amount: Annotated[int | None, Field(ge=1, le=99_999_999), BeforeValidator(_number)]
    description: Description
    lesson: Title
    lesson_description: Description
    duration_s: Annotated[int, Field(ge=1, le=86_400), BeforeValidator(_number)]

    @field_validator("amount")
    @classmethod
    def _fits_access(cls, amount: int | None, row: ValidationInfo) -> int | None:
        if "access" in row.data and (row.data["access"] == "paid") != (amount is not None):
            raise Wrong("a paid course has an amount, and no other course has one", "付费课程要写 amount，其他课程不写")
        return amount

    def of_course(self) -> dict[str, Any]:
        """What every row of one course must agree on."""
        return self.model_dump(include={"category", "level", "access", "amount", "description"})


COLUMNS = tuple(Row.model_fields)


class ImportCount(Out):
    """How many were, or in a dry run would be, written."""

    courses: int
    lessons: int


class ImportOut(Out):
    """What the file holds and what it changed; `dry_run` changed nothing."""

    courses: int
    lessons: int
    created: ImportCount
    updated: ImportCount
    dry_run: bool


async def import_rows(session: AsyncSession, rows: Sequence[Row], *, dry_run: bool = False) -> ImportOut:
    """Write the rows in the caller's transaction: known titles are updated, new lessons come last, nothing goes."""
    await session.execute(_LOCK)
    courses = await _held_courses(session, {row.course for row in rows})
    held = await _held_lessons(session, courses.values())
    lessons = {(lesson.course_id, lesson.title): lesson for lesson in held}
    last = Counter({course.id: 0 for course in courses.values()} | {item.course_id: item.position for item in held})
    now = clock.now()
    new_courses: dict[str, Course] = {}
    new_lessons: list[Lesson] = []
    for row in rows:
        course = courses.get(row.course) or new_courses.get(row.course)
        if course is None:
            course = Course(title=row.course, **row.of_course(), published=True, created_at=now, updated_at=now)
            new_courses[row.course] = course
        words = {"description": row.lesson_description, "duration_s": row.duration_s}
        lesson = lessons.get((course.id, row.lesson))
        if lesson is None:
            last[course.id] += 1
            place = {"course_id": course.id, "title": row.lesson, "position": last[course.id]}
            new_lessons.append(Lesson(**place, **words, created_at=now, updated_at=now))
        else:
            lesson.sqlmodel_update(words)
        course.sqlmodel_update(row.of_course())
    changed = [item for item in session.dirty if session.is_modified(item)]
    changed_lessons = [item for item in changed if isinstance(item, Lesson)]
    touched = {item.course_id for item in (*new_lessons, *changed_lessons)}
    changed_courses = [item for item in courses.values() if item in changed or item.id in touched]
    if dry_run:
        session.expunge_all()
    else:
        await pin(session, *{lesson.course_id for lesson in new_lessons} & {course.id for course in courses.values()})
        for lesson in changed_lessons:
            lesson.version += 1
            lesson.updated_at = now
        for course in changed_courses:
            touch(course)
        session.add_all(new_courses.values())
        await session.flush()
        session.add_all(new_lessons)
        await session.flush()
        await announce(session, *new_courses.values(), *changed_courses)
    return ImportOut(
        courses=len(courses) + len(new_courses),
        lessons=len(rows),
        created=ImportCount(courses=len(new_courses), lessons=len(new_lessons)),
        updated=ImportCount(courses=len(changed_courses), lessons=len(changed_lessons)),
        dry_run=dry_run,
    )


async def _held_courses(session: AsyncSession, titles: Collection[str]) -> dict[str, Course]:
    """The courses by title, locked; of two with one title the older."""
    statement = select(Course).where(col(Course.title).in_(titles), col(Course.deleted_at).is_(None))
    found = await session.execute(statement.order_by(col(Course.id).desc()).with_for_update())
    return {course.title: course for course in found.scalars()}


async def _held_lessons(session: AsyncSession, courses: Collection[Course]) -> Sequence[Lesson]:
    ids = [course.id for course in courses]
    statement = select(Lesson).where(col(Lesson.course_id).in_(ids), col(Lesson.deleted_at).is_(None))
    return (await session.execute(statement.order_by(col(Lesson.position)))).scalars().all()
