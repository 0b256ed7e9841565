"""The states of a commission: waiting, held for a reason, due, and given up."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.referrals import CommissionVoided
from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.events import emit
from services.referrals.partner_models import Commission, CommissionHold
from services.referrals.webhook_messages import tell

BATCH: Final = 500


async def void(session: AsyncSession, rows: Sequence[Commission]) -> None:
    """Give up commissions of one sale or trial that are in no payout; what they came to is not owed after all."""
    now = clock.now()
    owed = [row for row in rows if row.status != "voided" and row.payout_id is None]
    first = next((row for row in owed if row.kind != "reversal"), None)
    if first is None:
        return
    for row in owed:
        row.status, row.voided_at = "voided", now
    await session.flush()
    voided = CommissionVoided(
        commission_id=first.id,
        partner_id=first.partner_id,
        order_id=first.order_id,
        amount=sum(row.amount for row in owed),
        currency=first.currency,
        voided_at=now,
    )
    await emit(session, voided)
    await tell(session, first.partner_id, "commission.voided", first.id, **told(first))


async def hold(session: AsyncSession, cause: str, commission_ids: list[UUID]) -> None:
    """Let these commissions wait for `cause`, as far as they are in no payout."""
    now = clock.now()
    open_still = select(col(Commission.id)).where(
        col(Commission.id).in_(commission_ids),
        col(Commission.status).in_(["pending", "due", "held"]),
        col(Commission.payout_id).is_(None),
    )
    held = list((await session.execute(open_still.with_for_update())).scalars())
    for commission_id in held:
        row = {"commission_id": commission_id, "cause": cause, "at": now}
        await session.execute(insert(CommissionHold).values(row).on_conflict_do_nothing())
    await _restate(session, held)


async def release(session: AsyncSession, cause: str, commission_ids: list[UUID]) -> None:
    """End one reason for which these commissions wait; whoever waits for nothing else goes on."""
    ended = update(CommissionHold).where(
        col(CommissionHold.commission_id).in_(commission_ids),
        col(CommissionHold.cause) == cause,
        col(CommissionHold.ended_at).is_(None),
    )
    await session.execute(ended.values(ended_at=clock.now()))
    await _restate(session, commission_ids)
    waited = select(Commission).where(col(Commission.id).in_(commission_ids), col(Commission.status) == "due")
    for commission in (await session.execute(waited.execution_options(populate_existing=True))).scalars().all():
        # Its time passed while it waited; one that was due before has been told of already.
        await tell(session, commission.partner_id, "commission.due", commission.id, **told(commission))


_RESTATE: Final = text("""
UPDATE commission SET status = CASE
    WHEN EXISTS (SELECT FROM commission_hold WHERE commission_id = commission.id AND ended_at IS NULL) THEN 'held'
    WHEN due_at <= :now THEN 'due' ELSE 'pending' END
WHERE id = ANY(:ids) AND status IN ('pending', 'due', 'held') AND payout_id IS NULL
""")


async def _restate(session: AsyncSession, commission_ids: list[UUID]) -> None:
    await session.flush()
    await session.execute(_RESTATE, {"ids": commission_ids, "now": clock.now()})


async def become_due(rt: Runtime) -> int:
    """Say of commissions whose time of waiting is over that they are due; how many."""
    async with rt.db.session() as session, session.begin():
        return await mark_due(session)


async def mark_due(session: AsyncSession) -> int:
    """The same in the caller's transaction."""
    over = (
        select(col(Commission.id))
        .where(col(Commission.status) == "pending", col(Commission.due_at) <= clock.now())
        .order_by(col(Commission.due_at))
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    due = update(Commission).where(col(Commission.id).in_(over)).values(status="due").returning(Commission)
    became = (await session.execute(due.execution_options(populate_existing=True))).scalars().all()
    for commission in became:
        await tell(session, commission.partner_id, "commission.due", commission.id, **told(commission))
    return len(became)


def told(commission: Commission) -> dict[str, Any]:
    """A commission as its partner sees it."""
    shown = commission.model_dump(
        include={"id", "kind", "member_id", "order_id", "reverses_id", "amount", "currency", "status", "due_at"}
    )
    return shown | {"commission_id": shown.pop("id")}


async def next_due(rt: Runtime) -> datetime | None:
    """When the next commission will be due."""
    async with rt.db.session() as session:
        waiting = select(func.min(col(Commission.due_at))).where(
            col(Commission.status) == "pending", col(Commission.due_at) > clock.now()
        )
        return (await session.execute(waiting)).scalar_one()


_WAITS: Final = "SELECT FROM commission WHERE status = 'pending' AND due_at <= $1"

due = Due("commissions become due", become_due, next_at=next_due, waits=_WAITS)
