"""Renewals: whether a member's subscription will be charged again, as billing tells it."""

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import SubscriptionChanged
from services.members.ledger import is_renewing, open_ledger, repack
from services.members.ledger_models import Renewal, Segment


async def on_subscription_changed(session: AsyncSession, event: SubscriptionChanged) -> None:
    """Keep the newest state of a subscription, and let its grace begin or end."""
    ledger = await open_ledger(session, event.member_id)
    values = {
        "member_id": ledger.member_id,
        "version": event.version,
        "status": event.status,
        "renewing": event.renewing,
    }
    told = insert(Renewal).values(subscription_id=event.subscription_id, **values)
    newer = col(Renewal.version) < event.version
    kept = told.on_conflict_do_update(index_elements=["subscription_id"], set_=values, where=newer)
    if (await session.execute(kept.returning(col(Renewal.version)))).one_or_none() is None:
        return
    renewing = await is_renewing(session, ledger.member_id)
    if renewing == ledger.renewing:
        return
    ledger.renewing = renewing
    held = exists().where(col(Segment.member_id) == ledger.member_id)
    # Heard before its first payment there is nothing to tell yet.
    if (await session.execute(select(held))).scalar_one():
        await repack(session, ledger)
