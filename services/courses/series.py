"""Series: courses that belong together, in the order in which they are best taken."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import AfterValidator, Field
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import NotFound, StaleVersion, Unprocessable, problems
from kit.http import cacheable, require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.patch import Patch
from kit.shapes import Instant, Out, StrictIn
from kit.wording import Wrong
from services.courses.admin_courses import EDITOR, READER, Description, Flag, Title
from services.courses.catalogue_models import Series, SeriesCourse
from services.courses.courses import CourseOut, course_rows, courses_out
from services.courses.models import Course

router = new_router(prefix="/v1/series", tags=["courses"])
admin_router = new_router(prefix="/v1/admin/series", tags=["admin courses"])


class SeriesNotFound(NotFound):
    """There is no such series; it may have been taken down."""

    zh = "没有这个系列，它可能已经下架。"


class SeriesCourseUnknown(Unprocessable):
    """A series can only hold courses that are there: {unknown} is none."""

    zh = "系列里只能放已有的课程：{unknown} 不存在。"
    loc = ("body", "course_ids")


def _distinct(ids: list[UUID]) -> list[UUID]:
    if len(set(ids)) < len(ids):
        raise Wrong("a course stands in a series once", "同一门课在系列里只能出现一次")
    return ids


CourseIds = Annotated[list[UUID], Field(max_length=100), AfterValidator(_distinct)]


class SeriesItem(Out):
    """A series in the list; `courses` counts those on show."""

    id: UUID
    title: str
    description: str
    courses: int
    created_at: Instant


class SeriesOut(Out):
    """A series with its courses in order."""

    id: UUID
    title: str
    description: str
    courses: list[CourseOut]
    created_at: Instant


class SeriesIn(StrictIn):
    """A new series; the order of `course_ids` is the order of its courses."""

    title: Title
    description: Description = ""
    course_ids: CourseIds = Field(default_factory=list)
    published: Flag = False


class SeriesPatch(Patch):
    """What to change in a series; `course_ids` are all of its courses."""

    title: Title | None = None
    description: Description | None = None
    course_ids: CourseIds | None = None
    published: Flag | None = None


class SeriesEdit(Out):
    """A series as its editors see it."""

    id: UUID
    title: str
    description: str
    course_ids: list[UUID]
    published: bool
    version: int


async def held_series(series_id: UUID, session: SessionDep) -> Series:
    """The series, locked for this request."""
    found = await session.get(Series, series_id, with_for_update=True)
    if found is None or found.deleted_at is not None:
        raise SeriesNotFound
    return found


HeldSeries = Annotated[Series, Depends(held_series, scope="function")]

_series, _place, _course = Series.__table__.c, SeriesCourse.__table__.c, Course.__table__.c  # type: ignore[attr-defined]
_SHOWN = (_series.published, _series.deleted_at.is_(None))


@router.get("", response_model=Page[SeriesItem])
async def list_series(request: Request, session: SessionDep, page: PageDep) -> Response:
    """The series on show, the newest first."""
    shown = select(func.count()).where(
        _place.series_id == _series.id,
        _course.id == _place.course_id,
        _course.published,
        _course.deleted_at.is_(None),
    )
    columns = (_series.id, _series.title, _series.description, shown.scalar_subquery().label("courses"))
    rows, next_cursor = await keyset(
        session, select(*columns, _series.created_at).where(*_SHOWN), page, (_series.id.desc(),)
    )
    items = [dict(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    return cacheable(request, {"items": items, "next_cursor": next_cursor}, max_age_s=10)


@router.get("/{series_id}", response_model=SeriesOut, responses=problems(SeriesNotFound))
async def read_series(series_id: UUID, request: Request, session: SessionDep) -> Response:
    """One series with its courses on show."""
    columns = (_series.id, _series.title, _series.description, _series.created_at)
    row = (await session.execute(select(*columns).where(_series.id == series_id, *_SHOWN))).one_or_none()
    if row is None:
        raise SeriesNotFound
    statement = course_rows().join(SeriesCourse, _place.course_id == _course.id)
    statement = statement.where(_place.series_id == series_id, _course.published).order_by(_place.position)
    courses = await courses_out(session, (await session.execute(statement)).all())
    return cacheable(request, dict(row._mapping) | {"courses": courses}, max_age_s=10)  # noqa: SLF001 - as above


async def _answer(session: AsyncSession, series: Series, response: Response) -> SeriesEdit:
    response.headers["ETag"] = version_tag(series.version)
    [item] = await _edited(session, [series])
    return item


async def _edited(session: AsyncSession, found: list[Series]) -> list[SeriesEdit]:
    held: dict[UUID, list[UUID]] = {series.id: [] for series in found}
    statement = select(_place.series_id, _place.course_id).where(_place.series_id.in_(held))
    for row in await session.execute(statement.order_by(_place.position)):
        held[row.series_id].append(row.course_id)
    return [SeriesEdit.model_validate(series.model_dump() | {"course_ids": held[series.id]}) for series in found]


async def _place_courses(session: AsyncSession, series: Series, course_ids: list[UUID]) -> None:
    statement = select(_course.id).where(_course.id.in_(course_ids), _course.deleted_at.is_(None))
    known = set((await session.execute(statement)).scalars())
    unknown = next((course_id for course_id in course_ids if course_id not in known), None)
    if unknown is not None:
        raise SeriesCourseUnknown(unknown=unknown)
    await session.execute(delete(SeriesCourse).where(col(SeriesCourse.series_id) == series.id))
    for position, course_id in enumerate(course_ids, 1):
        session.add(SeriesCourse(series_id=series.id, course_id=course_id, position=position))
    await session.flush()


@admin_router.get("", dependencies=READER)
async def list_series_to_edit(session: SessionDep, page: PageDep) -> Page[SeriesEdit]:
    """All series, shown or not, the newest first."""
    statement = select(Series).where(_series.deleted_at.is_(None))
    rows, next_cursor = await keyset(session, statement, page, (col(Series.id).desc(),))
    return Page[SeriesEdit](items=await _edited(session, rows), next_cursor=next_cursor)


@admin_router.post("", dependencies=EDITOR, status_code=201, responses=problems(SeriesCourseUnknown))
async def create_series(body: SeriesIn, session: SessionDep, response: Response) -> SeriesEdit:
    """Put courses together; members see the series once it is published."""
    now = clock.now()
    series = Series(**body.model_dump(exclude={"course_ids"}), created_at=now, updated_at=now)
    session.add(series)
    await session.flush()
    await _place_courses(session, series, body.course_ids)
    await audit.record(session, "series.created", series.id, after=body.model_dump())
    response.headers["Location"] = f"/v1/admin/series/{series.id}"
    return await _answer(session, series, response)


@admin_router.get("/{series_id}", dependencies=READER, responses=problems(SeriesNotFound))
async def read_series_to_edit(series_id: UUID, session: SessionDep, response: Response) -> SeriesEdit:
    """One series, with the ETag that a change names in If-Match."""
    series = await session.get(Series, series_id)
    if series is None or series.deleted_at is not None:
        raise SeriesNotFound
    return await _answer(session, series, response)


@admin_router.patch(
    "/{series_id}", dependencies=EDITOR, responses=problems(SeriesNotFound, StaleVersion, SeriesCourseUnknown)
)
async def change_series(
    body: SeriesPatch, series: HeldSeries, session: SessionDep, request: Request, response: Response
) -> SeriesEdit:
    """Change a series, its courses or their order."""
    require_version(request, series.version)
    [before] = await _edited(session, [series])
    changes = body.model_dump(exclude_unset=True)
    if "course_ids" in changes:
        await _place_courses(session, series, changes.pop("course_ids"))
    series.sqlmodel_update(changes)
    series.version += 1
    series.updated_at = clock.now()
    await session.flush()
    answer = await _answer(session, series, response)
    await audit.record(session, "series.changed", series.id, before=before.model_dump(), after=answer.model_dump())
    return answer


@admin_router.delete(
    "/{series_id}", dependencies=EDITOR, status_code=204, responses=problems(SeriesNotFound, StaleVersion)
)
async def delete_series(series: HeldSeries, session: SessionDep, request: Request) -> None:
    """Take a series down; its courses stay."""
    require_version(request, series.version)
    await audit.record(session, "series.deleted", series.id, before=series.model_dump())
    series.deleted_at = clock.now()
    series.version += 1
