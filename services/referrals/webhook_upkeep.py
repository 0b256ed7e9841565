"""Upkeep of webhooks: who hears nothing for five days is disabled, and what was sent is forgotten after thirty."""

from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import func, select, text
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.due import Due
from services.referrals.webhook_events import TEST
from services.referrals.webhook_models import WebhookEndpoint
from services.referrals.webhook_rules import GIVE_UP_AFTER

log = structlog.get_logger(__name__)

KEPT: Final = timedelta(days=30)
BATCH: Final = 5000

# What is overdue is tried first: while nobody was there to send it, nothing failed. That try disables if it must.
_GIVE_UP: Final = text("""
UPDATE webhook_endpoint SET status = 'disabled', reason = 'failing', disabled_at = :now
WHERE status = 'active' AND failing_since <= :since AND NOT EXISTS (SELECT FROM webhook_delivery
    WHERE endpoint_id = webhook_endpoint.id AND status = 'pending' AND next_attempt_at <= :now)
RETURNING id
""")

_FORGET: Final = (
    text("""
    DELETE FROM webhook_delivery WHERE id IN (
        SELECT id FROM webhook_delivery WHERE ended_at <= :before ORDER BY ended_at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING id
    """),
    # What waits for an endpoint that nobody started again waits for nothing.
    text("""
    DELETE FROM webhook_delivery WHERE id IN (
        SELECT delivery.id FROM webhook_delivery delivery JOIN webhook_endpoint endpoint
            ON endpoint.id = delivery.endpoint_id
        WHERE delivery.status = 'pending' AND delivery.created_at <= :before
            AND endpoint.status = 'disabled' AND endpoint.disabled_at <= :before
        LIMIT :most FOR UPDATE OF delivery SKIP LOCKED
    ) RETURNING id
    """),
    text("""
    DELETE FROM webhook_message WHERE id IN (
        SELECT id FROM webhook_message WHERE body IS NOT NULL AND at <= :before AND type = :test
            AND NOT EXISTS (SELECT FROM webhook_delivery WHERE message_id = webhook_message.id)
        ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING id
    """),
    # The row stays: it is what keeps the same thing from being told again.
    text("""
    UPDATE webhook_message SET body = NULL WHERE id IN (
        SELECT id FROM webhook_message WHERE body IS NOT NULL AND at <= :before AND type <> :test
            AND NOT EXISTS (SELECT FROM webhook_delivery WHERE message_id = webhook_message.id)
        ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
    ) RETURNING id
    """),
)


async def give_up(rt: Runtime) -> int:
    """Disable endpoints at which nothing was accepted for five days; how many."""
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        ended = (await session.execute(_GIVE_UP, {"now": now, "since": now - GIVE_UP_AFTER})).scalars().all()
    for endpoint_id in ended:
        log.warning("webhook endpoint disabled", endpoint_id=str(endpoint_id), reason="failing")
    return len(ended)


async def next_giving_up(rt: Runtime) -> datetime | None:
    """When the next endpoint will have failed for five days."""
    async with rt.db.session() as session:
        failing = select(func.min(col(WebhookEndpoint.failing_since))).where(
            col(WebhookEndpoint.status) == "active", col(WebhookEndpoint.failing_since) > clock.now() - GIVE_UP_AFTER
        )
        since: datetime | None = (await session.execute(failing)).scalar_one()
    return since + GIVE_UP_AFTER if since is not None else None


async def forget(rt: Runtime) -> int:
    """Forget deliveries that ended thirty days ago, and the bodies that nobody waits for; how many rows."""
    asked = {"before": clock.now() - KEPT, "most": BATCH, "test": TEST}
    done = 0
    for statement in _FORGET:
        async with rt.db.session() as session, session.begin():
            done += len((await session.execute(statement, asked)).scalars().all())
    return done


due = (
    Due("disable failing webhooks", give_up, every_s=5.0, next_at=next_giving_up),
    Due("forget webhooks", forget, every_s=600.0, by_portions=True),
)
