"""Courses: the catalogue that members browse and search."""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal
from uuid import UUID
from weakref import WeakKeyDictionary

from fastapi import Query, Request, Response
from orjson import Fragment
from sqlalchemy import Select, Subquery, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import router as new_router
from kit.auth import OptionalMemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.http import cacheable, json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, Text
from kit.text import dump_json
from services.courses.access import has_bought
from services.courses.catalogue_models import Instructor
from services.courses.categories import Category
from services.courses.models import Course, CourseAccess, Lesson, Level
from services.courses.search import matches

router = new_router(prefix="/v1/courses", tags=["courses"])

# Plain columns: what reads them needs no entities.
_course, _lesson = Course.__table__.c, Lesson.__table__.c  # type: ignore[attr-defined]
_instructor = Instructor.__table__.c  # type: ignore[attr-defined]

Sort = Literal["relevance", "new", "rating", "title"]
ORDERS: dict[Sort, tuple[Any, ...]] = {
    # Without a question, nothing is more relevant than the newest.
    "relevance": (_course.id.desc(),),
    "new": (_course.id.desc(),),
    "rating": (_course.rating_mean.desc(), _course.rating_count.desc(), _course.id.desc()),
    "title": (_course.title, _course.id),
}


class CourseNotFound(NotFound):
    """There is no such course; it may have been taken down."""

    zh = "没有这门课程，它可能已经下架。"


class RatingTally(Out):
    """What members think: mean score, how many rated, the shares of scores of 4 or more and 2 or less; null before the first."""

    mean: float | None
    count: int
    satisfaction: float | None
    negative_rate: float | None


class CourseInstructor(Out):
    """Who teaches a course."""

    id: UUID
    name: str
    title: str
    avatar_url: str | None
    verified: bool


class SeriesPlace(Out):
    """A series on show that a course stands in, and its place there."""

    id: UUID
    title: str
    position: int


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
    instructor: CourseInstructor | None
    rating: RatingTally
    lessons: list[LessonItem]
    created_at: Instant
    version: int


class CourseDetail(CourseOut):
    """One course; `bought` is whether a paid one is open to the caller, null for other courses and callers."""

    bought: bool | None
    series: list[SeriesPlace]


def tally(total: int, count: int, negative: int, positive: int) -> dict[str, Any]:
    """A course's rating as the API shows it."""
    if count == 0:
        return {"mean": None, "count": 0, "satisfaction": None, "negative_rate": None}
    rates = {"satisfaction": round(positive / count, 4), "negative_rate": round(negative / count, 4)}
    return {"mean": round(total / count, 2), "count": count} | rates


_WITH_INSTRUCTOR = Course.__table__.outerjoin(  # type: ignore[attr-defined]
    Instructor.__table__,  # type: ignore[attr-defined]
    _instructor.id == _course.instructor_id,
)


@cache
def course_rows(*more: Any) -> Select[Any]:
    """The columns of courses that are not deleted; composed once, as that takes longer than reading some."""
    columns = (
        _course.id,
        _course.title,
        _course.description,
        _course.category,
        _course.level,
        _course.access,
        _course.amount,
        _course.currency,
        _course.rating_sum,
        _course.rating_count,
        _course.rating_negative,
        _course.rating_positive,
        _course.rating_mean,
        _course.created_at,
        _course.version,
        _instructor.id.label("instructor_id"),
        _instructor.name.label("instructor_name"),
        _instructor.title.label("instructor_title"),
        _instructor.avatar_url.label("instructor_avatar_url"),
        _instructor.verified_at.label("instructor_verified_at"),
        *more,
    )
    return select(*columns).select_from(_WITH_INSTRUCTOR).where(_course.deleted_at.is_(None))


async def courses_out(session: AsyncSession, rows: Sequence[Any], *, edited: bool = False) -> list[dict[str, Any]]:
    """The rows as the API shows them, with their lessons; `edited` rows may never be committed, so nothing is kept of them."""
    lessons: dict[UUID, Any] = await (_lessons_of(session, rows) if edited else _kept_lessons_of(session, rows))
    found = []
    for row in rows:
        course = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
        course.pop("rating_mean")
        course.pop("rank", None)
        rating = tally(*(course.pop(f"rating_{name}") for name in ("sum", "count", "negative", "positive")))
        shown = {"rating": rating, "instructor": _instructor_of(course), "lessons": lessons[row.id]}
        found.append(course | shown)
    return found


def _instructor_of(course: dict[str, Any]) -> dict[str, Any] | None:
    taken = {name: course.pop(f"instructor_{name}") for name in ("id", "name", "title", "avatar_url", "verified_at")}
    return taken | {"verified": taken.pop("verified_at") is not None} if taken["id"] else None


