"""Events of the provider: written with the money they tell of, each with its delivery to the webhook."""

import asyncio
from typing import Any

from sqlalchemy import event as hooks
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from services.billing.sandbox.models import SandboxDelivery, SandboxEvent
from services.billing.sandbox.wire import new_key

waiting: set[asyncio.Event] = set()
"""What the couriers of this process sleep on."""


def wake(*_: object) -> None:
    """Tell the couriers that there is something to deliver."""
    for courier in waiting:
        courier.set()


async def tell(session: AsyncSession, type: str, subject: str, shape: dict[str, Any], copies: int = 1) -> None:  # noqa: A002 - Stripe's word
    """Write an event and its deliveries in the caller's transaction; they leave as soon as it commits.

    `subject` groups what is delivered one after the other; `copies` is how often the webhook hears it.
    """
    now = clock.now()
    row = SandboxEvent(
        id=new_key("evt"),
        type=type,
        object=shape,
        request=session.info.get("stripe_request", {}),
        created_at=now,
    )
    session.add(row)
    await session.flush()
    session.add_all(SandboxDelivery(event_id=row.id, subject=subject, due_at=now) for _ in range(copies))
    await session.flush()
    if not hooks.contains(session.sync_session, "after_commit", wake):
        hooks.listen(session.sync_session, "after_commit", wake)
