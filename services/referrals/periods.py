"""Periods: from a first day through a last one, by the days of the business zone."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated

from fastapi import Depends, Query

from kit import clock
from kit.errors import Unprocessable
from kit.shapes import Day

MAX_DAYS = 3660
EARLIEST, LATEST = date(2000, 1, 1), date(2200, 1, 1)


class BadPeriod(Unprocessable):
    """The period must not end before it starts, nor be longer than ten years, nor outside the years 2000 to 2200."""

    zh = "时间段的结束不能早于开始，不能超过十年，且须在 2000 年至 2200 年之间。"
    loc = ("query", "to")


@dataclass(frozen=True)
class Period:
    """Half-open `[since, until)`, at midnights of the business zone."""

    since: datetime
    until: datetime


async def asked_period(
    since: Annotated[Day | None, Query(alias="from", description="first day; a month back when left out")] = None,
    until: Annotated[Day | None, Query(alias="to", description="last day; today when left out")] = None,
) -> Period:
    """The period a query asks for."""
    last = until or clock.today()
    first = since or max(EARLIEST, last) - timedelta(days=29)
    if not EARLIEST <= first <= last <= LATEST or (last - first).days > MAX_DAYS:
        raise BadPeriod
    return Period(_midnight(first), _midnight(last + timedelta(days=1)))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=clock.ZONE)


PeriodDep = Annotated[Period, Depends(asked_period, scope="function")]
