"""The product's clock: real time plus an offset that only the sandbox may set."""

import time
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Asia/Shanghai")
"""The business zone: calendar days, streaks, vote budgets and membership months are counted in it."""

_offset = timedelta(0)


def now() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC) + _offset


def timestamp() -> float:
    """The current instant as seconds since 1970; a fifth of the time that `now().timestamp()` takes."""
    return time.time() + _offset.total_seconds()


def today() -> date:
    """The current calendar day in the business zone."""
    return now().astimezone(ZONE).date()


def offset() -> timedelta:
    """How far the product's clock is ahead of real time."""
    return _offset


def set_offset(ahead: timedelta) -> None:
    """Move the clock of this process; the callers (the sandbox and tests) decide who may."""
    global _offset  # noqa: PLW0603 - one clock a process is the point
    _offset = ahead


def set_zone(name: str) -> None:
    """Choose the business zone by its IANA name; raises ZoneInfoNotFoundError for an unknown one."""
    global ZONE  # noqa: PLW0603 - read as clock.ZONE at call time
    ZONE = ZoneInfo(name)
