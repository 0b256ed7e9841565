"""Webhooks of the payment provider: verified, stored once, answered, and then handled, in any order and any number."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import orjson
import structlog
from fastapi import Request
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from kit import clock
from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.disconnects import is_disconnect
from kit.due import Due
from kit.errors import BadRequest, problems
from kit.group import GroupCommit, QueueFull
from kit.shapes import Out
from services.billing.models import ProviderEvent
from services.billing.provider import PaymentProviderUnavailable
from services.billing.provider_events import handle

log = structlog.get_logger(__name__)
router = new_router(prefix="/v1/webhooks", tags=["webhooks"], idempotent=False)

TOLERANCE_S = 300
LEASE = timedelta(seconds=10)
BACKOFF_S = (1, 2, 5, 15, 60, 300, 1800, 3600)
LONGEST_AWAY_S = 60
AT_ONCE = 8
"""Events handled at once: a burst waits in the database, and leaves connections and the provider to the people."""
STORED_AT_ONCE = 200
PAUSE_S = 1.0
_INBOX = "webhook_inbox"


class InvalidSignature(BadRequest):
    """This is not a message that the payment provider signed just now."""

    zh = "签名无效：这不是支付渠道刚刚签发的消息。"


class Received(Out):
    """The event is stored."""

    received: bool = True


def verify(payload: bytes, header: str, secrets: Sequence[str], *, now: float) -> None:
    """Check a `Stripe-Signature` header over the raw bytes; InvalidSignature for everything that is not a good one."""
    parts = [item.strip().partition("=") for item in header.split(",")]
    stamps = [value for name, _, value in parts if name == "t"]
    signatures = [value.encode("utf-8", "replace") for name, _, value in parts if name == "v1"]
    if len(stamps) != 1 or not (stamps[0].isascii() and stamps[0].isdigit() and len(stamps[0]) <= len("9999999999")):
        raise InvalidSignature
    signed = stamps[0].encode() + b"." + payload
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets]
    good = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures]
    if not any(good) or abs(now - int(stamps[0])) > TOLERANCE_S:
        raise InvalidSignature


def _parse(payload: bytes) -> tuple[str, str]:
    """The id and type of a signed event; what was signed but is no event is refused like a bad signature."""
    try:
        event = orjson.loads(payload)
        event_id, event_type, subject = event["id"], event["type"], event["data"]["object"]
    except (ValueError, TypeError, KeyError) as failure:
        raise InvalidSignature from failure
    for text in (event_id, event_type):
        if not isinstance(text, str) or not 1 <= len(text) <= 255 or not (text.isascii() and text.isprintable()):  # noqa: PLR2004
            raise InvalidSignature
    if not isinstance(subject, dict):
        raise InvalidSignature
    return event_id, event_type


@router.post("/stripe", responses=problems(InvalidSignature, QueueFull))
async def take_webhook(request: Request, rt: RuntimeDep) -> Received:
    """Store what the payment provider tells, once; it is handled right after the answer."""
    payload = await request.body()
    # Signatures are judged by the real clock: the provider does not know of the sandbox's.
    verify(payload, request.headers.get("stripe-signature", ""), rt.settings.webhook_secrets, now=time.time())
    event_id, event_type = _parse(payload)
    now = clock.now()
    row = {"id": event_id, "type": event_type, "payload": payload, "received_at": now, "next_attempt_at": now}
    inbox: Inbox = rt.state[_INBOX]
    await inbox.intake.submit(row | {"attempts": 0})
    inbox.woken.set()
    return Received()


class Inbox:
    """Stored events and their handling in this process; what is stored is in the database, this only knows that it is."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        # In a burst many are stored with one commit, by connections that nobody else waits for.
        self.intake = GroupCommit(rt.db, _store, name="webhooks", max_batch=STORED_AT_ONCE)
        self.woken = asyncio.Event()
        self.handled = 0
        self.turn = asyncio.Lock()

    async def run(self) -> None:
        """Handle events as they come, for as long as the process lives."""
        while True:
            await self.woken.wait()
            self.woken.clear()
            try:
                while await self.handle_some():
                    pass
            except Exception as failure:
                if not is_disconnect(failure):
                    log.exception("webhooks not handled")
                await asyncio.sleep(PAUSE_S)
                self.woken.set()

    async def handle_some(self) -> int:
        """Claim what is due, as much as may be handled at once, and handle it; how much that was."""
        async with self.turn:
            now = clock.now()
            async with self.rt.db.session() as session, session.begin():
                due = (
                    select(col(ProviderEvent.id))
                    .where(col(ProviderEvent.next_attempt_at) <= now)
                    .order_by(col(ProviderEvent.next_attempt_at))
                    .limit(AT_ONCE)
                    .with_for_update(skip_locked=True)
                )
                # The claim is a lease: what a dead process had taken comes up again.
                claim = update(ProviderEvent).where(col(ProviderEvent.id).in_(due)).values(next_attempt_at=now + LEASE)
                claimed = (await session.scalars(claim.returning(ProviderEvent))).all()
            work = (handle_stored(self.rt, event) for event in claimed)
            failures = [failure for failure in await asyncio.gather(*work, return_exceptions=True) if failure]
            self.handled += len(claimed)
            if failures:
                # Only a database that is away leaves an event unanswered; its lease brings it up again.
                raise failures[0]
            return len(claimed)


