"""The sandbox's own inside: moving the clock and doing what has become due, for the gateway to call; never in production."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy import text

from kit import clock
from kit.due import next_due, run_due
from kit.shapes import Instant, Out, StrictIn

if TYPE_CHECKING:
    from kit.app import Runtime

QUIET_S = 20.0
AT_A_TIME_S = 10.0
"""Work that takes longer is answered for in parts, so that whoever waits for it sees that it gets on."""
_LAST = "settled last"

router = APIRouter(prefix="/internal", include_in_schema=False)

_READ = text("SELECT offset_s FROM sandbox_clock WHERE id = 1")
_WRITE = text(
    "INSERT INTO sandbox_clock (id, offset_s) VALUES (1, :offset_s) "
    "ON CONFLICT (id) DO UPDATE SET offset_s = greatest(sandbox_clock.offset_s, excluded.offset_s) RETURNING offset_s"
)


class ClockIn(StrictIn):
    """How far the clock is to be ahead of real time, in seconds."""

    offset_s: Annotated[float, Field(ge=0, lt=4e9)]


class ClockOut(Out):
    """How far the clock is ahead of real time, in seconds."""

    offset_s: float


class SettleIn(StrictIn):
    """Which walk of the clock this round of settling belongs to, and whether it is at its end."""

    walk: Annotated[str, Field(max_length=64)]
    last: Annotated[bool, Field(strict=True)]


class SettleOut(Out):
    """How much was done; once that is 0, `next_at` is when there will be something to do again."""

    done: int
    next_at: Instant | None = None


async def restore_clock(runtime: "Runtime") -> None:
    """Take up the offset that this service's database remembers."""
    async with runtime.db.session() as session:
        kept = (await session.execute(_READ)).scalar_one_or_none()
    if kept is not None and timedelta(seconds=kept) > clock.offset():
        clock.set_offset(timedelta(seconds=kept))


@router.get("/clock")
async def read_clock() -> ClockOut:
    """The offset of this process."""
    return ClockOut(offset_s=clock.offset().total_seconds())


@router.post("/clock")
async def move_clock(wanted: ClockIn, request: Request) -> ClockOut:
    """Move the clock forward to this offset; a smaller one changes nothing."""
    runtime: Runtime = request.app.state.runtime
    async with runtime.db.session() as session, session.begin():
        kept = (await session.execute(_WRITE, {"offset_s": wanted.offset_s})).scalar_one()
    if timedelta(seconds=kept) > clock.offset():
        clock.set_offset(timedelta(seconds=kept))
    return ClockOut(offset_s=clock.offset().total_seconds())


@dataclass(frozen=True, slots=True)
class _Settled:
    """How a service was left: when by the clock, after how much; `quiet` if it had nothing more to do, until `next_at`."""

    walk: str | None = None
    offset: timedelta = timedelta(0)
    activity: int = 0
    quiet: bool = False
    next_at: datetime | None = None

    def still(self, wanted: SettleIn | None, activity: int) -> bool:
        """Whether it has nothing to do here either, so that nobody need look.

        Between the stops of a walk jobs that name no moment may wait; at its end everything is done.
        """
        if wanted is None or self.walk != wanted.walk or not self.quiet or self.activity != activity:
            return False
        waits = not wanted.last and (self.next_at is None or self.next_at > clock.now())
        return waits or self.offset == clock.offset()


@router.post("/settle")
async def settle(request: Request, wanted: SettleIn | None = None) -> SettleOut:
    """Do what is due, tell what was told, and handle what was heard; how much that was since the last time.

    What the background did in between counts, because it may have given others something to do.
    """
    runtime: Runtime = request.app.state.runtime
    last: _Settled = runtime.state.get(_LAST, _Settled())
    await _hear(runtime)
    if last.still(wanted, _activity(runtime)):
        return SettleOut(done=0, next_at=last.next_at)
    loop = asyncio.get_running_loop()
    until = loop.time() + AT_A_TIME_S
    rows = await run_due(runtime, runtime.due, until)
    over = not rows or loop.time() <= until
    handled = runtime.consumer.handled
    await _tell(runtime)
    await _hear(runtime)
    activity = _activity(runtime)
    # What was heard after the jobs found nothing may give them something to do.
    quiet = over and handled == runtime.consumer.handled
    next_at = await next_due(runtime, runtime.due) if quiet else None
    runtime.state[_LAST] = _Settled(wanted.walk if wanted else None, clock.offset(), activity, quiet, next_at)
    return SettleOut(done=activity - last.activity, next_at=next_at)


def _activity(runtime: "Runtime") -> int:
    return runtime.done + runtime.relay.published + runtime.consumer.handled


async def _tell(runtime: "Runtime") -> None:
    """Publish every event that was told, also those behind a transaction that has yet to end."""
    deadline = asyncio.get_running_loop().time() + QUIET_S
    while await runtime.relay.publish() or await runtime.relay.held_back():
        if asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(0.001)


async def _hear(runtime: "Runtime") -> None:
    """Wait until every event that was told to this service has been handled."""
    deadline = asyncio.get_running_loop().time() + QUIET_S
    # The lag is Redis' knowledge, there is no event to wait for.
    while await runtime.consumer.lag() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
