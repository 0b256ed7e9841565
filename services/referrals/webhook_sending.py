"""Sending webhooks: one at a time to each endpoint, many endpoints beside one another, each try written down."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.outbound import AddressRefused, Outbound, Reply
from kit.text import instant
from kit.vault import open_vault
from services.referrals.webhook_endpoints import outbound_of
from services.referrals.webhook_log import webhook_id
from services.referrals.webhook_models import WebhookDelivery, WebhookEndpoint
from services.referrals.webhook_rules import judge, sign

log = structlog.get_logger(__name__)

ANSWER_S: Final = 15.0
GIVE_UP_AFTER: Final = timedelta(days=5)
LEASE: Final = timedelta(seconds=120)
AT_ONCE: Final = 64
PORTION: Final = 20
WRITE_EVERY_S: Final = 0.5
POLL_S: Final = 0.25

_TAKE: Final = text("""
UPDATE webhook_endpoint SET busy_until = :until WHERE id IN (
    SELECT endpoint.id FROM webhook_endpoint endpoint
    WHERE endpoint.status = 'active' AND (endpoint.busy_until IS NULL OR endpoint.busy_until < now())
    AND endpoint.id <> ALL(:under_way)
    AND EXISTS (SELECT FROM webhook_delivery WHERE endpoint_id = endpoint.id AND status = 'pending'
        AND next_attempt_at <= :now)
    LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING id
""")
_PORTION: Final = text("""
SELECT delivery.id, delivery.tries, message.id AS message_id, message.body
FROM webhook_delivery delivery JOIN webhook_message message ON message.id = delivery.message_id
WHERE delivery.endpoint_id = :endpoint AND delivery.status = 'pending' AND delivery.next_attempt_at <= :now
ORDER BY delivery.place LIMIT :most
""")
_WRITE: Final = text("""
UPDATE webhook_delivery SET status = told.status, tries = told.tries, next_attempt_at = told.next_attempt_at,
    attempts = attempts || jsonb_build_array(told.attempt)
FROM (SELECT unnest(CAST(:ids AS uuid[])) AS id, unnest(CAST(:statuses AS text[])) AS status,
    unnest(CAST(:tries AS int[])) AS tries, unnest(CAST(:nexts AS timestamptz[])) AS next_attempt_at,
    unnest(CAST(:attempts AS jsonb[])) AS attempt) AS told
WHERE webhook_delivery.id = told.id AND webhook_delivery.status = 'pending'
""")


@dataclass(frozen=True)
class Try:
    """One try: what is written of it."""

    delivery_id: UUID
    status: str
    tries: int
    next_attempt_at: datetime | None
    attempt: dict[str, Any]
    gone: bool


class Sender:
    """What sends in this process; each endpoint has one sender at a time among all processes, by lease."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._outbound = outbound_of(rt)
        self._under_way: dict[UUID, asyncio.Task[None]] = {}

    async def keep_sending(self) -> None:
        """Look for what is due for as long as the process lives."""
        while True:
            try:
                await self.start_due()
            except Exception:
                log.exception("webhooks wait")
            await asyncio.sleep(POLL_S)

    async def start_due(self) -> int:
        """Start on every endpoint that something is due for, as far as there is room; how many were started."""
        room = AT_ONCE - len(self._under_way)
        if room <= 0:
            return 0
        real = await self._real_until()
        asked = {"until": real, "now": clock.now(), "most": room, "under_way": list(self._under_way)}
        async with self._rt.db.session() as session, session.begin():
            taken = (await session.execute(_TAKE, asked)).scalars().all()
        for endpoint_id in taken:
            task = asyncio.create_task(self._send_to(endpoint_id))
            self._under_way[endpoint_id] = task
            task.add_done_callback(partial(self._ended, endpoint_id))
        return len(taken)

    def _ended(self, endpoint_id: UUID, _: asyncio.Task[None]) -> None:
        self._under_way.pop(endpoint_id, None)

    async def _real_until(self) -> datetime:
        # Leases are judged by the database's clock: the product's may jump past one while its holder is at work.
        async with self._rt.db.session() as session:
            now: datetime = (await session.execute(select(func.now()))).scalar_one()
        return now + LEASE

    async def settle(self, seconds: float) -> int:
        """Start what is due and wait for it for a while; how many endpoints were started."""
        started = await self.start_due()
        if under_way := set(self._under_way.values()):
            await asyncio.wait(under_way, timeout=seconds)
        return started

    async def stop(self) -> None:
        """Let those under way end, briefly; what is not written down is sent again under its own webhook-id."""
        if under_way := set(self._under_way.values()):
            _, late = await asyncio.wait(under_way, timeout=2)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send_to(self, endpoint_id: UUID) -> None:
        try:
            while await self._send_portion(endpoint_id):
                pass
        except Exception:
            log.exception("webhooks of an endpoint wait", endpoint_id=str(endpoint_id))
        finally:
            with suppress(Exception):
                async with self._rt.db.session() as session, session.begin():
                    endpoint = await session.get(WebhookEndpoint, endpoint_id)
                    if endpoint is not None:
                        endpoint.busy_until = None

    async def _send_portion(self, endpoint_id: UUID) -> bool:
        """Send what is due to an endpoint, oldest first; whether there may be more."""
        async with self._rt.db.session() as session, session.begin():
            endpoint = await session.get(WebhookEndpoint, endpoint_id, with_for_update=True)
            if endpoint is None or endpoint.status != "active":
                return False
            endpoint.busy_until = await self._real_until()
            asked = {"endpoint": endpoint_id, "now": clock.now(), "most": PORTION}
            due = (await session.execute(_PORTION, asked)).all()
        vault = open_vault(self._rt.settings.webhook_key)
        secrets = [vault.unseal(endpoint.sealed_secret)]
        if endpoint.sealed_old_secret and endpoint.old_secret_until and endpoint.old_secret_until > clock.now():
            secrets.append(vault.unseal(endpoint.sealed_old_secret))
        tried: list[Try] = []
        written_at = time.monotonic()
        for delivery in due:
            tried.append(await self._try(endpoint.url, secrets, delivery))
            # A slow endpoint's tries are written one by one, so that the log shows them and little is sent twice.
            if time.monotonic() - written_at > WRITE_EVERY_S or tried[-1].status != "succeeded":
                if not await self._write(endpoint_id, tried):
                    return False
                tried, written_at = [], time.monotonic()
        return await self._write(endpoint_id, tried) and len(due) == PORTION

    async def _try(self, url: str, secrets: Sequence[str], delivery: Any) -> Try:
        body, stamp, message_id = delivery.body.encode(), int(time.time()), webhook_id(delivery.message_id)
        headers = {
            "content-type": "application/json",
            "user-agent": "heika-webhooks/1",
            "webhook-id": message_id,
            # The real clock's: who verifies it knows no other.
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(secrets, message_id, stamp, body),
        }
        at, started = clock.now(), time.monotonic()
        reply, error = await _post(self._outbound, url, headers, body)
        took = reply.duration_ms if reply else int((time.monotonic() - started) * 1000)
        attempt = {
            "at": instant(at),
            "response_status": reply.status if reply else None,
            "duration_ms": took,
            "error": error,
            "response_body": reply.body[:1000].decode("utf-8", "replace").replace("\x00", "") if reply else None,
        }
        status, wait = judge(reply, delivery.tries)
        return Try(
            delivery_id=delivery.id,
            status=status,
            tries=delivery.tries + 1,
            next_attempt_at=at + wait if wait is not None else None,
            attempt=attempt,
            gone=reply is not None and reply.status == HTTPStatus.GONE,
        )

    async def _write(self, endpoint_id: UUID, tried: Sequence[Try]) -> bool:
        """Write tries down, and what they say of the endpoint; whether it goes on being sent to."""
        if not tried:
            return True
        now, busy_until = clock.now(), await self._real_until()
        async with self._rt.db.session() as session, session.begin():
            endpoint = await session.get(WebhookEndpoint, endpoint_id, with_for_update=True)
            if endpoint is None:
                return False
            told = {
                "ids": [one.delivery_id for one in tried],
                "statuses": [one.status for one in tried],
                "tries": [one.tries for one in tried],
                "nexts": [one.next_attempt_at for one in tried],
                "attempts": [orjson.dumps(one.attempt).decode() for one in tried],
            }
            await session.execute(_WRITE, told)
            # A portion of hanging tries outlasts the lease it began with; who goes on without one sends beside another.
            endpoint.busy_until = busy_until
            for one in tried:
                if one.status == "succeeded":
                    endpoint.failing_since = None
                elif endpoint.failing_since is None:
                    endpoint.failing_since = now
            failing = endpoint.failing_since
            if any(one.gone for one in tried):
                await _disable(session, endpoint, "gone")
            elif failing is not None and now - failing >= GIVE_UP_AFTER:
                await _disable(session, endpoint, "failing")
            return endpoint.status == "active"


async def _post(outbound: Outbound, url: str, headers: dict[str, str], body: bytes) -> tuple[Reply | None, str | None]:
    try:
        return await outbound.post(url, headers, body, seconds=ANSWER_S), None
    except AddressRefused:
        return None, "address_refused"
    except TimeoutError:
        return None, "timeout"
    except OSError as failure:
        return None, str(failure)[:200] or type(failure).__name__


async def _disable(session: AsyncSession, endpoint: WebhookEndpoint, reason: str) -> None:
    endpoint.status, endpoint.reason, endpoint.disabled_at = "disabled", reason, clock.now()
    await session.flush()
    log.warning("webhook endpoint disabled", endpoint_id=str(endpoint.id), reason=reason)


@asynccontextmanager
async def webhook_sender(rt: Runtime) -> AsyncIterator[None]:
    """Hold the client and the sender for the life of the process; ValueError for a bad WEBHOOK_ALLOW_CIDRS."""
    rt.settings.webhook_key  # noqa: B018 - a missing key must stop the start, not the first webhook
    outbound = Outbound(rt.settings.webhook_networks, connections=AT_ONCE * 2)
    rt.state["outbound"] = outbound
    sender = Sender(rt)
    rt.state["webhooks"] = sender
    looking = asyncio.create_task(sender.keep_sending()) if rt.settings.background else None
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await sender.stop()
        await outbound.close()


async def send_due(rt: Runtime) -> int:
    """Send what is due; how many endpoints had something."""
    sender: Sender = rt.state["webhooks"]
    return await sender.settle(1.0)


async def next_try(rt: Runtime) -> datetime | None:
    """When the next try will be due."""
    async with rt.db.session() as session:
        waiting = select(func.min(col(WebhookDelivery.next_attempt_at))).where(
            col(WebhookDelivery.status) == "pending", col(WebhookDelivery.next_attempt_at) > clock.now()
        )
        return (await session.execute(waiting)).scalar_one()


due = Due("send webhooks", send_due, every_s=5.0, next_at=next_try)