async def _store(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> Sequence[None]:
    # In the order of their ids: two processes that store the same events never wait for one another in a circle.
    in_order = sorted(rows, key=lambda row: row["id"])
    await connection.execute(upsert(ProviderEvent).on_conflict_do_nothing(), in_order)
    return [None] * len(rows)


@asynccontextmanager
async def webhook_handling(rt: Runtime) -> AsyncIterator[None]:
    """Take webhooks, and handle them as they come; what is in hand is handled to its end before the process ends."""
    inbox = Inbox(rt)
    rt.state[_INBOX] = inbox
    if not rt.settings.background:
        yield
        return
    worker = asyncio.create_task(inbox.run())
    try:
        yield
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(3), inbox.turn:
                worker.cancel()
        worker.cancel()
        await asyncio.wait({worker})


async def handle_stored(rt: Runtime, event: ProviderEvent) -> None:
    """Handle a claimed event; its effect and its being handled are one transaction. A failure is put off, never lost."""
    event_id, kind, attempts = event.id, event.type, event.attempts
    async with rt.db.session() as session:
        try:
            outcome = await handle(rt, session, kind, orjson.loads(event.payload)["data"]["object"])
            await session.execute(
                update(ProviderEvent)
                .where(col(ProviderEvent.id) == event_id)
                .values(handled_at=clock.now(), next_attempt_at=None, outcome=outcome)
            )
            await session.commit()
        except Exception as failure:
            await session.rollback()
            wait = BACKOFF_S[min(attempts, len(BACKOFF_S) - 1)]
            if isinstance(failure, PaymentProviderUnavailable):
                wait = min(wait, LONGEST_AWAY_S)
            else:
                log.exception("webhook not handled", event_id=event_id, type=kind)
            await session.execute(
                update(ProviderEvent)
                .where(col(ProviderEvent.id) == event_id, col(ProviderEvent.handled_at).is_(None))
                .values(
                    attempts=col(ProviderEvent.attempts) + 1,
                    next_attempt_at=clock.now() + timedelta(seconds=wait),
                    outcome=type(failure).__name__,
                )
            )
            await session.commit()


async def handle_leftovers(rt: Runtime) -> int:
    """Handle what is due: what came just now, what failed, and what a dead process had taken."""
    inbox: Inbox = rt.state[_INBOX]
    before = inbox.handled
    while await inbox.handle_some():
        pass
    return inbox.handled - before


due = Due("handle webhooks", handle_leftovers, waits="SELECT FROM provider_event WHERE next_attempt_at <= $1")
