"""Calendars: live lessons as iCalendar (RFC 5545), the public ones for everyone, a person's own behind a private link."""

import secrets
from datetime import timedelta
from typing import Annotated, Final

from fastapi import Query, Response
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.shapes import Out
from services.courses.models import Enrolment, LiveLesson
from services.courses.rhythm_models import CalendarFeed

router = new_router(prefix="/v1/live-lessons.ics", tags=["live lessons"])
mine_router = new_router(prefix="/v1/me/learning/calendar", tags=["live lessons"])

PAST: Final = timedelta(days=90)
MOST: Final = 500


class CalendarUnknown(NotFound):
    """This calendar link is not valid any more; make a fresh one in the app."""

    zh = "日历订阅链接已失效，请在应用内重新生成。"


class CalendarLink(Out):
    """Where a calendar app subscribes to; whoever has it sees what the caller enrolled in, and nothing else."""

    url: str


@router.get(
    "",
    response_class=Response,
    responses=problems(CalendarUnknown) | {200: {"content": {"text/calendar": {}}, "description": "A calendar."}},
)
async def read_calendar(
    session: SessionDep, runtime: RuntimeDep, token: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """The live lessons of the last three months and to come; with a `token`, those its owner is enrolled in."""
    shown = select(LiveLesson).where(
        col(LiveLesson.deleted_at).is_(None),
        col(LiveLesson.status) != "draft",
        col(LiveLesson.ends_at) > clock.now() - PAST,
    )
    if token is not None:
        owner = await session.scalar(select(col(CalendarFeed.member_id)).where(col(CalendarFeed.token) == token))
        if owner is None:
            raise CalendarUnknown
        mine = select(col(Enrolment.lesson_id)).where(
            col(Enrolment.member_id) == owner, col(Enrolment.status) == "enrolled"
        )
        shown = shown.where(col(LiveLesson.id).in_(mine))
    lessons = await session.scalars(shown.order_by(col(LiveLesson.starts_at), col(LiveLesson.id)).limit(MOST))
    # The library takes a quarter of a second to load, which no start should wait for.
    from services.courses.ical import calendar  # noqa: PLC0415

    content = calendar(list(lessons), runtime.settings.public_url.rstrip("/"))
    headers = {"Cache-Control": "no-cache" if token is None else "private, no-store"}
    return Response(content, media_type="text/calendar; charset=utf-8", headers=headers)


def _link(public_url: str, token: str) -> CalendarLink:
    return CalendarLink(url=f"{public_url.rstrip('/')}/v1/live-lessons.ics?token={token}")


@mine_router.post("", status_code=201)
async def make_calendar_link(caller: MemberDep, session: SessionDep, runtime: RuntimeDep) -> CalendarLink:
    """The caller's private calendar; asking again answers the same link."""
    token = secrets.token_urlsafe(24)
    row = insert(CalendarFeed).values(member_id=caller.id, token=token, created_at=clock.now())
    await session.execute(row.on_conflict_do_nothing(index_elements=["member_id"]))
    held = await session.get_one(CalendarFeed, caller.id)
    return _link(runtime.settings.public_url, held.token)


@mine_router.delete("", status_code=204)
async def drop_calendar_link(caller: MemberDep, session: SessionDep) -> None:
    """Make the caller's calendar link worthless, for instance after it was shared by mistake."""
    await session.execute(delete(CalendarFeed).where(col(CalendarFeed.member_id) == caller.id))
