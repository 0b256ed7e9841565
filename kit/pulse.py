"""The pulse of a database: one that hangs is noticed within two seconds, what waits for it is cut, its return is heard."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from weakref import WeakSet

import asyncpg
import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger(__name__)

BEAT_S = 0.4
SLICES = 16
SLICE_S = 0.1
"""A beat may take so many slices. A busy process makes each slice longer, so that only the database can miss a beat."""

GREETING_SLICES = 24
"""Those in which a new connection must be greeted; with the pause before them, less than three seconds."""

_TROUBLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class Pulse:
    """Whether a database answers; a refused connection needs no pulse, it fails by itself."""

    def __init__(self, name: str, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self.name = name
        self.stopped = False
        self.beats = 0
        self._connect = connect
        self._engines: list[AsyncEngine] = []
        self._lines: WeakSet[asyncpg.Connection] = WeakSet()

    def guard(self, engine: AsyncEngine) -> AsyncEngine:
        """Cut this engine's connections, too, when the database hangs."""
        self._engines.append(engine)
        event.listen(engine.sync_engine, "connect", lambda connection, _: self._lines.add(connection.driver_connection))
        return engine

    def guard_line(self, line: asyncpg.Connection) -> None:
        """Cut this connection, too, when the database hangs."""
        self._lines.add(line)

    async def watch(self) -> None:
        """Feel the pulse for as long as the process lives."""
        line: asyncpg.Connection | None = None
        try:
            while True:
                await asyncio.sleep(BEAT_S)
                try:
                    line = line or await self._line()
                    alive = line is not None and await _beats(line)
                except _TROUBLE:
                    line = None
                    continue
                if alive and self.stopped:
                    log.warning("the database answers again", name=self.name)
                self.stopped = not alive
                self.beats += alive
                if not alive:
                    line = None
                    self._cut()
        finally:
            if line is not None:
                line.terminate()

    async def _line(self) -> asyncpg.Connection | None:
        """A connection to feel the pulse by; None when it was taken and not greeted, as by a database that hangs."""
        greeting = asyncio.ensure_future(self._connect())
        try:
            for _ in range(GREETING_SLICES):
                done, _ = await asyncio.wait({greeting}, timeout=SLICE_S)
                if done:
                    return greeting.result()
        finally:
            while not greeting.done():
                greeting.cancel()
                await asyncio.wait({greeting}, timeout=SLICE_S)
        if not greeting.cancelled() and greeting.exception() is None:
            greeting.result().terminate()
        return None

    def _cut(self) -> None:
        """Let everything that waits for the database fail now, as a lost connection does."""
        log.error("the database hangs", name=self.name, connections=len(self._lines))
        for engine in self._engines:
            engine.sync_engine.dispose(close=False)
        for connection in list(self._lines):
            connection.terminate()
        self._lines.clear()


async def _beats(line: asyncpg.Connection) -> bool:
    beat = asyncio.ensure_future(line.fetchval("SELECT 1"))
    try:
        for _ in range(SLICES):
            done, _ = await asyncio.wait({beat}, timeout=SLICE_S)
            if done:
                beat.result()
                return True
    finally:
        if not beat.done():
            line.terminate()
            with contextlib.suppress(*_TROUBLE):
                await beat
    return False
