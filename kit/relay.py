"""The relay: moves committed outbox rows to the service's Redis stream, in commit order, losing none when Redis does."""

import asyncio
import contextlib
import zlib
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import structlog
from redis.exceptions import RedisError
from sqlalchemy import text

from kit.disconnects import is_disconnect
from kit.memory import memory_of
from kit.metrics import RELAY_PUBLISHED

if TYPE_CHECKING:
    from kit.app import Runtime

log = structlog.get_logger(__name__)

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError)
BATCH = 500
AGAIN_AT_ONCE = 200
AGAIN_PAUSE_S = 0.02
"""What is told anew comes in portions, behind what is new, so that news is never behind a long history."""
POLL_S = 1.0
HELD_BACK_POLL_S = 0.01
TRIM_EVERY_S = 30.0
FORGET_AT_ONCE = 5000
KEEP_HOURS = 48
"""How long published rows stay, so that a Redis that lost its memory can be told everything again."""

_LOCK = zlib.crc32(b"heika relay")

# A row is ready when every transaction that could still commit a smaller xid has ended; ids alone have gaps in time.
# What is to be told again is marked so; it is kept as told, and new rows come first.
_READY = (
    "SELECT * FROM (SELECT id, event_id, type, body::text AS body, request_id, traceparent, xid::text AS xid, "
    "false AS again FROM outbox WHERE published_at IS NULL AND xid < pg_snapshot_xmin(pg_current_snapshot()) "
    "ORDER BY outbox.xid, id LIMIT $1) AS fresh UNION ALL "
    "SELECT * FROM (SELECT id, event_id, type, body::text AS body, request_id, traceparent, xid::text, true "
    "FROM outbox WHERE published_at = '-infinity' LIMIT $2) AS kept"
)
UNPUBLISHED = "SELECT count(*) FROM outbox WHERE published_at IS NULL OR published_at = '-infinity'"
_HELD_BACK = text("SELECT EXISTS (SELECT 1 FROM outbox WHERE published_at IS NULL)")
_MARK = text("UPDATE outbox SET published_at = clock_timestamp() WHERE id = ANY(:ids)")
# Telling anew keeps a row for another while, but listeners forget after 30 days what they have handled.
_AGAIN = text(
    "UPDATE outbox SET published_at = '-infinity' WHERE published_at > '-infinity' "
    "AND written_at > clock_timestamp() - make_interval(days => 20)"
)
_EPOCH = "SELECT epoch FROM relay_state WHERE id = 1"
_LOOK = (
    f"SELECT ({_EPOCH}) AS epoch, EXISTS (SELECT FROM outbox WHERE published_at IS NULL) "  # noqa: S608 - constants
    "OR EXISTS (SELECT FROM outbox WHERE published_at = '-infinity') AS any_left"
)
_SET_EPOCH = text(
    "INSERT INTO relay_state (id, epoch) VALUES (1, :epoch) ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch"
)
_FORGET = text(
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox "
    "WHERE published_at > '-infinity' AND published_at < clock_timestamp() - make_interval(hours => :hours) "
    "ORDER BY published_at LIMIT :most)"
)


def stream_of(teller: str) -> str:
    """The Redis stream that a service tells its events on."""
    return f"heika:events:{teller}"


