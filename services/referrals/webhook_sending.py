"""Sending webhooks: one at a time to each endpoint, many endpoints beside one another, each try written down."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Row, func, select, text
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.disconnects import is_disconnect
from kit.due import Due
from kit.outbound import Outbound
from services.referrals.webhook_endpoints import outbound_of, secrets_of
from services.referrals.webhook_models import WebhookDelivery
from services.referrals.webhook_rules import GIVE_UP_AFTER
from services.referrals.webhook_tries import Try, try_once

log = structlog.get_logger(__name__)

LEASE: Final = timedelta(seconds=40)
"""Longer than the longest time between two writes: a try, and what was sent before it. After a crash, all wait for it."""
AT_ONCE: Final = 128
SLOW_S: Final = 1.0
"""Who takes longer is slow; half of the places are kept from the slow ones, however many they are."""
PORTION: Final = 50
WRITE_EVERY_S: Final = 0.5
POLL_S: Final = 0.25
WRITERS: Final = 4
"""How many of the process' database connections all of this may hold at a time."""

# Leases are judged by the database's clock: the product's may jump past one while its holder is at work.
_TAKE: Final = text("""
UPDATE webhook_endpoint SET busy_until = now() + CAST(:lease AS interval) WHERE id IN (
    SELECT endpoint.id FROM webhook_endpoint endpoint JOIN partner ON partner.id = endpoint.partner_id
    WHERE endpoint.status = 'active' AND partner.active
    AND (endpoint.busy_until IS NULL OR endpoint.busy_until < now())
    AND endpoint.id <> ALL(:others) AND (CAST(:only AS uuid[]) IS NULL OR endpoint.id = ANY(:only))
    AND EXISTS (SELECT FROM webhook_delivery WHERE endpoint_id = endpoint.id AND status = 'pending'
        AND next_attempt_at <= :now)
    LIMIT :most FOR UPDATE OF endpoint SKIP LOCKED
) RETURNING id, busy_until
""")
# Asked four times a second: for a tenth of what it takes to find nothing to take.
_LOOK: Final = """
SELECT EXISTS (SELECT FROM webhook_endpoint endpoint
    WHERE status = 'active' AND (busy_until IS NULL OR busy_until < now())
    AND EXISTS (SELECT FROM webhook_delivery WHERE endpoint_id = endpoint.id AND status = 'pending'
        AND next_attempt_at <= $1)) AS due
"""
_RENEW: Final = text("""
UPDATE webhook_endpoint SET busy_until = now() + CAST(:lease AS interval)
WHERE id = :endpoint AND busy_until = :held AND status = 'active'
RETURNING busy_until, url, sealed_secret, old_secrets
""")
_RELEASE: Final = text("UPDATE webhook_endpoint SET busy_until = NULL WHERE id = :endpoint AND busy_until = :held")
_PORTION: Final = text("""
SELECT delivery.id, delivery.tries, message.id AS message_id, message.body
FROM webhook_delivery delivery JOIN webhook_message message ON message.id = delivery.message_id
WHERE delivery.endpoint_id = :endpoint AND delivery.status = 'pending' AND delivery.next_attempt_at <= :now
ORDER BY delivery.place LIMIT :most
""")
_JUDGE: Final = text("""
WITH found AS (
    SELECT id, CASE WHEN :gone THEN 'gone'
        WHEN status = 'active' AND NOT :heard AND failing_since <= :given_up THEN 'failing' END AS stops
    FROM webhook_endpoint WHERE id = :endpoint FOR UPDATE
)
UPDATE webhook_endpoint SET
    busy_until = CASE WHEN busy_until <> :held THEN busy_until WHEN :more THEN now() + CAST(:lease AS interval) END,
    failing_since = CASE WHEN :ends_well THEN NULL WHEN :heard THEN :now ELSE coalesce(failing_since, :now) END,
    status = CASE WHEN stops IS NULL THEN status ELSE 'disabled' END,
    reason = coalesce(stops, reason),
    disabled_at = CASE WHEN stops IS NULL THEN disabled_at ELSE :now END
FROM found WHERE webhook_endpoint.id = found.id
RETURNING CASE WHEN :more AND busy_until = now() + CAST(:lease AS interval) THEN busy_until END AS held, stops
""")
# The log holds the latest fifty tries of each: whoever sends again and again must not fill the table.
_WRITE: Final = text("""
UPDATE webhook_delivery SET status = told.status, tries = told.tries, next_attempt_at = told.next_attempt_at,
    attempts = CASE WHEN jsonb_array_length(attempts) >= 50 THEN attempts - 0 ELSE attempts END
        || jsonb_build_array(told.attempt),
    ended_at = CASE WHEN told.status <> 'pending' THEN CAST(:now AS timestamptz) END
FROM (SELECT unnest(CAST(:ids AS uuid[])) AS id, unnest(CAST(:statuses AS text[])) AS status,
    unnest(CAST(:tries AS int[])) AS tries, unnest(CAST(:nexts AS timestamptz[])) AS next_attempt_at,
    unnest(CAST(:attempts AS jsonb[])) AS attempt) AS told
WHERE webhook_delivery.id = told.id AND webhook_delivery.status = 'pending'
""")


