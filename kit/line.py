"""A connection of one's own for single statements: past the pool, its turns and its transactions."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from kit.disconnects import is_disconnect


class Line:
    """Asks one statement after the other, each outside any transaction; for what is asked again and again.

    Of a statement that finds nothing to do, BEGIN, COMMIT, the session and the pool's turn would be most of the cost.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def fetch(self, sql: str, *values: Any) -> Sequence[Any]:
        """The rows of a statement that only reads: it is asked again if the connection was lost while nobody used it."""
        async with self._turn:
            held = self._connection is not None and not self._connection.is_closed()
            try:
                return await self._fetch(sql, values)
            except Exception as failure:
                if not held or not (is_disconnect(failure) or isinstance(failure, OSError)):
                    raise
            return await self._fetch(sql, values)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.terminate()

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        rows: Sequence[Any] = await self._connection.fetch(sql, *values)
        return rows
