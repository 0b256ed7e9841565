"""The next live lesson: the one to count down to, on the calendar and on the caller's own list."""

from typing import Any
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import Select, exists
from sqlmodel import col

from kit import clock
from kit.app import json_response
from kit.app import router as new_router
from kit.auth import OptionalMemberDep
from kit.db import SessionDep
from kit.shapes import Out
from services.courses.live import ORDER, LiveLessonOut, live_out, live_rows, still_to_come
from services.courses.live_clock import with_clock
from services.courses.models import Enrolment, LiveLesson

router = new_router(prefix="/v1/live-lessons/next", tags=["live lessons"])


class NextLessonOut(Out):
    """The next lesson, or the one that runs now; `mine` is the next in which the caller has a seat."""

    next: LiveLessonOut | None
    mine: LiveLessonOut | None


def _coming(member_id: UUID | None) -> Select[Any]:
    shown = live_rows().where(still_to_come())
    if member_id is not None:
        seat = exists().where(
            col(Enrolment.lesson_id) == col(LiveLesson.id),
            col(Enrolment.member_id) == member_id,
            col(Enrolment.status) == "enrolled",
        )
        shown = shown.where(seat)
    return shown.order_by(*ORDER).limit(1)


@router.get("", response_model=NextLessonOut)
async def read_next_lesson(request: Request, caller: OptionalMemberDep, session: SessionDep) -> Response:
    """The live lesson to count down to, with the server's clock; null where there is none."""
    row = (await session.execute(_coming(None))).one_or_none()
    mine = (await session.execute(_coming(caller.id))).one_or_none() if caller else None
    now = clock.now()
    body = {"next": live_out(row, now) if row else None, "mine": live_out(mine, now) if mine else None}
    if caller:
        return json_response(body, headers={"Cache-Control": "private, no-store"})
    return with_clock(request, body, now)
