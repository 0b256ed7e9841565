"""The consumer: every event of the streams a service listens to, handled exactly once in effect, retried, never dropped."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson
import structlog
from pydantic import ValidationError
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock, spans, trace
from kit.disconnects import is_disconnect
from kit.events import Event
from kit.forgetting import drop_the_dead, forget_handled
from kit.metrics import EVENT_FAILURES, EVENT_SECONDS
from kit.relay import stream_of

if TYPE_CHECKING:
    from kit.app import Runtime

log = structlog.get_logger(__name__)

Handler = Callable[[AsyncSession, Any], Awaitable[None]]
Handlers = Mapping[type[Event], Sequence[Handler]]

BATCH = 100
BLOCK_MS = 3000
CLAIM_EVERY_S = 15.0
CLAIM_IDLE_MS = 30_000
RETRY_AFTER = tuple(timedelta(seconds=s) for s in (1, 5, 30, 120, 600, 3600, 4 * 3600, 12 * 3600))
"""Waits between attempts; after the last the event is a dead letter, for a person."""

_KNOWN = text("SELECT event_id FROM inbox WHERE event_id = ANY(CAST(:ids AS uuid[]))")
_INBOX = text("INSERT INTO inbox (event_id) VALUES (:id) ON CONFLICT DO NOTHING RETURNING event_id")
_FAIL = text(
    "INSERT INTO event_failure (event_id, type, body, request_id, traceparent, attempts, error, failed_at, next_attempt_at) "
    "VALUES (:event_id, :type, CAST(:body AS jsonb), :request_id, :traceparent, :attempts, :error, :now, :next) "
    "ON CONFLICT (event_id) DO UPDATE SET attempts = excluded.attempts, error = excluded.error, "
    "failed_at = excluded.failed_at, next_attempt_at = excluded.next_attempt_at"
)
_DUE = text(
    "SELECT event_id, type, body::text AS body, request_id, traceparent, attempts FROM event_failure "
    "WHERE next_attempt_at <= :now ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED"
)
FAILED = "SELECT FROM event_failure WHERE next_attempt_at <= $1"
"""What there is to try again by now."""
_NEXT = text("SELECT min(next_attempt_at) FROM event_failure WHERE next_attempt_at > :now")
_DONE = text("DELETE FROM event_failure WHERE event_id = :id")


class Letter(NamedTuple):
    """An event on its way, not yet parsed."""

    event_id: UUID
    type: str
    body: str
    request_id: str | None
    traceparent: str | None


class Consumer:
    """Reads the tellers' streams as this service's consumer group."""

    def __init__(self, runtime: "Runtime", handlers: Handlers) -> None:
        self.runtime = runtime
        self.handlers = {event.wire_type: (event, tuple(functions)) for event, functions in handlers.items()}
        self.streams = sorted({stream_of(event.teller()) for event in handlers})
        self.group = runtime.service
        self.name = runtime.settings.instance or socket.gethostname()
        self.handled = 0

    async def run(self) -> None:
        """Handle events for as long as the process lives."""
        if not self.streams:
            return
        unread = True
        claimed_at = time.monotonic()
        while True:
            try:
                if unread:
                    await self._join()
                    await self._read("0")
                    unread = False
                if time.monotonic() - claimed_at > CLAIM_EVERY_S:
                    claimed_at = time.monotonic()
                    await self._claim()
                await self._read(">")
            except ResponseError as failure:
                if "NOGROUP" not in str(failure):
                    # Such as a Redis whose disk is full, which reads on and writes nothing.
                    log.warning("consumer waits", service=self.group, error=str(failure)[:200])
                    await asyncio.sleep(0.5)
                unread = True
            except Exception as failure:
                if is_disconnect(failure) or isinstance(failure, (RedisError, OSError)):
                    log.warning("consumer waits", service=self.group, error=type(failure).__name__)
                else:
                    log.exception("consumer failed", service=self.group)
                unread = True
                await asyncio.sleep(0.5)

    async def _join(self) -> None:
        for stream in self.streams:
            try:
                await self.runtime.redis.xgroup_create(stream, self.group, id="0", mkstream=True)
            except ResponseError as failure:
                if "BUSYGROUP" not in str(failure):
                    raise

    async def _read(self, after: str) -> None:
        """Read and handle: what is new (`>`), or all that this consumer took earlier and never acknowledged (`0`)."""
        while True:
            found: Any = await self.runtime.blocking_redis.xreadgroup(
                self.group,
                self.name,
                dict.fromkeys(self.streams, after),
                count=BATCH,
                block=BLOCK_MS if after == ">" else None,
            )
            pairs = found.items() if isinstance(found, dict) else (found or [])
            read = 0
            for stream, messages in pairs:
                # RESP3 nests a stream's messages once more than RESP2 does.
                flat = messages[0] if messages and isinstance(messages[0], list) else messages
                read += len(flat)
                await self._take_all(stream, flat)
            if after == ">" or read == 0:
                return

    async def _claim(self) -> None:
        """Take over what a consumer that died had read and not acknowledged."""
        for stream in self.streams:
            start: Any = "0-0"
            while True:
                claimed: Any = await self.runtime.redis.xautoclaim(
                    stream, self.group, self.name, CLAIM_IDLE_MS, start_id=start, count=BATCH
                )
                start, messages = claimed[:2]
                await self._take_all(stream, messages)
                if start in (b"0-0", "0-0"):
                    break

    async def _take_all(self, stream: str, messages: Sequence[tuple[bytes, Mapping[bytes, bytes] | None]]) -> None:
        """Handle these messages in their order, and acknowledge together those whose effect, or failure, is durable."""
        taken: list[bytes] = []
        try:
            letters = [(message_id, _letter(fields)) for message_id, fields in messages if fields]
            taken += [message_id for message_id, fields in messages if not fields]
            known = await self._known([letter.event_id for _, letter in letters if letter.type in self.handlers])
            for message_id, letter in letters:
                if letter.event_id not in known:
                    await self.deliver(letter)
                taken.append(message_id)
        finally:
            if taken:
                await self.runtime.redis.xack(stream, self.group, *taken)

    async def _known(self, ids: list[UUID]) -> set[UUID]:
        """Those that were handled before: a long history is told again whenever Redis has lost its memory."""
        if len(ids) <= 1:
            return set()
        async with self.runtime.db.session() as session:
            return set((await session.execute(_KNOWN, {"ids": ids})).scalars())

    async def deliver(self, letter: Letter) -> None:
        """Run the handlers of one event with its inbox row, in one transaction; a failure becomes a row to retry."""
        if letter.type not in self.handlers:
            return
        try:
            await self._handle(letter)
        except Exception as failure:
            if is_disconnect(failure):
                raise
            async with self.runtime.db.session() as session, session.begin():
                await self._fail(session, letter, 1, failure)

    async def _handle(self, letter: Letter) -> None:
        cls, functions = self.handlers[letter.type]
        mine = spans.child_of(letter.traceparent)
        trace.enter(letter.request_id, mine)
        began, failed = time.perf_counter(), True
        try:
            async with self.runtime.db.session() as session, session.begin():
                if (await session.execute(_INBOX, {"id": letter.event_id})).scalar_one_or_none() is None:
                    mine, failed = None, False
                    return
                event = cls.model_validate_json(letter.body)
                for function in functions:
                    await function(session, event)
            failed = False
        finally:
            spans.event(self.group, letter.type, began, mine, letter.traceparent, failed=failed)
        self.handled += 1
        EVENT_SECONDS.labels(self.group, letter.type).observe(max(0.0, (clock.now() - event.at).total_seconds()))

    async def _fail(self, session: AsyncSession, letter: Letter, attempts: int, failure: Exception) -> None:
        """Write down a failed attempt and when the next one is; none after the last, or for a body that cannot be read."""
        dead = attempts > len(RETRY_AFTER) or isinstance(failure, ValidationError)
        EVENT_FAILURES.labels(self.group, letter.type).inc()
        log.error(
            "event failed",
            service=self.group,
            type=letter.type,
            event_id=str(letter.event_id),
            attempts=attempts,
            dead=dead,
            exc_info=failure,
        )
        now = clock.now()
        await session.execute(
            _FAIL,
            {
                **letter._asdict(),
                "attempts": attempts,
                "error": f"{type(failure).__name__}: {failure}"[:2000],
                "now": now,
                "next": None if dead else now + RETRY_AFTER[attempts - 1],
            },
        )

    async def retry_due(self) -> int:
        """Try failed events again whose time has come; how many were tried."""
        tried = 0
        while True:
            async with self.runtime.db.session() as session, session.begin():
                row = (await session.execute(_DUE, {"now": clock.now()})).one_or_none()
                if row is None:
                    return tried
                tried += 1
                letter = Letter(row.event_id, row.type, row.body, row.request_id, row.traceparent)
                try:
                    # In its own transaction: this one only holds the claim on the row.
                    await self._handle(letter)
                except Exception as failure:
                    if is_disconnect(failure):
                        raise
                    await self._fail(session, letter, row.attempts + 1, failure)
                else:
                    await session.execute(_DONE, {"id": row.event_id})

    async def next_retry(self) -> datetime | None:
        """When the next failed event is tried again."""
        async with self.runtime.db.session() as session:
            found: datetime | None = (await session.execute(_NEXT, {"now": clock.now()})).scalar_one()
        return found

    async def forget(self) -> int:
        """Forget what was handled long ago, and processes that are gone; how many events."""
        await drop_the_dead(self.runtime.redis, self.streams, self.group)
        return await forget_handled(self.runtime.db, self.runtime.redis, self.streams, self.group)

    async def lag(self) -> int:
        """How many events of the streams this service has not handled yet."""
        behind = 0
        for stream in self.streams:
            with contextlib.suppress(ResponseError):
                for group in await self.runtime.redis.xinfo_groups(stream):
                    if group["name"] in (self.group, self.group.encode()):
                        behind += int(group["pending"]) + int(group.get("lag") or 0)
        return behind


def _letter(fields: Mapping[bytes, bytes]) -> Letter:
    context = orjson.loads(fields[b"context"])
    names = (fields[b"type"].decode(), fields[b"body"].decode(), context["request_id"], context["traceparent"])
    return Letter(UUID(fields[b"id"].decode()), *names)
