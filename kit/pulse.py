"""The pulse of a PostgreSQL server: one that hangs is noticed within two seconds, what waits for it is cut, its return heard."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from weakref import WeakSet, WeakValueDictionary

import asyncpg
import structlog
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger(__name__)

BEAT_S = 0.4
SLICES = 16
SLICE_S = 0.1
"""A beat may take so many slices. A busy process makes each slice longer, so that only the database can miss a beat."""

GREETING_SLICES = 24
"""Those in which a new connection must be greeted; with the pause before them, less than three seconds."""

_TROUBLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Pulse:
    """Whether a server answers; a refused connection needs no pulse, it fails by itself."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.stopped = False
        self.beats = 0
        self._turn = asyncio.Lock()
        self._engines: WeakSet[AsyncEngine] = WeakSet()
        self._lines: WeakSet[asyncpg.Connection] = WeakSet()

    def guard(self, engine: AsyncEngine) -> AsyncEngine:
        """Cut this engine's connections, too, when the database hangs."""
        self._engines.add(engine)
        event.listen(engine.sync_engine, "connect", lambda connection, _: self._lines.add(connection.driver_connection))
        return engine

    def guard_line(self, line: asyncpg.Connection) -> None:
        """Cut this connection, too, when the database hangs."""
        self._lines.add(line)

    async def watch(self, connect: Connect) -> None:
        """Feel the pulse for as long as the process lives; of those in a process who would, one does, for all."""
        while True:
            async with self._turn:
                # Whoever cannot connect, as to a database that is not there, lets the next one try.
                with contextlib.suppress(*_TROUBLE):
                    await self._watch(connect)
            await asyncio.sleep(BEAT_S)

    async def _watch(self, connect: Connect) -> None:
        line: asyncpg.Connection | None = None
        try:
            while True:
                await asyncio.sleep(BEAT_S)
                line = line or await _line(connect)
                alive = line is not None and await _beats(line)
                if alive and self.stopped:
                    log.warning("the database answers again", server=self.server)
                self.stopped = not alive
                self.beats += alive
                if not alive:
                    line = None
                    self._cut()
        finally:
            if line is not None:
                line.terminate()

    def _cut(self) -> None:
        """Let everything that waits for the database fail now, as a lost connection does."""
        log.error("the database hangs", server=self.server, connections=len(self._lines))
        for engine in list(self._engines):
            engine.sync_engine.dispose(close=False)
        for connection in list(self._lines):
            connection.terminate()
        self._lines.clear()


_pulses: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str, int | None], Pulse] = WeakValueDictionary()


def pulse_of(url: URL) -> Pulse:
    """The pulse of the server that this URL leads to; all databases of one server share it."""
    host = url.host or str(url.query.get("host"))
    server = (asyncio.get_running_loop(), host, url.port)
    pulse = _pulses.get(server)
    if pulse is None:
        pulse = _pulses[server] = Pulse(host)
    return pulse


async def _line(connect: Connect) -> asyncpg.Connection | None:
    """A connection to feel the pulse by; None when it was taken and not greeted, as by a database that hangs."""
    greeting = asyncio.ensure_future(connect())
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
