"""Deliveries: events go to the webhook, signed, over real HTTP, again and again until they are taken."""

import asyncio
import time
import zlib
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import stripe
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.text import dump_json
from services.billing.sandbox.faults import Fault, take
from services.billing.sandbox.models import SandboxDelivery, SandboxEvent
from services.billing.sandbox.shapes import event_json
from services.billing.settings import Settings

if TYPE_CHECKING:
    from kit.app import Runtime

BATCH = 32
TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 3600.0
_SPACE = zlib.crc32(b"sandbox delivery") - 2**31

# Held by advisory locks rather than row locks: a transaction that has written nothing delays nobody's outbox, while the
# receiver, often this very process, takes its time; and a killed courier's locks end with its connection.
_TRY = text(
    "WITH due AS MATERIALIZED (SELECT id FROM sandbox_delivery WHERE delivered_at IS NULL AND due_at <= :now "
    "ORDER BY id LIMIT :batch) SELECT id FROM due WHERE pg_try_advisory_xact_lock(:space, id::int)"
)
_WAIT = text(
    "WITH due AS MATERIALIZED (SELECT id FROM sandbox_delivery WHERE delivered_at IS NULL AND due_at <= :now "
    "ORDER BY id LIMIT :batch) SELECT id, pg_advisory_xact_lock(:space, id::int) FROM due ORDER BY id"
)

Parcel = tuple[SandboxDelivery, SandboxEvent, Fault | None]


def webhook_url(settings: Settings) -> str:
    """Where events go: through the gateway, as Stripe's would, unless a setting says otherwise."""
    return settings.sandbox_webhook_url or f"{settings.public_url.rstrip('/')}/v1/webhooks/stripe"


def signature(body: bytes, secret: str) -> str:
    """The Stripe-Signature header, by the real clock, as every signature of a webhook."""
    header: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(time.time()))
    return header


def webhook_client() -> httpx.AsyncClient:
    """The courier's HTTP client."""
    # The address is this machine's: no proxies, and no certificates worth the time to load.
    return httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=False, follow_redirects=False)  # noqa: S501


async def deliver(rt: "Runtime", client: httpx.AsyncClient, *, wait: bool) -> tuple[int, int]:
    """Deliver one batch: how many deliveries were attempted, and how many of them taken.

    `wait` waits for what another courier has in hand, instead of leaving it alone.
    """
    async with rt.db.session() as session, session.begin():
        parcels = await _claim(rt, session, wait=wait)
        routes: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            routes.setdefault(parcel[0].subject, []).append(parcel)
        await asyncio.gather(*(_walk(rt, client, route) for route in routes.values()))
        # Only here does the transaction write.
    return len(parcels), sum(delivery.delivered_at is not None for delivery, _, _ in parcels)


async def _claim(rt: "Runtime", session: AsyncSession, *, wait: bool) -> Sequence[Parcel]:
    now = clock.now()
    statement = _WAIT if wait else _TRY
    found = await session.execute(statement, {"now": now, "batch": BATCH, "space": _SPACE})
    ids = [row.id for row in found]
    if not ids:
        return ()
    delivery: Any = SandboxDelivery
    event: Any = SandboxEvent
    # Asked again under the lock: another courier may have brought it in between.
    rows = await session.execute(
        select(delivery, event)
        .join(event, event.id == delivery.event_id)
        .where(delivery.id.in_(ids), delivery.delivered_at.is_(None), delivery.due_at <= now)
        .order_by(delivery.id)
    )
    return [(row[0], row[1], await take(rt, "deliveries", row[1].type)) for row in rows.all()]


async def _walk(rt: "Runtime", client: httpx.AsyncClient, route: list[Parcel]) -> None:
    """Deliver what concerns one session, one after the other; the reordered last, and last first."""
    late = [parcel for parcel in route if parcel[2] and parcel[2].kind == "reorder"]
    for delivery, event, fault in [*(parcel for parcel in route if parcel not in late), *reversed(late)]:
        kind = fault.kind if fault else None
        if fault and kind == "delay":
            delivery.due_at = clock.now() + timedelta(seconds=fault.seconds)
            continue
        error: str | None = "failed before it was sent"
        if kind != "error":
            error = await _post(rt, client, event)
        if kind == "duplicate":
            error = await _post(rt, client, event)
        if kind == "drop":
            error = "the answer was lost"
        delivery.attempts += 1
        delivery.last_error = error
        if error is None:
            delivery.delivered_at = clock.now()
        else:
            pause = min(FIRST_RETRY_S * 2 ** min(delivery.attempts, 20), LONGEST_RETRY_S)
            delivery.due_at = clock.now() + timedelta(seconds=pause)


async def _post(rt: "Runtime", client: httpx.AsyncClient, event: SandboxEvent) -> str | None:
    """What went wrong, or None when the receiver took it."""
    body = dump_json(event_json(event))
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": signature(body, rt.settings.webhook_secrets[0]),
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
    }
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await client.post(webhook_url(rt.settings), content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as failure:
        return type(failure).__name__
    return None if answer.is_success else f"answered {answer.status_code}"