class Sender:
    """What sends in this process; each endpoint has one sender at a time among all processes, by lease."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._outbound = outbound_of(rt)
        self._under_way: dict[UUID, asyncio.Task[None]] = {}
        self._held: dict[UUID, datetime] = {}
        self._slow: set[UUID] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(WRITERS)

    async def keep_sending(self) -> None:
        """Look for what is due for as long as the process lives."""
        while True:
            try:
                if await self._is_due():
                    await self.start_due()
            except Exception as failure:
                if is_disconnect(failure):
                    log.warning("webhooks wait: database away")
                else:
                    log.exception("webhooks wait")
            await asyncio.sleep(POLL_S)

    async def _is_due(self) -> bool:
        """Whether anything is due to an endpoint that nobody sends to."""
        [look] = await self._rt.db.line.fetch(_LOOK, clock.now())
        return bool(look["due"])

    async def start_due(self) -> int:
        """Start on every endpoint that something is due for, as far as there is room; how many were started."""
        quick = await self._take(AT_ONCE - len(self._under_way), self._slow | self._under_way.keys())
        self._start(quick)
        room = min(AT_ONCE - len(self._under_way), AT_ONCE // 2 - len(self._slow & self._under_way.keys()))
        slow = await self._take(room, self._under_way.keys(), only=self._slow) if self._slow else []
        self._start(slow)
        return len(quick) + len(slow)

    async def _take(self, most: int, others: Iterable[UUID], only: Iterable[UUID] | None = None) -> Sequence[Row[Any]]:
        if most <= 0:
            return []
        asked = {
            "lease": LEASE,
            "now": clock.now(),
            "most": most,
            "others": list(others),
            "only": None if only is None else list(only),
        }
        async with self._turn, self._rt.db.session() as session, session.begin():
            return (await session.execute(_TAKE, asked)).all()

    def _start(self, taken: Sequence[Row[Any]]) -> None:
        for row in taken:
            endpoint_id: UUID = row.id
            self._held[endpoint_id] = row.busy_until
            task = asyncio.create_task(self._send_to(endpoint_id))
            self._under_way[endpoint_id] = task
            task.add_done_callback(partial(self._ended, endpoint_id))

    def _ended(self, endpoint_id: UUID, _: asyncio.Task[None]) -> None:
        self._under_way.pop(endpoint_id, None)

    async def settle(self, seconds: float) -> int:
        """Start what is due and wait for it for a while, once for each try; how many endpoints were started."""
        started = await self.start_due()
        # The sandbox's clock stops many times on its way: an endpoint that hangs must cost it a second, not one a stop.
        self._late &= set(self._under_way.values())
        if fresh := set(self._under_way.values()) - self._late:
            _, late = await asyncio.wait(fresh, timeout=seconds)
            self._late |= late
        return started

    async def stop(self) -> None:
        """Let those under way end, briefly; what is not written down is sent again under its own webhook-id."""
        if under_way := set(self._under_way.values()):
            _, late = await asyncio.wait(under_way, timeout=2)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send_to(self, endpoint_id: UUID) -> None:
        """Send until nothing is due, or the endpoint is slow: then others have its place before it goes on."""
        try:
            while await self._send_portion(endpoint_id):
                pass
        except Exception:
            log.exception("webhooks of an endpoint wait", endpoint_id=str(endpoint_id))
        finally:
            held = self._held.pop(endpoint_id, None)
            if held is not None:
                with suppress(Exception):
                    async with self._turn, self._rt.db.session() as session, session.begin():
                        await session.execute(_RELEASE, {"endpoint": endpoint_id, "held": held})

    async def _send_portion(self, endpoint_id: UUID) -> bool:
        """Send what is due to an endpoint, oldest first; whether to go on at once."""
        renewal = {"endpoint": endpoint_id, "held": self._held[endpoint_id], "lease": LEASE}
        asked = {"endpoint": endpoint_id, "now": clock.now(), "most": PORTION}
        async with self._turn, self._rt.db.session() as session, session.begin():
            endpoint = (await session.execute(_RENEW, renewal)).one_or_none()
            due = (await session.execute(_PORTION, asked)).all() if endpoint is not None else []
        if endpoint is None:
            return False
        self._held[endpoint_id] = endpoint.busy_until
        if not due:
            return False
        secrets = secrets_of(self._rt, endpoint.sealed_secret, endpoint.old_secrets)
        tried: list[Try] = []
        until = time.monotonic() + WRITE_EVERY_S
        # A slow endpoint's tries are written one by one, so that the log shows them and little is sent twice.
        while len(tried) < len(due) and time.monotonic() < until and not (tried and tried[-1].gone):
            tried.append(await try_once(self._outbound, endpoint.url, secrets, due[len(tried)]))
        slow = tried[-1].seconds >= SLOW_S
        more = not slow and (len(tried) < len(due) or len(due) == PORTION)
        (self._slow.add if slow else self._slow.discard)(endpoint_id)
        await self._write(endpoint_id, tried, more=more)
        return more

    async def _write(self, endpoint_id: UUID, tried: Sequence[Try], *, more: bool) -> None:
        """Write tries down, and what they say of the endpoint, and hold it for the next ones or let it go."""
        now = clock.now()
        verdict = {
            "endpoint": endpoint_id,
            "held": self._held[endpoint_id],
            "lease": LEASE,
            "more": more,
            "now": now,
            "ends_well": tried[-1].status == "succeeded",
            "heard": any(one.status == "succeeded" for one in tried),
            "gone": tried[-1].gone,
            "given_up": now - GIVE_UP_AFTER,
        }
        told = {
            "now": now,
            "ids": [one.delivery_id for one in tried],
            "statuses": [one.status for one in tried],
            "tries": [one.tries for one in tried],
            "nexts": [one.next_attempt_at for one in tried],
            "attempts": [orjson.dumps(one.attempt).decode() for one in tried],
        }
        async with self._turn, self._rt.db.session() as session, session.begin():
            endpoint = (await session.execute(_JUDGE, verdict)).one_or_none()
            await session.execute(_WRITE, told)
        if endpoint is None or endpoint.held is None:
            del self._held[endpoint_id]
        else:
            self._held[endpoint_id] = endpoint.held
        if endpoint is not None and endpoint.stops is not None:
            log.warning("webhook endpoint disabled", endpoint_id=str(endpoint_id), reason=endpoint.stops)


@asynccontextmanager
async def webhook_sender(rt: Runtime) -> AsyncIterator[None]:
    """Hold the client and the sender for the life of the process; ValueError for a bad WEBHOOK_ALLOW_CIDRS."""
    rt.settings.webhook_key  # noqa: B018 - a missing key must stop the start, not the first webhook
    outbound = Outbound(rt.settings.webhook_networks)
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


# In the background the sender looks for itself: this is for whoever moves the clock.
due = Due("send webhooks", send_due, every_s=60.0, next_at=next_try)
