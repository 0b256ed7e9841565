"""The courier: what the provider does by itself. Sessions end, late money arrives, and every event reaches the webhook."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from kit import clock
from kit.disconnects import is_disconnect
from kit.due import Due
from services.billing.sandbox.deliveries import deliver, webhook_client
from services.billing.sandbox.events import waiting, wake
from services.billing.sandbox.idempotency import forget_keys
from services.billing.sandbox.payments import close_expired, settle_payments
from services.billing.sandbox.refunds import settle_refunds

if TYPE_CHECKING:
    import httpx

    from kit.app import Runtime

log = structlog.get_logger(__name__)

# What failed to be delivered waits without being waited for: a webhook that is away would stop the clock every hour.
_NEXT = text(
    "SELECT least((SELECT min(settles_at) FROM sandbox_session WHERE settles_at > :now), (SELECT min(due_at) "
    "FROM sandbox_delivery WHERE delivered_at IS NULL AND attempts = 0 AND due_at > :now))"
)
# Keys that are too old (see idempotency.py) are dropped with whatever comes next.
_WAITS = """
SELECT FROM sandbox_session WHERE status = 'open' AND expires_at <= $1
UNION ALL SELECT FROM sandbox_session WHERE settles_at <= $1
UNION ALL SELECT FROM sandbox_refund WHERE status = 'pending'
UNION ALL SELECT FROM sandbox_delivery WHERE delivered_at IS NULL AND due_at <= $1
"""
PAUSE_S = 1.0
GRACE_S = 2.0
_CLIENT = "courier's client"


async def drain(rt: "Runtime") -> int:
    """Do everything the provider has to do by now, deliveries in other hands awaited; how much that was."""
    if not rt.settings.simulated:
        return 0
    await forget_keys(rt)
    # To make one takes longer than to see that there is nothing to deliver.
    if (client := rt.state.get(_CLIENT)) is not None:
        return await _work(rt, client, wait=True)
    async with webhook_client() as client:
        return await _work(rt, client, wait=True)


@asynccontextmanager
async def running_courier(rt: "Runtime") -> AsyncIterator[None]:
    """Deliver as soon as something commits, for as long as the context lasts; what fails waits for the next due run."""
    if not (rt.settings.simulated and rt.settings.background):
        yield
        return
    woken, over = asyncio.Event(), asyncio.Event()
    woken.set()
    waiting.add(woken)
    courier = asyncio.create_task(_run(rt, woken, over))
    try:
        yield
    finally:
        # What is in hand is brought and written down, so that it is not brought again after the next start.
        over.set()
        wake()
        waiting.discard(woken)
        await asyncio.wait({courier}, timeout=GRACE_S)
        courier.cancel()
        with suppress(asyncio.CancelledError):
            await courier


async def _run(rt: "Runtime", woken: asyncio.Event, over: asyncio.Event) -> None:
    async with webhook_client() as client:
        rt.state[_CLIENT] = client
        try:
            while not over.is_set():
                await woken.wait()
                woken.clear()
                try:
                    await _work(rt, client, wait=False)
                except Exception as failure:
                    if is_disconnect(failure):
                        log.warning("courier waits: database away")
                    else:
                        log.exception("courier failed")
                    await asyncio.sleep(PAUSE_S)
                    woken.set()
        finally:
            rt.state.pop(_CLIENT, None)


async def _work(rt: "Runtime", client: "httpx.AsyncClient", *, wait: bool) -> int:
    done = await close_expired(rt) + await settle_payments(rt) + await settle_refunds(rt)
    while True:
        attempted, taken = await deliver(rt, client, wait=wait)
        done += taken
        if not attempted:
            return done


async def next_at(rt: "Runtime") -> datetime | None:
    """When money paid "later" arrives, or an event held back leaves."""
    if not rt.settings.simulated:
        return None
    async with rt.db.session() as session:
        found: datetime | None = (await session.execute(_NEXT, {"now": clock.now()})).scalar_one()
    return found


due = Due("run the sandbox provider", drain, next_at=next_at, waits=_WAITS)
