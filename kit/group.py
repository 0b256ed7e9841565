"""Group commit: requests in flight hand their rows to one writer, which commits what has gathered and answers each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import Database
from kit.errors import DatabaseUnavailable, Problem, Unavailable, is_disconnect
from kit.metrics import GROUP_ROWS

log = structlog.get_logger(__name__)

CONNECT_TRIES = 3

Row = TypeVar("Row")
Result = TypeVar("Result")


class QueueFull(Unavailable):
    """More people are doing this at the same moment than can be served; nothing was changed. Try again in a second."""

    zh = "同一时间操作的人太多，没有任何改动，请过一秒再试。"


class GroupCommit(Generic[Row, Result]):
    """One writer for a hot row: durable before the answer, exact under contention.

    `write(connection, rows)` runs one conditional statement for all rows, in a transaction that is then committed, and
    returns for each row, in order, its result or the Problem to raise. No timed window: a batch is whatever gathered
    while the last one was being committed. A batch that fails is retried row by row, so one bad row spoils no other.
    """

    def __init__(
        self,
        db: Database,
        write: Callable[[AsyncConnection, Sequence[Row]], Awaitable[Sequence[Result | Problem]]],
        *,
        name: str,
        max_queue: int = 10_000,
        max_batch: int = 500,
    ) -> None:
        self.db = db
        self.write = write
        self.name = name
        self.max_queue = max_queue
        self.max_batch = max_batch
        self._waiting: list[tuple[Row, asyncio.Future[Result]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, row: Row) -> Result:
        """Write this row with whatever else is waiting; its result, once committed. QueueFull when too many wait."""
        self.db.require()
        if len(self._waiting) >= self.max_queue:
            raise QueueFull(retry_after=1)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, answer))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting(), name=f"group commit {self.name}")
        return await answer

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self.max_batch], self._waiting[self.max_batch :]
            GROUP_ROWS.labels(self.name).observe(len(batch))
            try:
                await self._commit(batch)
            except Exception as failure:  # noqa: BLE001 - every waiting request gets an answer, whatever broke
                await self._one_by_one(batch, failure)

    async def _commit(self, batch: list[tuple[Row, asyncio.Future[Result]]]) -> None:
        async with aclosing(await self._connect()) as connection, connection.begin():
            results = await self.write(connection, [row for row, _ in batch])
        for (_, answer), result in zip(batch, results, strict=True):
            _resolve(answer, result)

    async def _connect(self) -> AsyncConnection:
        for tries_left in reversed(range(CONNECT_TRIES)):
            self.db.require()
            try:
                return await self.db.writers.connect()
            except TimeoutError:
                # A crowd that arrives at a cold process keeps the loop from the greetings of its first connection. A
                # database that hangs is known from its pulse, so nothing is asked of it here.
                if not tries_left:
                    raise
        raise AssertionError

    async def _one_by_one(self, batch: list[tuple[Row, asyncio.Future[Result]]], failure: Exception) -> None:
        if is_disconnect(failure) or isinstance(failure, (OSError, DatabaseUnavailable)):
            for _, answer in batch:
                _resolve(answer, DatabaseUnavailable())
            return
        if len(batch) == 1:
            log.error("group commit refused a row", name=self.name, error=type(failure).__name__)
            _resolve(batch[0][1], failure)
            return
        for item in batch:
            try:
                await self._commit([item])
            except Exception as single:  # noqa: BLE001 - as above
                await self._one_by_one([item], single)


def _resolve(answer: "asyncio.Future[Result]", result: Result | Exception) -> None:
    if answer.done():  # the client went away
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
