"""Periodic work: jobs that claim due rows, run every second or so, and at once when the sandbox's clock is moved."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from math import inf
from typing import TYPE_CHECKING, Any

import structlog

from kit import clock
from kit.disconnects import is_disconnect
from kit.metrics import DUE_ROWS

if TYPE_CHECKING:
    from kit.app import Runtime

log = structlog.get_logger(__name__)

MAX_ROUNDS = 1000
LOOK_EVERY_S = 1.0
LOOK_TAKES_S = 2.0
"""How long all looks of a service may take together."""


@dataclass(frozen=True, slots=True)
class Due:
    """A job: `run` does what is due now and says how many rows; a second run at the same instant must do nothing.

    `next_at` tells the earliest instant after now at which there will be something to do, as far as is known, or None:
    the sandbox's clock stops there on its way. A job whose exact moment matters to nobody needs none.
    `waits` is a look at what `run` takes, as the SQL of rows of which there are none, or may soon be none, when it would do
    nothing; `$1` in it is now. The background asks it first, each second and with those of the service's other jobs: for a
    tenth of what `run` takes to find nothing. A job that does a portion at a time, `by_portions`, goes on after a second.
    """

    name: str
    run: Callable[["Runtime"], Awaitable[int]]
    every_s: float = 1.0
    next_at: Callable[["Runtime"], Awaitable[datetime | None]] | None = None
    waits: str | None = None
    by_portions: bool = False


async def run_due(runtime: "Runtime", jobs: tuple[Due, ...], until: float = inf) -> int:
    """Run the jobs in turn until all of them, one after the other, found nothing; how many rows were done meanwhile.

    What the background did counts, too: it may have given any of them something to do. Past `until`, by the loop's
    clock, it ends early once anything was done.
    """
    loop = asyncio.get_running_loop()
    before = seen = runtime.done
    quiet = 0
    for job in chain.from_iterable(repeat(jobs, MAX_ROUNDS)):
        await _run(runtime, job)
        quiet = quiet + 1 if runtime.done == seen else 0
        seen = runtime.done
        if quiet == len(jobs) or (seen != before and loop.time() > until):
            return runtime.done - before
    log.error("periodic work does not come to an end", service=runtime.service)
    return runtime.done - before


async def next_due(runtime: "Runtime", jobs: tuple[Due, ...]) -> datetime | None:
    """The earliest instant after now at which one of these jobs will have something to do; None for none known."""
    told = [await job.next_at(runtime) for job in jobs if job.next_at is not None]
    return min((instant for instant in told if instant is not None), default=None)


async def _run(runtime: "Runtime", job: Due) -> int:
    # One run at a time in a process: who moves the clock must wait for what the background is doing by the old one.
    turn: asyncio.Lock = runtime.state.setdefault(f"turn of {job.name}", asyncio.Lock())
    async with turn:
        rows = await job.run(runtime)
        runtime.done += rows
    if rows:
        DUE_ROWS.labels(runtime.service, job.name).inc(rows)
    return rows


async def waiting(runtime: "Runtime", jobs: Iterable[Due]) -> list[Due]:
    """Those of these jobs that may have something to do, by their own looks, which are one statement; the rest as well."""
    looks = [job for job in jobs if job.waits is not None]
    idle: set[Due] = set()
    if looks:
        given = [clock.now()] if any("$1" in str(job.waits) for job in looks) else []
        asked = ", ".join(f"EXISTS ({job.waits})" for job in looks).replace("$1", "$1::timestamptz")
        [said] = await runtime.db.line.fetch(f"SELECT {asked}", *given)
        idle = {job for job, found in zip(looks, said, strict=True) if not found}
    return [job for job in jobs if job not in idle]


def keep_running(runtime: "Runtime", jobs: Sequence[Due]) -> list[Coroutine[Any, Any, None]]:
    """What runs these jobs for as long as the process lives: a loop for each, and one that looks for all that have a look."""
    calls = {job: asyncio.Event() for job in jobs if job.waits is not None}
    loops = [_keep_running(runtime, job, calls.get(job)) for job in jobs]
    return [*loops, _keep_looking(runtime, calls)] if calls else loops


async def _keep_looking(runtime: "Runtime", calls: dict[Due, asyncio.Event]) -> None:
    while True:
        # Where it cannot be told, as of a table that is locked, each job sees for itself and waits by itself.
        found = [job for job, call in calls.items() if not call.is_set()]
        with _told_of(runtime, "looks"):
            async with asyncio.timeout(LOOK_TAKES_S):
                found = await waiting(runtime, found)
        for job in found:
            calls[job].set()
        await asyncio.sleep(LOOK_EVERY_S)


async def _keep_running(runtime: "Runtime", job: Due, call: asyncio.Event | None) -> None:
    """A failure is logged and tried again."""
    while True:
        rest = job.every_s
        if call is not None:
            await call.wait()
        with _told_of(runtime, job.name):
            if await _run(runtime, job) and job.by_portions:
                rest = min(rest, LOOK_EVERY_S)
        if call is not None:
            call.clear()
        else:
            await asyncio.sleep(rest)


@contextmanager
def _told_of(runtime: "Runtime", name: str) -> Iterator[None]:
    try:
        yield
    except Exception as failure:
        if is_disconnect(failure):
            log.warning("periodic work waits: database away", service=runtime.service, job=name)
        else:
            log.exception("periodic work failed", service=runtime.service, job=name)
