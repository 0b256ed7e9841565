"""Live feeds: one reader for each followed lesson in a process, from which any number of streams take what it read."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import Runtime
from kit.errors import Problem
from kit.text import dump_json
from services.courses.questions import complete

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.4
COUNT_EVERY = 12
"""Looks between two counts of who is there, while nobody comes or goes."""
BEAT_EVERY = 35
"""Looks between two comments that keep proxies from closing a silent stream."""
HERE_FOR_S = 20.0
"""For so long a process that died still counts for its streams."""
HELD = 1000
"""A stream that is so many pieces behind is closed; it comes back with the number it had, and misses nothing."""
PAGE = 200

_TOLD: Final = text("SELECT coalesce((SELECT told FROM live_room WHERE lesson_id = :id), 0)")
_AFTER: Final = text(
    "SELECT number, kind, body FROM live_event WHERE lesson_id = :id AND number > :after AND number <= :until "
    "ORDER BY number LIMIT :limit"
)
_STATUS: Final = text("SELECT status FROM live_lesson WHERE id = :id")
LAST: Final = 2**62


def piece(number: int, kind: str, body: Any) -> bytes:
    """One server-sent event."""
    return f"id: {number}\nevent: {kind}\ndata: {dump_json(body).decode()}\n\n".encode()


async def _pieces(session: AsyncSession, lesson_id: UUID, after: int, until: int) -> tuple[int, list[bytes]]:
    values = {"id": lesson_id, "after": after, "until": until, "limit": PAGE}
    rows = (await session.execute(_AFTER, values)).all()
    bodies = await complete(session, [(row.kind, row.body) for row in rows])
    told = [piece(row.number, row.kind, body) for row, body in zip(rows, bodies, strict=True)]
    return (rows[-1].number if rows else after), told


class Feed:
    """What a lesson's streams in this process share: the last pieces, and the moment at which the next is there."""

    def __init__(self, runtime: Runtime, lesson_id: UUID) -> None:
        self.runtime = runtime
        self.lesson_id = lesson_id
        self.present: Counter[str] = Counter()
        self.told = 0
        self.online = 0
        self.made = 0
        self.held: deque[bytes] = deque(maxlen=HELD)
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready = asyncio.Lock()
        self.task: asyncio.Task[None] | None = None
        self._changed = True
        self._gone: set[str] = set()

    def come(self, who: str) -> None:
        """One more stream."""
        self.present[who] += 1
        self._changed = True

    def leave(self, who: str) -> None:
        """One stream less."""
        self.present[who] -= 1
        if not self.present[who]:
            del self.present[who]
            self._gone.add(who)
            self._changed = True

    async def start(self) -> None:
        """Begin to read where the lesson stands."""
        async with self.ready:
            if self.task is None:
                async with self.runtime.db.session() as session:
                    self.told = (await session.execute(_TOLD, {"id": self.lesson_id})).scalar_one()
                await self._count()
                self.held.clear()
                self.task = asyncio.create_task(self._read(), name=f"feed of {self.lesson_id}")

    def is_over(self) -> bool:
        """Whether nobody follows it any more, and it has ended."""
        return self.task is not None and self.task.done()

    def since(self, made: int) -> list[bytes] | None:
        """The pieces after the first `made`; None when they are not held any more."""
        missing = self.made - made
        return None if missing > len(self.held) else [self.held[index] for index in range(-missing, 0)]

    def _give(self, pieces: list[bytes]) -> None:
        self.held.extend(pieces)
        self.made += len(pieces)
        if pieces:
            self.news.set_result(None)
            self.news = asyncio.get_running_loop().create_future()

    async def _read(self) -> None:
        looks = 0
        while self.present:
            await asyncio.sleep(LOOK_EVERY_S)
            looks += 1
            try:
                async with self.runtime.db.session() as session:
                    self.told, pieces = await _pieces(session, self.lesson_id, self.told, LAST)
            except (SQLAlchemyError, OSError, Problem):
                # The database is away: what is told meanwhile is read when it is back.
                continue
            self._give(pieces)
            if self._changed or looks % COUNT_EVERY == 0:
                await self._count()
            if looks % BEAT_EVERY == 0:
                self._give([b": waiting\n\n"])
        await self._count()

    async def _count(self) -> None:
        """Say who is here, and hear how many are, over all processes; each person counts once."""
        self._changed = False
        gone, self._gone = self._gone - self.present.keys(), set()
        key, now = f"heika:courses:online:{self.lesson_id}", time.time()
        pipe = self.runtime.redis.pipeline(transaction=False)
        if self.present:
            pipe.zadd(key, dict.fromkeys(self.present, now + HERE_FOR_S))
        if gone:
            pipe.zrem(key, *gone)
        pipe.zremrangebyscore(key, "-inf", now)
        pipe.expire(key, int(HERE_FOR_S * 3))
        pipe.zcard(key)
        try:
            online = (await pipe.execute())[-1]
        except (RedisError, OSError) as failure:
            log.warning("nobody is counted", error=type(failure).__name__)
            return
        if online != self.online:
            self.online = online
            self._give([self.count()])

    def count(self) -> bytes:
        """How many are there; it has the number of what was told last, as it is not told again to who comes back."""
        return piece(self.told, "online", {"online": self.online})


class Feeds:
    """The feeds of one process."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.feeds: dict[UUID, Feed] = {}

    async def follow(self, lesson_id: UUID, who: str, last: int | None) -> AsyncIterator[bytes]:
        """A stream: what was told after `last`, or how things stand, and then whatever comes."""
        feed = self.feeds.get(lesson_id)
        if feed is None or feed.is_over():
            # Each holds its last pieces, and there is a lesson a week.
            self.feeds = {held: one for held, one in self.feeds.items() if not one.is_over()}
            feed = self.feeds[lesson_id] = Feed(self.runtime, lesson_id)
        feed.come(who)
        try:
            await feed.start()
            # From here on the feed holds for this stream whatever it reads.
            made, until = feed.made, feed.told
            if last is None:
                yield await self._standing(lesson_id, until)
            else:
                while last < until:
                    async with self.runtime.db.session() as session:
                        last, pieces = await _pieces(session, lesson_id, last, until)
                    if not pieces:
                        break
                    yield b"".join(pieces)
            yield feed.count()
            while (pieces_since := feed.since(made)) is not None:
                made = feed.made
                if pieces_since:
                    yield b"".join(pieces_since)
                if made == feed.made:
                    # Shared by all the streams: one that leaves must not take it away from the others.
                    await asyncio.shield(feed.news)
        finally:
            feed.leave(who)

    async def _standing(self, lesson_id: UUID, until: int) -> bytes:
        async with self.runtime.db.session() as session:
            status = (await session.execute(_STATUS, {"id": lesson_id})).scalar_one()
        return piece(until, "status", {"status": status})

    async def close(self) -> None:
        """Stop reading."""
        tasks = [feed.task for feed in self.feeds.values() if feed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def feeds_ready(runtime: Runtime) -> AsyncIterator[None]:
    """Feeds as they are needed."""
    feeds = runtime.state["feeds"] = Feeds(runtime)
    try:
        yield
    finally:
        await feeds.close()