async def _lessons_of(session: AsyncSession, rows: Sequence[Any]) -> dict[UUID, list[dict[str, Any]]]:
    lessons: dict[UUID, list[dict[str, Any]]] = {row.id: [] for row in rows}
    columns = (_lesson.course_id, _lesson.id, _lesson.title, _lesson.description, _lesson.duration_s, _lesson.position)
    statement = select(*columns).where(_lesson.course_id.in_(lessons), _lesson.deleted_at.is_(None))
    for lesson in await session.execute(statement.order_by(_lesson.position)):
        item = dict(lesson._mapping)  # noqa: SLF001 - as above
        lessons[item.pop("course_id")].append(item)
    return lessons


# A course's lessons never change without its version; written out once, they are most of what an answer costs.
_kept: WeakKeyDictionary[Any, dict[tuple[UUID, int], Fragment]] = WeakKeyDictionary()
MAX_KEPT = 2000


async def _kept_lessons_of(session: AsyncSession, rows: Sequence[Any]) -> dict[UUID, Fragment]:
    kept = _kept.setdefault(session.bind, {})
    missing = [row for row in rows if (row.id, row.version) not in kept]
    if missing:
        lessons = await _lessons_of(session, missing)
        while len(kept) > MAX_KEPT:
            del kept[next(iter(kept))]
        kept |= {(row.id, row.version): Fragment(dump_json(lessons[row.id])) for row in missing}
    return {row.id: kept[row.id, row.version] for row in rows}


Question = Annotated[Text(0, 100), Query(description="words; all of them must be found")]  # type: ignore[valid-type]


def searched(courses: Select[Any], found: Subquery | None) -> Select[Any]:
    """Those of the courses that were found, with their `rank`; all of them when nothing was asked."""
    if found is None:
        return courses
    return courses.add_columns(found.c.rank).join(found, found.c.course_id == _course.id)


@router.get("", response_model=Page[CourseOut])
async def list_courses(  # noqa: PLR0913, PLR0917 - filters, by name
    request: Request,
    session: SessionDep,
    page: PageDep,
    category: Category | None = None,
    level: Level | None = None,
    access: CourseAccess | None = None,
    instructor_id: UUID | None = None,
    q: Question = "",  # type: ignore[valid-type]
    sort: Sort | None = None,
) -> Response:
    """The courses on show; `q` looks into titles and descriptions of courses and their lessons, the best come first."""
    found = await matches(session, q)
    statement, order = searched(course_rows().where(_course.published), found), ORDERS[sort or "new"]
    if found is not None and sort in {None, "relevance"}:
        order = (found.c.rank.desc(), _course.id.desc())
    for column, wanted in (
        (_course.category, category),
        (_course.level, level),
        (_course.access, access),
        (_course.instructor_id, instructor_id),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    rows, next_cursor = await keyset(session, statement, page, order)
    return cacheable(request, {"items": await courses_out(session, rows), "next_cursor": next_cursor}, max_age_s=10)


_SERIES = text("""
SELECT series.id, series.title, (
    SELECT count(*) FROM series_course AS before JOIN course ON course.id = before.course_id
    WHERE before.series_id = series.id AND before.position <= mine.position
    AND course.published AND course.deleted_at IS NULL
) AS position
FROM series_course AS mine JOIN series ON series.id = mine.series_id
WHERE mine.course_id = :id AND series.published AND series.deleted_at IS NULL ORDER BY series.id
""")


@router.get("/{course_id}", response_model=CourseDetail, responses=problems(CourseNotFound))
async def read_course(course_id: UUID, caller: OptionalMemberDep, request: Request, session: SessionDep) -> Response:
    """One course with its lessons in order; a paid one says whether the caller has `bought` it."""
    rows = (await session.execute(course_rows(_course.published).where(_course.id == course_id))).all()
    if not rows:
        raise CourseNotFound
    [course] = await courses_out(session, rows)
    published = course.pop("published")
    course["series"] = [dict(place._mapping) for place in await session.execute(_SERIES, {"id": course_id})]  # noqa: SLF001
    if published and (caller is None or course["access"] != "paid"):
        answer = cacheable(request, course | {"bought": None}, max_age_s=10)
        answer.headers["Vary"] = "Accept-Language, Authorization"
        return answer
    bought = caller is not None and await has_bought(session, caller.id, course_id)
    # Whoever bought a course keeps it when it is not shown any more.
    if not (published or bought):
        raise CourseNotFound
    return json_response(course | {"bought": bought}, headers={"Cache-Control": "private, no-store"})
