"""Live lessons: what is taught when, and whether there is a seat."""

import re
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BeforeValidator
from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlmodel import col

from kit import clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import DAY, Count, Fen, Instant, Out, StrictIn
from kit.wording import Wrong
from services.courses.live_clock import with_clock
from services.courses.models import LiveLesson, LiveStatus

router = new_router(prefix="/v1/live-lessons", tags=["live lessons"])


class LiveLessonNotFound(NotFound):
    """There is no such live lesson; it may have been taken off the calendar."""

    zh = "没有这节直播课，它可能已从日程中移除。"


class Way(StrictIn):
    """One way into a live lesson; `needed` is how many arrivals or points it takes, `amount` what a purchase costs."""

    kind: Literal["free", "membership", "purchase", "points", "invites"]
    needed: Count | None = None
    amount: Fen | None = None


class LiveLessonOut(Out):
    """A live lesson; `capacity` null means that everyone finds room, `server_time` is the clock it is judged by."""

    id: UUID
    title: str
    description: str
    instructor: str | None
    instructor_id: UUID | None
    starts_at: Instant
    ends_at: Instant
    zone: str
    capacity: int | None
    priority_seats: int
    enrolled: int
    status: LiveStatus
    access: list[Way]
    version: int
    server_time: Instant


def live_rows() -> Select[Any]:
    """The columns of live lessons that are not deleted."""
    fields = (
        LiveLesson.id,
        LiveLesson.title,
        LiveLesson.description,
        LiveLesson.instructor,
        LiveLesson.instructor_id,
        LiveLesson.starts_at,
        LiveLesson.ends_at,
        LiveLesson.zone,
        LiveLesson.capacity,
        LiveLesson.priority_seats,
        LiveLesson.enrolled,
        LiveLesson.status,
        LiveLesson.access,
        LiveLesson.version,
    )
    columns: list[Any] = [col(field) for field in fields]
    return select(*columns).where(col(LiveLesson.deleted_at).is_(None))


def live_out(row: Any, now: datetime | None = None) -> dict[str, Any]:
    """A row as the API shows it."""
    return dict(row._mapping) | {"server_time": now or clock.now()}  # noqa: SLF001 - SQLAlchemy's public name for this


def _midnight(value: object, *, after: bool) -> object:
    """A calendar day of the business zone as the instant at which it begins, or ends."""
    try:
        day = date.fromisoformat(value) if isinstance(value, str) and re.fullmatch(DAY, value) else None
        if day is not None:
            return datetime.combine(day + timedelta(days=after), time(), clock.ZONE)
    except (ValueError, OverflowError) as failure:
        raise Wrong("must be a day or an instant", "应为日期或时间") from failure
    return value


Since = Annotated[Instant, BeforeValidator(lambda value: _midnight(value, after=False))]
Until = Annotated[Instant, BeforeValidator(lambda value: _midnight(value, after=True))]


def within(
    statement: Select[Any], status: list[LiveStatus] | None, since: datetime | None, until: datetime | None
) -> Any:
    """Only lessons of one of these statuses that start in `[since, until)`."""
    if status:
        statement = statement.where(col(LiveLesson.status).in_(status))
    if since is not None:
        statement = statement.where(col(LiveLesson.starts_at) >= since)
    if until is not None:
        statement = statement.where(col(LiveLesson.starts_at) < until)
    return statement


def still_to_come() -> ColumnElement[bool]:
    """What is on now, or has not begun and is not past its planned end: one that nobody began is not waited for."""
    status = col(LiveLesson.status)
    return or_(status.in_(("live", "paused")), and_(status == "scheduled", col(LiveLesson.ends_at) > clock.now()))


ORDER = (col(LiveLesson.starts_at), col(LiveLesson.id))
StatusQuery = Annotated[
    list[LiveStatus] | None, Query(max_length=7, description="of this status; repeat it for several")
]
SinceQuery = Annotated[Since | None, Query(alias="from", description="instant or day from which lessons start")]
UntilQuery = Annotated[Until | None, Query(alias="to", description="instant before which, or last day on which")]


ComingQuery = Annotated[
    bool, Query(description="only what is on now or still to come, not what nobody began until its planned end")
]


@router.get("", response_model=Page[LiveLessonOut])
async def list_live_lessons(
    request: Request,
    session: SessionDep,
    page: PageDep,
    status: StatusQuery = None,
    since: SinceQuery = None,
    until: UntilQuery = None,
    coming: ComingQuery = False,  # noqa: FBT002 - a query parameter
) -> Response:
    """The calendar, the earliest first; `from` and `to` are instants, or inclusive days of the business zone."""
    statement = within(live_rows().where(col(LiveLesson.status) != "draft"), status, since, until)
    if coming:
        statement = statement.where(still_to_come())
    rows, next_cursor = await keyset(session, statement, page, ORDER)
    now = clock.now()
    return with_clock(request, {"items": [live_out(row, now) for row in rows], "next_cursor": next_cursor}, now)


@router.get("/{lesson_id}", response_model=LiveLessonOut, responses=problems(LiveLessonNotFound))
async def read_live_lesson(lesson_id: UUID, request: Request, session: SessionDep) -> Response:
    """One live lesson, with the server's clock to count down by."""
    shown = live_rows().where(col(LiveLesson.id) == lesson_id, col(LiveLesson.status) != "draft")
    row = (await session.execute(shown)).one_or_none()
    if row is None:
        raise LiveLessonNotFound
    now = clock.now()
    return with_clock(request, live_out(row, now), now)
