"""Check-ins: one a business day; a streak of days makes each worth more, up to seven points."""

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator
from sqlalchemy import func, literal, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, problems
from kit.shapes import Out
from kit.wording import Wrong
from services.members.members import MemberNotFound
from services.members.models import CheckIn
from services.members.points import factor, give_points
from services.members.profile import lock_member

api = router(prefix="/v1/me/check-ins", tags=["members"])

MOST_POINTS = 7

# Days in a row are days in a row, whichever account was there; a run is the days whose distance to their number is one.
STREAKS: Final = text("""
UPDATE check_in SET streak = counted.streak
FROM (
    SELECT day, row_number() OVER (PARTITION BY run ORDER BY day) AS streak
    FROM (
        SELECT day, day - CAST(row_number() OVER (ORDER BY day) AS int) AS run FROM check_in WHERE member_id = :member
    ) runs
) counted
WHERE check_in.member_id = :member AND check_in.day = counted.day AND check_in.streak <> counted.streak
""")


class AlreadyCheckedIn(Conflict):
    """You have checked in today; come back tomorrow."""

    zh = "今天已经签到过了，明天再来吧。"


class CheckInOut(Out):
    """A day, how many days in a row it makes, and its points."""

    day: date
    streak: int
    points: int


class MonthOut(Out):
    """The check-ins of a month, and the streak that is alive now."""

    items: list[CheckInOut]
    streak: int


MONTH: Final = r"^(?:19|2[0-9])[0-9]{2}-(?:0[1-9]|1[0-2])$"


def _read_month(value: str) -> str:
    # Years as PostgreSQL's and Python's dates know them, with room for the day after the month.
    if not re.fullmatch(MONTH, value):
        raise Wrong("a month is YYYY-MM", "月份应写成 YYYY-MM")
    return value


Month = Annotated[
    str, AfterValidator(_read_month), Query(examples=["2026-11"], json_schema_extra={"maxLength": 7, "pattern": MONTH})
]


async def _insert(session: AsyncSession, member_id: UUID, day: date, now: datetime, times: int) -> CheckInOut | None:
    """Today's row, computed from yesterday's in the same statement; None when today is there already."""
    yesterday = (
        select(col(CheckIn.streak))
        .where(col(CheckIn.member_id) == member_id, col(CheckIn.day) == day - timedelta(days=1))
        .scalar_subquery()
    )
    streak = func.coalesce(yesterday, 0) + 1
    row = select(literal(member_id), literal(day), streak, func.least(streak, MOST_POINTS) * times, literal(now))
    statement = (
        insert(CheckIn)
        .from_select(["member_id", "day", "streak", "points", "at"], row)
        .on_conflict_do_nothing()
        .returning(col(CheckIn.day), col(CheckIn.streak), col(CheckIn.points))
    )
    made = (await session.execute(statement)).one_or_none()
    return None if made is None else CheckInOut(day=made.day, streak=made.streak, points=made.points)


@api.post("", status_code=201, responses=problems(AlreadyCheckedIn, MemberNotFound))
async def check_in(caller: MemberDep, session: SessionDep) -> CheckInOut:
    """Check in for today: 1 to 7 points by the streak, doubled for the black card."""
    if await lock_member(session, caller.id) is None:
        raise MemberNotFound
    now = clock.now()
    day = now.astimezone(clock.ZONE).date()
    made = await _insert(session, caller.id, day, now, await factor(session, caller.id, now))
    if made is None:
        raise AlreadyCheckedIn
    await give_points(session, caller.id, made.points, "check_in", day.isoformat(), now)
    return made


@api.get("")
async def read_check_ins(caller: MemberDep, session: SessionDep, month: Month | None = None) -> MonthOut:
    """The caller's check-ins of a month (this one unless named) and the streak that is alive now."""
    today = clock.today()
    first = date.fromisoformat(f"{month}-01") if month else today.replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    mine = select(CheckIn).where(col(CheckIn.member_id) == caller.id)
    within = mine.where(col(CheckIn.day) >= first, col(CheckIn.day) < following).order_by(col(CheckIn.day))
    items = [CheckInOut.model_validate(row) for row in (await session.execute(within)).scalars()]
    # A streak is alive until a whole day has passed without a check-in.
    alive = mine.where(col(CheckIn.day) >= today - timedelta(days=1)).order_by(col(CheckIn.day).desc()).limit(1)
    last = (await session.execute(alive)).scalar_one_or_none()
    return MonthOut(items=items, streak=last.streak if last else 0)
