"""Webhooks of the payment provider: verified, stored once, answered, and then handled, in any order and any number."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import orjson
import structlog
from fastapi import Request
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel import col

from kit import clock
from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.due import Due
from kit.errors import BadRequest, problems
from kit.shapes import Out
from services.billing.models import ProviderEvent
from services.billing.provider import PaymentProviderUnavailable
from services.billing.provider_events import handle

log = structlog.get_logger(__name__)
router = new_router(prefix="/v1/webhooks", tags=["webhooks"], idempotent=False)

TOLERANCE_S = 300
LEASE = timedelta(seconds=10)
BACKOFF_S = (1, 2, 5, 15, 60, 300, 1800, 3600)
BATCH = 50
_UNDER_WAY = "webhooks_under_way"


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


@router.post("/stripe", responses=problems(InvalidSignature))
async def take_webhook(request: Request, session: SessionDep, rt: RuntimeDep) -> Received:
    """Store what the payment provider tells, once; it is handled right after the answer."""
    payload = await request.body()
    # Signatures are judged by the real clock: the provider does not know of the sandbox's.
    verify(payload, request.headers.get("stripe-signature", ""), rt.settings.webhook_secrets, now=time.time())
    event_id, event_type = _parse(payload)
    now = clock.now()
    row = {
        "id": event_id,
        "type": event_type,
        "payload": payload,
        "received_at": now,
        "attempts": 0,
        # The lease of the handler started below; if this process dies first, periodic work takes over.
        "next_attempt_at": now + LEASE,
    }
    new = await session.scalar(
        upsert(ProviderEvent).values(row).on_conflict_do_nothing().returning(col(ProviderEvent.id))
    )
    if new is not None:
        await session.commit()
        _start(rt, event_id)
    return Received()


def _start(rt: Runtime, event_id: str) -> None:
    under_way: set[asyncio.Task[None]] = rt.state[_UNDER_WAY]
    task = asyncio.create_task(handle_stored(rt, event_id))
    under_way.add(task)
    task.add_done_callback(under_way.discard)


@asynccontextmanager
async def webhook_handling(rt: Runtime) -> AsyncIterator[None]:
    """Hold the handlers under way, and let them end before the process does."""
    under_way: set[asyncio.Task[None]] = set()
    rt.state[_UNDER_WAY] = under_way
    try:
        yield
    finally:
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=3)
            for task in late:
                task.cancel()


async def handle_stored(rt: Runtime, event_id: str) -> None:
    """Handle one stored event; its effect and its being handled are one transaction. A failure is put off, never lost."""
    async with rt.db.session() as session:
        event = await session.get(ProviderEvent, event_id)
        if event is None or event.handled_at is not None:
            return
        # Read now: a rollback empties the row, and it cannot be loaded again without waiting.
        kind, attempts = event.type, event.attempts
        await session.commit()
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
            if not isinstance(failure, PaymentProviderUnavailable):
                log.exception("webhook not handled", event_id=event_id, type=kind)
            wait = BACKOFF_S[min(attempts, len(BACKOFF_S) - 1)]
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
    """Wait for the handlers under way, then handle what they left: what failed, and what a dead process had taken."""
    under_way = set(rt.state[_UNDER_WAY])
    if under_way:
        await asyncio.wait(under_way)
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        due = (
            select(col(ProviderEvent.id))
            .where(col(ProviderEvent.next_attempt_at) <= now)
            .order_by(col(ProviderEvent.next_attempt_at))
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        claim = update(ProviderEvent).where(col(ProviderEvent.id).in_(due)).values(next_attempt_at=now + LEASE)
        claimed = (await session.scalars(claim.returning(col(ProviderEvent.id)))).all()
    for event_id in claimed:
        await handle_stored(rt, event_id)
    return len(claimed) + len(under_way)


due = Due("handle webhooks", handle_leftovers)
