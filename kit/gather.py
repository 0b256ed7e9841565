"""Group reads: requests in flight put their keys together, one statement finds them all, each gets its own answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql import asyncpg as driver

from kit.db import Database
from kit.disconnects import is_disconnect
from kit.errors import DatabaseUnavailable, Unavailable
from kit.line import Line
from kit.metrics import GROUP_ROWS

Key = TypeVar("Key")
Found = TypeVar("Found")


class TooManyReaders(Unavailable):
    """More people ask this at the same moment than can be answered; try again in a second."""

    zh = "同一时间查询的人太多，请过一秒再试。"


class GroupRead(Generic[Key, Found]):
    """One reader of a hot table: whatever is asked while it reads is read together next.

    `statement` selects with one parameter, the list of keys; `collect(keys, rows)` makes each key's answer of its rows.
    Nothing is kept: an answer is read by a statement that began after the question came. The statement runs by itself,
    outside any transaction, on a connection of the reader's own.
    """

    def __init__(
        self,
        db: Database,
        statement: ClauseElement,
        collect: Callable[[Sequence[Key], Sequence[Any]], Mapping[Key, Found]],
        *,
        name: str,
        max_queue: int = 10_000,
        max_batch: int = 200,
    ) -> None:
        self.db = db
        compiled = statement.compile(dialect=driver.dialect())  # type: ignore[no-untyped-call]
        if len(compiled.params) != 1:
            raise ValueError(f"{name} takes {sorted(compiled.params)} instead of one list of keys")
        self.sql = str(compiled)
        self.collect = collect
        self.name = name
        self.max_queue = max_queue
        self.max_batch = max_batch
        self._waiting: dict[Key, list[asyncio.Future[Found]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._line = Line(db.guarded)
        self._sizes = GROUP_ROWS.labels(name)

    async def find(self, key: Key) -> Found:
        """What there is for this key now; DatabaseUnavailable, or TooManyReaders when too many wait."""
        self.db.require()
        askers = self._waiting.get(key)
        if askers is None:
            if len(self._waiting) >= self.max_queue:
                raise TooManyReaders(retry_after=1)
            askers = self._waiting[key] = []
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read_waiting(), name=f"group read {self.name}")
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        askers.append(answer)
        return await answer

    async def close(self) -> None:
        """Let go of the connection."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
        self._line.close()

    async def _read_waiting(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[: self.max_batch]
            batch = {key: self._waiting.pop(key) for key in keys}
            self._sizes.observe(len(batch))
            try:
                found = self.collect(keys, await self._line.fetch(self.sql, keys))
                for key, askers in batch.items():
                    for answer in askers:
                        if not answer.done():  # the client went away
                            answer.set_result(found[key])
            except BaseException as failure:
                told = DatabaseUnavailable() if is_disconnect(failure) or isinstance(failure, OSError) else failure
                for answer in chain.from_iterable(batch.values()):
                    if not answer.done():
                        answer.set_exception(told)
                if not isinstance(failure, Exception):
                    raise
