"""Attendance: heartbeats tell when a member was there, each second counts once, and only within the lesson."""

import csv
import io
from datetime import datetime
from typing import Annotated, Final, Self
from uuid import UUID

from fastapi import Query, Response
from pydantic import Field, model_validator
from sqlalchemy import text

from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, Unprocessable, problems
from kit.shapes import In, Instant, Out
from kit.wording import Wrong
from services.courses.admin_courses import READER
from services.courses.live import LiveLessonNotFound
from services.courses.models import LiveLesson
from services.courses.ways import AccessRequired, ShownLiveLesson, require_entry

router = new_router(prefix="/v1/live-lessons/{lesson_id}/heartbeats", tags=["live lessons"], idempotent=False)
admin_router = new_router(prefix="/v1/admin/live-lessons/{lesson_id}/attendance.csv", tags=["admin live lessons"])

PRESENT_PERCENT: Final = 60
BOM: Final = "\ufeff"
BomQuery = Annotated[bool, Query(description="begin with a byte order mark, by which Excel knows UTF-8")]


class AttendanceNotTaken(Conflict):
    """Attendance is taken once the lesson is live, and not of a canceled one."""

    zh = "直播开始后才记录出勤，已取消的课程不记录。"


class HeartbeatInFuture(Unprocessable):
    """A heartbeat tells of time that is over; its `to` lies in the future."""

    zh = "心跳只能上报已经过去的时间，to 不能晚于现在。"
    loc = ("body", "to")


class HeartbeatIn(In):
    """From when to when the player ran since it last told; it may come late."""

    since: Instant = Field(alias="from")
    until: Instant = Field(alias="to")

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.until < self.since:
            raise Wrong("`to` must not lie before `from`", "to 不能早于 from")
        return self


class AttendanceOut(Out):
    """How many seconds of the lesson the caller was there, and whether that makes them present."""

    attended_s: int
    present: bool


_SECONDS: Final = (
    "(SELECT coalesce(sum(extract(epoch FROM upper(part) - lower(part))), 0) FROM unnest("
    "attendance.spans * tstzmultirange(tstzrange(CAST({starts} AS timestamptz), CAST({ends} AS timestamptz)))) AS part)"
)
# The update waits for whoever writes the same row, and adds to what they wrote: no second is lost.
_ADD: Final = text(
    "INSERT INTO attendance (lesson_id, member_id, spans) VALUES (:lesson_id, :member_id, "  # noqa: S608 - constants
    "tstzmultirange(tstzrange(CAST(:since AS timestamptz), CAST(:until AS timestamptz)))) "
    "ON CONFLICT (lesson_id, member_id) DO UPDATE SET spans = attendance.spans + excluded.spans "
    "RETURNING " + _SECONDS.format(starts=":starts", ends=":ends")
)
_SHEET: Final = text(
    "SELECT who.member_id, person.nickname, "  # noqa: S608 - constants
    "coalesce(" + _SECONDS.format(starts=":starts", ends=":ends") + ", 0) AS seconds "
    "FROM (SELECT member_id FROM enrolment WHERE lesson_id = :id AND status = 'enrolled' "
    "UNION SELECT member_id FROM attendance WHERE lesson_id = :id) AS who "
    "LEFT JOIN attendance ON attendance.lesson_id = :id AND attendance.member_id = who.member_id "
    "LEFT JOIN person ON person.member_id = who.member_id ORDER BY who.member_id"
)


def _judged(lesson: LiveLesson, seconds: float) -> AttendanceOut:
    duration = (lesson.ends_at - lesson.starts_at).total_seconds()
    return AttendanceOut(attended_s=int(seconds), present=float(seconds) * 100 >= duration * PRESENT_PERCENT)


@router.post("", responses=problems(LiveLessonNotFound, AccessRequired, AttendanceNotTaken, HeartbeatInFuture))
async def send_heartbeat(
    caller: MemberDep, body: HeartbeatIn, lesson: ShownLiveLesson, session: SessionDep, runtime: RuntimeDep
) -> AttendanceOut:
    """Tell when the caller was there; what lies outside the lesson is cut off, what was told before counts once."""
    # It may come when the card that opened the lesson has run out.
    await require_entry(session, lesson, caller.id, runtime.settings, min(body.until, clock.now()))
    if lesson.status not in {"live", "paused", "ended", "replay_ready"}:
        raise AttendanceNotTaken
    if body.until > clock.now():
        raise HeartbeatInFuture
    since, until = max(body.since, lesson.starts_at), min(body.until, lesson.ends_at)
    values: dict[str, UUID | datetime] = {"lesson_id": lesson.id, "member_id": caller.id, "since": since}
    values |= {"until": max(since, until), "starts": lesson.starts_at, "ends": lesson.ends_at}
    return _judged(lesson, (await session.execute(_ADD, values)).scalar_one())


@admin_router.get(
    "",
    dependencies=READER,
    response_class=Response,
    responses=problems(LiveLessonNotFound)
    | {200: {"content": {"text/csv": {}}, "description": "`member_id,nickname,attended_s,present`"}},
)
async def download_attendance(lesson_id: UUID, session: SessionDep, bom: BomQuery = False) -> Response:  # noqa: FBT002
    """Who was there for how long, of everyone enrolled or seen; present from 60 % of the lesson."""
    lesson = await session.get(LiveLesson, lesson_id)
    if lesson is None or lesson.deleted_at is not None:
        raise LiveLessonNotFound
    values = {"id": lesson.id, "starts": lesson.starts_at, "ends": lesson.ends_at}
    lines = io.StringIO()
    sheet = csv.writer(lines, lineterminator="\r\n")
    sheet.writerow(["member_id", "nickname", "attended_s", "present"])
    for row in await session.execute(_SHEET, values):
        judged = _judged(lesson, row.seconds)
        sheet.writerow([row.member_id, _plain(row.nickname or ""), judged.attended_s, str(judged.present).lower()])
    name = f"attendance-{lesson.id}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    return Response(BOM * bom + lines.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _plain(nickname: str) -> str:
    """A name that a spreadsheet does not take for a formula."""
    return f"'{nickname}" if nickname.startswith(("=", "+", "-", "@", "\t", "\r")) else nickname
