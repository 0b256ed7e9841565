"""Giving: the job that gives the coupons of grants in bulk, a portion a transaction, each row once whatever is killed."""

from typing import Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Due, Runtime
from services.referrals.cards import living
from services.referrals.grant_models import GrantBatch, GrantRow
from services.referrals.issue import Issued, Want, issue

PORTION: Final = 500

_SETTLE: Final = text("""
UPDATE grant_row SET status = settled.status, code = settled.code, coupon_id = settled.coupon_id
FROM unnest(CAST(:numbers AS int[]), CAST(:statuses AS text[]), CAST(:codes AS text[]), CAST(:coupons AS uuid[]))
    AS settled(number, status, code, coupon_id)
WHERE grant_row.batch_id = :batch AND grant_row.number = settled.number
""")

# Whoever is second waits for the batch's row, and so the last one sees that it was the last.
_COUNT: Final = text("""
UPDATE grant_batch SET granted = granted + :granted, refused = refused + :refused,
    finished_at = CASE WHEN granted + refused + :granted + :refused = rows THEN CAST(:now AS timestamptz) END
WHERE id = :batch
""")


async def give_waiting(rt: Runtime) -> int:
    """Give all that waits, the oldest batch first; how many rows were settled."""
    unfinished = select(col(GrantBatch.id)).where(col(GrantBatch.finished_at).is_(None))
    async with rt.db.session() as session, session.begin():
        batches = (await session.execute(unfinished.order_by(col(GrantBatch.created_at), col(GrantBatch.id)))).scalars()
        waiting = list(batches)
    settled = 0
    for batch_id in waiting:
        while portion := await _give_portion(rt, batch_id):
            settled += portion
    return settled


async def _give_portion(rt: Runtime, batch_id: UUID) -> int:
    """Give some of a batch's rows that nobody else is giving: the coupons and what the rows say commit together."""
    async with rt.db.session() as session, session.begin():
        waiting = (
            select(GrantRow)
            .where(col(GrantRow.batch_id) == batch_id, col(GrantRow.status) == "waiting")
            .order_by(col(GrantRow.number))
            .limit(PORTION)
            .with_for_update(skip_locked=True)
        )
        rows = list((await session.execute(waiting)).scalars())
        if rows:
            await _give(session, batch_id, rows)
        return len(rows)


async def _give(session: AsyncSession, batch_id: UUID, rows: list[GrantRow]) -> None:
    of_batch = select(col(GrantBatch.campaign_id)).where(col(GrantBatch.id) == batch_id)
    campaign_id = (await session.execute(of_batch)).scalar_one()
    known = await living(session, [row.member_id for row in rows])
    now = clock.now()
    wants = {row.number: Want(campaign_id, row.member_id, now, "grant") for row in rows if row.member_id in known}
    issued = await issue(await session.connection(), list(wants.values())) if wants else []
    answers = dict(zip(wants, issued, strict=True))
    given = {number: answer.id for number, answer in answers.items() if isinstance(answer, Issued)}
    codes = {number: answer.code for number, answer in answers.items() if not isinstance(answer, Issued)}
    numbers = [row.number for row in rows]
    settled = {
        "batch": batch_id,
        "numbers": numbers,
        "statuses": ["granted" if number in given else "refused" for number in numbers],
        "codes": [None if number in given else codes.get(number, "member_unknown") for number in numbers],
        "coupons": [given.get(number) for number in numbers],
    }
    await session.execute(_SETTLE, settled)
    counts = {"batch": batch_id, "granted": len(given), "refused": len(rows) - len(given), "now": now}
    await session.execute(_COUNT, counts)


due = Due("give coupons in bulk", give_waiting, waits="SELECT FROM grant_batch WHERE finished_at IS NULL")
