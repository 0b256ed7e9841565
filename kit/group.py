"""Group commit: requests in flight hand their rows to one writer, which commits what has gathered and answers each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import Database
from kit.disconnects import is_disconnect
from kit.errors import DatabaseUnavailable, Problem, Unavailable
from kit.idempotency import is_final, place_of
from kit.kept_answers import Asked, IdempotencyInFlight, asked_of, begin, end, find, store
from kit.metrics import GROUP_ROWS

log = structlog.get_logger(__name__)

CONNECT_TRIES = 3

Row = TypeVar("Row")
Result = TypeVar("Result")


class QueueFull(Unavailable):
    """More people are doing this at the same moment than can be served; nothing was changed. Try again in a second."""

    zh = "同一时间操作的人太多，没有任何改动，请过一秒再试。"


@dataclass(frozen=True, slots=True)
class _Keep(Generic[Result]):
    """How a request with a key is answered, and which refusals are no answer to keep."""

    asked: Asked
    render: Callable[[Result], Response]
    passing: tuple[type[Problem], ...]

    def answer(self, result: Result | Problem) -> tuple[Any, Response | None]:
        """What whoever waits is told, and what is kept of it."""
        if not isinstance(result, Problem):
            response = self.render(result)
            return (result, response), response
        kept = is_final(result) and not isinstance(result, self.passing)
        return result, self.asked.refusal(result) if kept else None


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Row, Result]):
    """A row that waits for its turn, and who waits for the answer."""

    row: Row
    answer: "asyncio.Future[Any]"
    keep: _Keep[Result] | None = None


class GroupCommit(Generic[Row, Result]):
    """One writer, or few, for a hot row: durable before the answer, exact under contention.

    `write(connection, rows)` runs one conditional statement for all rows, in a transaction that is then committed, and
    returns for each row, in order, its result or the Problem to raise. No timed window: a batch is whatever gathered
    while the last one was being committed. A batch that fails is retried row by row, so one bad row spoils no other.

    `at_once` batches may be under way together, where `write` holds its own against other processes: a batch is read
    from its callers while another is written. A `write` that `commits_itself` asks only by `kit.db.fetch`, and finds
    itself in a transaction only when answers are to be kept with it; BEGIN and COMMIT would each wait for the loop's turn.
    """

    def __init__(
        self,
        db: Database,
        write: Callable[[AsyncConnection, Sequence[Row]], Awaitable[Sequence[Result | Problem]]],
        *,
        name: str,
        max_queue: int = 10_000,
        max_batch: int = 500,
        at_once: int = 1,
        commits_itself: bool = False,
    ) -> None:
        self.db = db
        self.write = write
        self.name = name
        self.max_queue = max_queue
        self.max_batch = max_batch
        self.at_once = at_once
        self.commits_itself = commits_itself
        self._waiting: list[_Waiting[Row, Result]] = []
        self._writers: set[asyncio.Task[None]] = set()
        self._called: asyncio.Task[None] | None = None

    async def submit(self, row: Row) -> Result:
        """Write this row with whatever else is waiting; its result, once committed. QueueFull when too many wait."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._wait(_Waiting(row, answer))
        try:
            return await answer
        finally:
            # A refusal's traceback leads here and on to the refusal: a ring that only a search for garbage would end.
            del answer

    async def answer(
        self,
        request: Request,
        row: Row,
        render: Callable[[Result], Response],
        *,
        passing: tuple[type[Problem], ...] = (),
    ) -> tuple[Result | None, Response]:
        """Submit this row and answer the request by its result; with an Idempotency-Key, keep the answer in the same commit.

        For endpoints marked `answers_in_group`. There is no result where an earlier answer is given again. Refusals are
        raised; those of a `passing` class are not kept, as the endpoint tries again.
        """
        place = await place_of(request)
        if place is None:
            result = await self.submit(row)
            return result, render(result)
        asked = await asked_of(request, place)
        begin(place)
        answer: asyncio.Future[tuple[Result | None, Response]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda _: end(place))
        try:
            self._wait(_Waiting(row, answer, _Keep(asked, render, passing)))
        except Problem:
            answer.cancel()
            raise
        # Who goes away leaves a row that is written all the same: until it is, nobody may ask for it again.
        try:
            return await asyncio.shield(answer)
        finally:
            del answer

    def _wait(self, waiting: _Waiting[Row, Result]) -> None:
        self.db.require()
        if len(self._waiting) >= self.max_queue:
            raise QueueFull(retry_after=1)
        self._waiting.append(waiting)
        if self._called is None and len(self._writers) < self.at_once:
            self._called = asyncio.create_task(self._write_waiting(), name=f"group commit {self.name}")
            self._writers.add(self._called)

    async def _write_waiting(self) -> None:
        writer, self._called = self._called, None
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self.max_batch], self._waiting[self.max_batch :]
                GROUP_ROWS.labels(self.name).observe(len(batch))
                try:
                    await self._commit(batch)
                except Exception as failure:  # noqa: BLE001 - every waiting request gets an answer, whatever broke
                    await self._one_by_one(batch, failure)
        finally:
            # At once: a task is done before anything that was to be called by it is, and a row may come in between.
            if writer is not None:
                self._writers.discard(writer)

    async def _commit(self, batch: "list[_Waiting[Row, Result]]") -> None:
        own = self.commits_itself and not any(item.keep for item in batch)
        async with aclosing(await self._connect()) as connection, nullcontext() if own else connection.begin():
            outcomes, fresh = await _replay(connection, batch)
            results = await self.write(connection, [item.row for item in fresh]) if fresh else []
            kept: list[tuple[Asked, Response]] = []
            for item, result in zip(fresh, results, strict=True):
                outcome: Any = result
                if item.keep is not None:
                    outcome, response = item.keep.answer(result)
                    kept += [(item.keep.asked, response)] if response is not None else []
                outcomes.append((item.answer, outcome))
            if kept and await store(connection, kept) != len(kept):
                # Another process was quicker with one of these keys; what was written here is undone.
                raise IdempotencyInFlight(retry_after=1)
        for answer, outcome in outcomes:
            _resolve(answer, outcome)

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

    async def _one_by_one(self, batch: "list[_Waiting[Row, Result]]", failure: Exception) -> None:
        if is_disconnect(failure) or isinstance(failure, OSError):
            for item in batch:
                _resolve(item.answer, DatabaseUnavailable())
            return
        if len(batch) == 1:
            if not isinstance(failure, Problem):
                log.error("group commit refused a row", name=self.name, error=type(failure).__name__)
            _resolve(batch[0].answer, failure)
            return
        for item in batch:
            try:
                await self._commit([item])
            except Exception as single:  # noqa: BLE001 - as above
                await self._one_by_one([item], single)


async def _replay(
    connection: AsyncConnection, batch: "list[_Waiting[Row, Result]]"
) -> "tuple[list[tuple[asyncio.Future[Any], Any]], list[_Waiting[Row, Result]]]":
    """What those get whose key has an answer already; and the others, who are to be written."""
    keyed = [item.keep.asked for item in batch if item.keep is not None]
    if not keyed or not (earlier := await find(connection, keyed)):
        return [], batch
    outcomes: list[tuple[asyncio.Future[Any], Any]] = []
    fresh: list[_Waiting[Row, Result]] = []
    for item in batch:
        found = earlier.get(item.keep.asked.place.scope) if item.keep is not None else None
        if found is None:
            fresh.append(item)
        else:
            outcomes.append((item.answer, found if isinstance(found, Problem) else (None, found)))
    return outcomes, fresh


def _resolve(answer: "asyncio.Future[Any]", outcome: Any) -> None:
    if answer.done():  # the client went away
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
