"""The sandbox's own inside: moving the clock and doing what has become due, for the gateway to call; never in production."""

import asyncio
from datetime import timedelta
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
    """Which stop of the clock this round of settling belongs to."""

    stop: Annotated[str, Field(max_length=64)] | None = None


class SettleOut(Out):
    """How much was done; 0 when all is quiet, and then `next_at` is when there will be something to do again."""

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


@router.post("/settle")
async def settle(request: Request, wanted: SettleIn | None = None) -> SettleOut:
    """Do what is due, tell what was told, and handle what was heard; how much that was since the last time.

    What the background did in between counts, because it may have given others something to do. A service that was
    quiet before at the same stop, and about which nothing has happened since, is quiet still.
    """
    runtime: Runtime = request.app.state.runtime
    stop = wanted.stop if wanted else None
    last: tuple[str | None, int, SettleOut] = runtime.state.get(_LAST, (None, 0, SettleOut(done=0)))
    await _hear(runtime)
    if stop is not None and not last[2].done and (stop, _activity(runtime)) == last[:2]:
        return last[2]
    await run_due(runtime, runtime.due)
    await _tell(runtime)
    await _hear(runtime)
    done = _activity(runtime) - last[1]
    answer = SettleOut(done=done, next_at=None if done else await next_due(runtime, runtime.due))
    runtime.state[_LAST] = stop, _activity(runtime), answer
    return answer


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
