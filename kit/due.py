"""Periodic work: jobs that claim due rows, run every second or so, and at once when the sandbox's clock is moved."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from kit.errors import is_disconnect
from kit.metrics import DUE_ROWS

if TYPE_CHECKING:
    from kit.app import Runtime

log = structlog.get_logger(__name__)

MAX_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class Due:
    """A job: `run` does what is due now and says how many rows; a second run at the same instant must do nothing."""

    name: str
    run: Callable[["Runtime"], Awaitable[int]]
    every_s: float = 1.0


async def run_due(runtime: "Runtime", jobs: tuple[Due, ...]) -> int:
    """Run all jobs until none finds anything; how many rows were done."""
    total = 0
    for _ in range(MAX_ROUNDS):
        done = 0
        for job in jobs:
            rows = await job.run(runtime)
            if rows:
                DUE_ROWS.labels(runtime.service, job.name).inc(rows)
            done += rows
        total += done
        if done == 0:
            return total
    log.error("periodic work does not come to an end", service=runtime.service)
    return total


async def keep_running(runtime: "Runtime", job: Due) -> None:
    """Run one job for as long as the process lives; a failure is logged and tried again."""
    while True:
        try:
            rows = await job.run(runtime)
            if rows:
                DUE_ROWS.labels(runtime.service, job.name).inc(rows)
        except Exception as failure:
            if is_disconnect(failure):
                log.warning("periodic work waits: database away", service=runtime.service, job=job.name)
            else:
                log.exception("periodic work failed", service=runtime.service, job=job.name)
        await asyncio.sleep(job.every_s)
