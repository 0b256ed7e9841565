"""The pulse: a database that hangs is answered for within seconds, and found again when it goes on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import Database
from kit.disconnects import is_disconnect
from kit.errors import DatabaseUnavailable
from kit.group import GroupCommit
from kit.pulse import BEAT_S
from tests.harness import Api


class Sluice:
    """A Unix socket in front of PostgreSQL's, through which nothing passes while it is shut."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.open = asyncio.Event()
        self.open.set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a caller with PostgreSQL."""
        theirs, ours = await asyncio.open_unix_connection(self.behind)
        pairs = ((reader, ours), (theirs, writer))
        for source, sink in pairs:
            self.tasks.add(asyncio.create_task(self._pass(source, sink)))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                await self.open.wait()
                sink.write(piece)
                await sink.drain()
        sink.close()


@pytest.fixture
async def sluice(api: Api, tmp_path: Path) -> AsyncIterator[Sluice]:
    sluice = Sluice(f"{api.rt.db.engine.url.query['host']}/.s.PGSQL.5432")
    server = await asyncio.start_unix_server(sluice.take, tmp_path / ".s.PGSQL.5432")
    try:
        yield sluice
    finally:
        server.close()
        for task in sluice.tasks:
            task.cancel()
        await asyncio.gather(*sluice.tasks, return_exceptions=True)


@pytest.fixture
async def unwatched(api: Api, sluice: Sluice, tmp_path: Path) -> AsyncIterator[Database]:
    """The service's database behind the sluice."""
    url = api.rt.db.engine.url.update_query_dict({"host": str(tmp_path)})
    database = Database(url.render_as_string(hide_password=False), name="pulse")
    yield database
    await database.close()


@contextlib.asynccontextmanager
async def watched(database: Database) -> AsyncIterator[None]:
    watching = asyncio.create_task(database.pulse.watch(database.raw))
    try:
        yield
    finally:
        # The drivers may swallow a cancellation before Python 3.12: ask until it has been heard.
        while not watching.done():
            watching.cancel()
            await asyncio.wait({watching}, timeout=0.5)


@pytest.fixture
async def database(unwatched: Database) -> AsyncIterator[Database]:
    """The same, watched, and its pulse felt once."""
    async with watched(unwatched):
        while not unwatched.pulse.beats:  # noqa: ASYNC110 - as in _answering
            await asyncio.sleep(0.05)
        yield unwatched


async def _answering(database: Database) -> None:
    while database.pulse.stopped:  # noqa: ASYNC110 - the pulse is felt, it tells nobody
        await asyncio.sleep(0.05)


async def test_what_waits_for_a_database_that_hangs_fails_within_three_seconds(
    database: Database, sluice: Sluice
) -> None:
    async with database.session() as session:
        await database.connect(session)
        sluice.open.clear()
        started = time.monotonic()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver has several words for it
            await session.execute(text("SELECT 1"))
        assert is_disconnect(caught.value)
        assert time.monotonic() - started < 3
    async with database.session() as session:
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await database.connect(session)
        assert time.monotonic() - started < 0.1
    sluice.open.set()
    await _answering(database)
    assert time.monotonic() - started < 4
    async with database.session() as session:
        assert (await (await database.connect(session)).execute(text("SELECT 2"))).scalar_one() == 2


async def test_rows_that_wait_for_a_group_commit_are_told_when_the_database_hangs(
    database: Database, sluice: Sluice
) -> None:
    async def write(connection: AsyncConnection, rows: Sequence[int]) -> list[int]:
        return [int((await connection.execute(text("SELECT 3"))).scalar_one()) for _ in rows]

    group: GroupCommit[int, int] = GroupCommit(database, write, name="pulse")
    assert await group.submit(1) == 3
    sluice.open.clear()
    started = time.monotonic()
    waiting = [asyncio.create_task(group.submit(row)) for row in range(5)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 5
    with pytest.raises(DatabaseUnavailable):
        await group.submit(6)
    assert time.monotonic() - started < 3
    sluice.open.set()
    await _answering(database)
    assert await group.submit(7) == 3


async def test_a_hang_that_began_before_the_first_beat_is_noticed_too(unwatched: Database, sluice: Sluice) -> None:
    async with unwatched.session() as session:
        await unwatched.connect(session)
        sluice.open.clear()
        started = time.monotonic()
        async with watched(unwatched):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver has several words for it
                await session.execute(text("SELECT 1"))
            assert is_disconnect(caught.value)
            assert time.monotonic() - started < 3
            sluice.open.set()
            await _answering(unwatched)


async def test_databases_of_one_server_share_a_pulse_that_whoever_can_connect_feels(
    unwatched: Database, sluice: Sluice
) -> None:
    gone = Database(unwatched.engine.url.set(database="gone").render_as_string(hide_password=False), name="gone")
    assert gone.pulse is unwatched.pulse
    async with watched(gone), watched(unwatched), watched(unwatched):
        while not unwatched.pulse.beats:  # noqa: ASYNC110 - as in _answering
            await asyncio.sleep(0.05)
        before, started = unwatched.pulse.beats, time.monotonic()
        await asyncio.sleep(2 * BEAT_S)
        assert unwatched.pulse.beats - before <= (time.monotonic() - started) / BEAT_S + 1
        async with unwatched.session() as session:
            await unwatched.connect(session)
            sluice.open.clear()
            with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver has several words for it
                await session.execute(text("SELECT 1"))
            assert is_disconnect(caught.value)
        with pytest.raises(DatabaseUnavailable):
            gone.require()
        sluice.open.set()
        await _answering(unwatched)
