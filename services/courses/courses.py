"""Courses: the catalogue that members browse and search."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request, Response
from sqlalchemy import Select, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import router as new_router
from kit.auth import OptionalMemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.http import cacheable, json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, Text
from services.courses.access import has_bought
from services.courses.categories import Category
from services.courses.models import Course, CourseAccess, Lesson, Level

router = new_router(prefix="/v1/courses", tags=["courses"])

Sort = Literal["new", "rating", "title"]
ORDERS: dict[Sort, tuple[Any, ...]] = {
    "new": (col(Course.id).desc(),),
    "rating": (col(Course.rating_mean).desc(), col(Course.rating_count).desc(), col(Course.id).desc()),
    "title": (col(Course.title), col(Course.id)),
}


class CourseNotFound(NotFound):
    """There is no such course; it may have been taken down."""

    zh = "没有这门课程，它可能已经下架。"


class RatingTally(Out):
    """What members think: mean score, how many rated, and the share of scores of 2 or less; null before the first."""

    mean: float | None
    count: int
    negative_rate: float | None


class LessonItem(Out):
    """A lesson in its course's list."""

    id: UUID
    title: str
    description: str
    duration_s: int
    position: int


class CourseOut(Out):
    """A course with its lessons in order."""

    id: UUID
    title: str
    description: str
    category: Category
    level: Level
    access: CourseAccess
    amount: int | None
    currency: str
    rating: RatingTally
    lessons: list[LessonItem]
    created_at: Instant
    version: int


class CourseDetail(CourseOut):
    """One course; `bought` is whether a paid one is open to the caller, null for other courses and callers."""

    bought: bool | None


def tally(total: int, count: int, negative: int) -> dict[str, Any]:
    """A course's rating as the API shows it."""
    if count == 0:
        return {"mean": None, "count": 0, "negative_rate": None}
    return {"mean": round(total / count, 2), "count": count, "negative_rate": round(negative / count, 4)}


def course_rows(*more: Any) -> Select[Any]:
    """The columns of courses that are not deleted."""
    columns = (
        Course.id,
        Course.title,
        Course.description,
        Course.category,
        Course.level,
        Course.access,
        Course.amount,
        Course.currency,
        Course.rating_sum,
        Course.rating_count,
        Course.rating_negative,
        Course.rating_mean,
        Course.created_at,
        Course.version,
        *more,
    )
    return select(*columns).where(col(Course.deleted_at).is_(None))


async def courses_out(session: AsyncSession, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows as the API shows them, with their lessons."""
    lessons: dict[UUID, list[dict[str, Any]]] = {row.id: [] for row in rows}
    statement = (
        select(
            col(Lesson.course_id),
            col(Lesson.id),
            col(Lesson.title),
            col(Lesson.description),
            col(Lesson.duration_s),
            col(Lesson.position),
        )
        .where(col(Lesson.course_id).in_(lessons), col(Lesson.deleted_at).is_(None))
        .order_by(col(Lesson.position))
    )
    for lesson in await session.execute(statement):
        item = dict(lesson._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
        lessons[item.pop("course_id")].append(item)
    found = []
    for row in rows:
        course = dict(row._mapping)  # noqa: SLF001 - as above
        course.pop("rating_mean")
        numbers = course.pop("rating_sum"), course.pop("rating_count"), course.pop("rating_negative")
        found.append(course | {"rating": tally(*numbers), "lessons": lessons[row.id]})
    return found


def finds(words: str) -> list[Any]:
    """Conditions under which a course, or a lesson of it, has every word in its title or description."""
    return [
        or_(
            col(Course.title).icontains(word, autoescape=True),
            col(Course.description).icontains(word, autoescape=True),
            select(1)
            .where(
                col(Lesson.course_id) == Course.id,
                col(Lesson.deleted_at).is_(None),
                or_(
                    col(Lesson.title).icontains(word, autoescape=True),
                    col(Lesson.description).icontains(word, autoescape=True),
                ),
            )
            .exists(),
        )
        for word in words.split()[:10]
    ]


@router.get("", response_model=Page[CourseOut])
async def list_courses(  # noqa: PLR0913, PLR0917 - filters, by name
    request: Request,
    session: SessionDep,
    page: PageDep,
    category: Category | None = None,
    level: Level | None = None,
    access: CourseAccess | None = None,
    q: Annotated[Text(0, 100), Query(description="words; all of them must be found")] = "",  # type: ignore[valid-type]
    sort: Sort = "new",
) -> Response:
    """The courses on show; `q` looks into titles and descriptions of courses and their lessons."""
    statement = course_rows().where(col(Course.published), *finds(q))
    for column, wanted in ((Course.category, category), (Course.level, level), (Course.access, access)):
        if wanted is not None:
            statement = statement.where(col(column) == wanted)
    rows, next_cursor = await keyset(session, statement, page, ORDERS[sort])
    return cacheable(request, {"items": await courses_out(session, rows), "next_cursor": next_cursor}, max_age_s=10)


@router.get("/{course_id}", response_model=CourseDetail, responses=problems(CourseNotFound))
async def read_course(course_id: UUID, caller: OptionalMemberDep, request: Request, session: SessionDep) -> Response:
    """One course with its lessons in order; a paid one says whether the caller has `bought` it."""
    rows = (await session.execute(course_rows(Course.published).where(col(Course.id) == course_id))).all()
    if not rows:
        raise CourseNotFound
    [course] = await courses_out(session, rows)
    published = course.pop("published")
    if published and (caller is None or course["access"] != "paid"):
        answer = cacheable(request, course | {"bought": None}, max_age_s=10)
        answer.headers["Vary"] = "Accept-Language, Authorization"
        return answer
    bought = caller is not None and await has_bought(session, caller.id, course_id)
    # Whoever bought a course keeps it when it is not shown any more.
    if not (published or bought):
        raise CourseNotFound
    return json_response(course | {"bought": bought}, headers={"Cache-Control": "private, no-store"})
