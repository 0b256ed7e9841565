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
async def settle(request: Request) -> SettleOut:
    """Do what is due, tell what was told, and handle what was heard; how much that was."""
    runtime: Runtime = request.app.state.runtime
    before = runtime.consumer.handled
    done = await run_due(runtime, runtime.due)
    while published := await runtime.relay.publish():
        done += published
    deadline = asyncio.get_running_loop().time() + QUIET_S
    # The lag is Redis' knowledge, there is no event to wait for.
    while await runtime.consumer.lag() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    done += runtime.consumer.handled - before
    return SettleOut(done=done, next_at=None if done else await next_due(runtime, runtime.due))
