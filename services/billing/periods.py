"""Periods: a first and a last business day of what an admin asks to see, both included."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated

from fastapi import Depends, Query

from kit import clock
from kit.errors import Unprocessable
from kit.shapes import Day

DAY = timedelta(days=1)
EARLIEST, LATEST = date(2000, 1, 1), date(2200, 1, 1)


class BadPeriod(Unprocessable):
    """The period must not end before it starts, nor be longer than {most} days, nor outside the years 2000 to 2200."""

    zh = "时间段的结束不能早于开始，不能超过 {most} 天，且须在 2000 年至 2200 年之间。"
    loc = ("query", "to")


def day_start(day: date) -> datetime:
    """The first instant of a business day."""
    return datetime.combine(day, time(), clock.ZONE)


def day_end(day: date) -> datetime:
    """The first instant after a business day."""
    return day_start(day + DAY)


def day_of(at: datetime) -> date:
    """The business day of an instant."""
    return at.astimezone(clock.ZONE).date()


@dataclass(frozen=True, slots=True)
class Period:
    """The business days from `first` to `last`."""

    first: date
    last: date

    @property
    def starts_at(self) -> datetime:
        """Its first instant."""
        return day_start(self.first)

    @property
    def ends_at(self) -> datetime:
        """The first instant after it."""
        return day_end(self.last)

    def days(self) -> list[date]:
        """Every day of it."""
        return [self.first + DAY * step for step in range((self.last - self.first).days + 1)]

    def limited(self, most: int) -> "Period":
        """The period itself; BadPeriod when it is longer than so many days, backwards, or out of reach."""
        if not EARLIEST <= self.first <= self.last <= LATEST or (self.last - self.first).days >= most:
            raise BadPeriod(most=most)
        return self


async def asked_period(
    first: Annotated[Day | None, Query(alias="from", description="first business day; 29 days before `to`")] = None,
    last: Annotated[Day | None, Query(alias="to", description="last business day, included; today")] = None,
) -> Period:
    """The period that a request names: the last thirty days where it names none."""
    last = last or max(clock.today(), first or clock.today())
    return Period(first or max(last, EARLIEST + 29 * DAY) - 29 * DAY, last)


PeriodDep = Annotated[Period, Depends(asked_period)]