class Relay:
    """Publishes one service's outbox; of several processes one is active, by an advisory lock on its connection."""

    def __init__(self, runtime: "Runtime", listeners: frozenset[str]) -> None:
        self.runtime = runtime
        self.stream = stream_of(runtime.service)
        self.marker = f"{self.stream}:epoch"
        self._memory = memory_of(runtime.settings.redis_url)
        self.listeners = listeners
        self.published = 0
        self._rest: float | None = None
        self._any_left = True
        self._wake = asyncio.Event()
        self._one = asyncio.Lock()
        self._ask = runtime.db.line.fetch

    async def run(self) -> None:
        """Publish for as long as the process lives."""
        while True:
            try:
                await self._lead()
            except Exception as failure:
                if is_disconnect(failure) or isinstance(failure, _AWAY):
                    log.warning("relay waits", service=self.runtime.service, error=type(failure).__name__)
                else:
                    log.exception("relay failed", service=self.runtime.service)
            await asyncio.sleep(0.5)

    async def _lead(self) -> None:
        connection = await self.runtime.db.guarded()
        try:
            # Nothing tells when another process gives the lock up.
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
            await connection.add_listener("outbox", lambda *_: self._wake.set())
            connection.add_termination_listener(lambda *_: self._wake.set())
            # Its own connection, so that nothing else that is asked every second holds up the news.
            self._ask = connection.fetch
            trimmed_at = 0.0
            while not connection.is_closed():
                self._wake.clear()
                while await self.publish(POLL_S / 2) and self._rest is not None:
                    await self._pause(self._rest)
                if asyncio.get_running_loop().time() - trimmed_at > TRIM_EVERY_S:
                    trimmed_at = asyncio.get_running_loop().time()
                    if await self._trim() == FORGET_AT_ONCE:
                        # After a burst, or a long pause, there is more; between two portions what is new is told.
                        trimmed_at = 0.0
                # A committed row behind another's open transaction gets no wake-up of its own when that one ends.
                await self._pause(HELD_BACK_POLL_S if self._any_left else POLL_S)
        finally:
            self._ask = self.runtime.db.line.fetch
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.close()
            connection.terminate()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def publish(self, heard_s: float = 0.0) -> int:
        """Move one batch; how many events. Twice at once in one process waits; twice in effect is the listener's inbox.

        If there is nothing new, what Redis remembers may have been heard so many seconds ago.
        """
        async with self._one:
            [look] = await self._ask(_LOOK)
            heard_s = 0.0 if look["any_left"] else heard_s
            memory = await self._memory.name(self.runtime.redis, self.marker, heard_s)
            if look["epoch"] != memory:
                await self._tell_again(memory)
            self._any_left = look["epoch"] != memory or look["any_left"]
            found = await self._ask(_READY, BATCH, AGAIN_AT_ONCE) if self._any_left else []
            if not found:
                return 0
            again = sum(row["again"] for row in found)
            # How long to rest before the next batch, if there is more.
            self._rest = AGAIN_PAUSE_S if again == AGAIN_AT_ONCE else 0.0 if len(found) == BATCH else None
            rows = sorted(found, key=lambda row: (row["again"], int(row["xid"]), row["id"]))
            pipe = self.runtime.redis.pipeline(transaction=False)
            for row in rows:
                pipe.xadd(self.stream, _fields(row))
            async with self.runtime.db.session() as session, session.begin():
                # First, so that nothing is told again and again while the database takes no writes.
                await session.execute(_MARK, {"ids": [row["id"] for row in rows]})
                await pipe.execute()
            RELAY_PUBLISHED.labels(self.runtime.service).inc(len(rows))
            self.published += len(rows)
            return len(rows)

    async def held_back(self) -> bool:
        """Whether there is something to publish still, behind a transaction that has not ended."""
        async with self.runtime.db.session() as session:
            return bool((await session.execute(_HELD_BACK)).scalar_one())

    async def _tell_again(self, epoch: str) -> None:
        """Tell everything kept again, unless another process has seen to it; the first time there is nothing to tell again."""
        async with self.runtime.db.session() as session, session.begin():
            known = (await session.execute(text(_EPOCH))).scalar_one_or_none()
            if known == epoch:
                return
            again = await session.execute(_AGAIN)
            await session.execute(_SET_EPOCH, {"epoch": epoch})
        if known is not None:
            log.info("Redis lost its memory: telling again", service=self.runtime.service, events=again.rowcount)  # type: ignore[attr-defined]

    async def republish(self) -> int:
        """Tell every event kept once more; listeners drop those they have handled. How many."""
        async with self.runtime.db.session() as session, session.begin():
            result = await session.execute(_AGAIN)
        self._wake.set()
        return int(result.rowcount)  # type: ignore[attr-defined]

    async def _trim(self) -> int:
        """Drop from the stream what every listener has behind it, and from the outbox what is past its keeping.

        At most `FORGET_AT_ONCE` rows of the outbox; how many those were.
        """
        groups: list[dict[str, Any]] = []
        with contextlib.suppress(RedisError):
            groups = await self.runtime.redis.xinfo_groups(self.stream)
        if self.listeners and self.listeners <= {group["name"].decode() for group in groups}:
            oldest = []
            for group in groups:
                pending = await self.runtime.redis.xpending(self.stream, group["name"])
                oldest.append(pending["min"] or group["last-delivered-id"])
            edge = min(oldest, key=_stream_id)
            await self.runtime.redis.xtrim(self.stream, minid=edge, approximate=True)
        async with self.runtime.db.session() as session, session.begin():
            gone = await session.execute(_FORGET, {"hours": KEEP_HOURS, "most": FORGET_AT_ONCE})
        return int(gone.rowcount)  # type: ignore[attr-defined]


def _fields(row: Any) -> dict[Any, Any]:
    fields = {"id": str(row["event_id"]), "type": row["type"], "body": row["body"]}
    context = {"request_id": row["request_id"], "traceparent": row["traceparent"]}
    return fields | {"context": orjson.dumps(context).decode()}


def _stream_id(raw: bytes | str) -> tuple[int, int]:
    milliseconds, _, sequence = (raw.decode() if isinstance(raw, bytes) else raw).partition("-")
    return int(milliseconds), int(sequence or 0)
