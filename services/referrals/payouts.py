"""Payout runs: everything due at an instant, netted per partner, locked once made, and paid once."""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Depends, Response
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.referrals import PayoutPaid
from kit import audit, clock
from kit.app import router
from kit.auth import Caller, PartnerDep, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.events import emit
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, StrictIn
from services.referrals.commission_states import BATCH, mark_due
from services.referrals.partner_models import Commission, Payout, PayoutRun
from services.referrals.webhook_messages import tell

routes = router(prefix="/v1/admin/payout-runs", tags=["admin partners"])
partner_routes = router(prefix="/v1/partner/payouts", tags=["partner"])

Payer = Annotated[Caller, admin_with("partners:write")]

# A run pays in one currency; the community's money is the yuan.
CURRENCY: Final = "CNY"

_TAKEN: Final = text("""
WITH due AS (
    SELECT id, partner_id, amount FROM commission
    WHERE status = 'due' AND payout_id IS NULL AND due_at <= :until AND currency = :currency
    FOR UPDATE
), positive AS (
    SELECT partner_id FROM due GROUP BY partner_id HAVING sum(amount) > 0
)
SELECT due.id, due.partner_id, due.amount FROM due JOIN positive USING (partner_id) ORDER BY due.partner_id, due.id
""")


class PayoutRunNotFound(NotFound):
    """There is no such payout run."""

    zh = "没有这次结算。"


class NothingDue(Conflict):
    """Nothing is due by then: commissions wait out their holding time first, and what is taken back is settled first."""

    zh = "到这个时间没有应付的佣金：佣金要先过等待期，追回的部分也要先抵扣。"


class PayoutRunIn(StrictIn):
    """Until when what became due is paid."""

    until: Instant


class PayoutItem(Out):
    """One commission in a payout; negative ones take back."""

    partner_id: UUID
    commission_id: UUID
    amount: int


class PayoutOut(Out):
    """Money to partners, in fen; `items` add up to `amount`."""

    id: UUID
    until: Instant
    amount: int
    currency: str
    status: Literal["open", "paid"]
    created_at: Instant
    paid_at: Instant | None
    items: list[PayoutItem]


async def run_of(run_id: UUID, session: SessionDep) -> PayoutRun:
    """The run, locked until the transaction ends."""
    run = await session.get(PayoutRun, run_id, with_for_update=True)
    if run is None:
        raise PayoutRunNotFound
    return run


LockedRun = Annotated[PayoutRun, Depends(run_of, scope="function")]


@routes.post("", status_code=201, responses=problems(NothingDue))
async def create_payout_run(_: Payer, body: PayoutRunIn, session: SessionDep) -> PayoutOut:
    """Take everything that is due by `until` into a run, except for partners who are owed nothing on balance."""
    # Two runs at once would each see what the other takes.
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtext('payout run'))"))
    while await mark_due(session) == BATCH:
        pass
    now = clock.now()
    taken = (await session.execute(_TAKEN, {"until": min(body.until, now), "currency": CURRENCY})).all()
    if not taken:
        raise NothingDue
    amounts: dict[UUID, int] = defaultdict(int)
    ids: dict[UUID, list[UUID]] = defaultdict(list)
    for row in taken:
        amounts[row.partner_id] += row.amount
        ids[row.partner_id].append(row.id)
    run = PayoutRun(until=body.until, amount=sum(amounts.values()), currency=CURRENCY, created_at=now)
    session.add(run)
    await session.flush()
    for partner_id, amount in amounts.items():
        payout = Payout(run_id=run.id, partner_id=partner_id, amount=amount)
        session.add(payout)
        await session.flush()
        part = update(Commission).where(col(Commission.id).in_(ids[partner_id]))
        await session.execute(part.values(payout_id=payout.id))
    await audit.record(session, "payout_run.created", run.id, after=run.model_dump(mode="json"))
    return (await _shown(session, [run]))[0]


@routes.get("")
async def list_payout_runs(_: Payer, session: SessionDep, page: PageDep) -> Page[PayoutOut]:
    """All runs, the newest first."""
    order = (col(PayoutRun.created_at).desc(), col(PayoutRun.id).desc())
    runs, next_cursor = await keyset(session, select(PayoutRun), page, order)
    return Page(items=await _shown(session, runs), next_cursor=next_cursor)


@routes.get("/{run_id}", responses=problems(PayoutRunNotFound))
async def read_payout_run(_: Payer, run_id: UUID, session: SessionDep) -> PayoutOut:
    """One run."""
    run = await session.get(PayoutRun, run_id)
    if run is None:
        raise PayoutRunNotFound
    return (await _shown(session, [run]))[0]


@routes.get(
    "/{run_id}/items.csv",
    response_class=Response,
    responses=problems(PayoutRunNotFound)
    | {200: {"content": {"text/csv": {}}, "description": "One commission a row."}},
)
async def download_payout_items(_: Payer, run_id: UUID, session: SessionDep) -> Response:
    """The commissions of a run as a table, one a row."""
    if await session.get(PayoutRun, run_id) is None:
        raise PayoutRunNotFound
    sheet = io.StringIO()
    rows = csv.writer(sheet)
    rows.writerow(["partner_id", "commission_id", "amount"])
    rows.writerows(
        [item.partner_id, item.commission_id, item.amount] for item in (await _items(session, [run_id]))[run_id]
    )
    headers = {
        "Content-Disposition": f'attachment; filename="payout-{run_id}.csv"',
        "Cache-Control": "private, no-store",
    }
    return Response(sheet.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


@routes.post("/{run_id}/paid", responses=problems(PayoutRunNotFound))
async def pay_run(_: Payer, run: LockedRun, session: SessionDep) -> PayoutOut:
    """Note that the money of a run has left the house; a second time answers the first result."""
    if run.paid_at is None:
        run.paid_at = clock.now()
        payouts = (await session.execute(select(Payout).where(col(Payout.run_id) == run.id))).scalars().all()
        parts = [payout.id for payout in payouts]
        await session.execute(update(Commission).where(col(Commission.payout_id).in_(parts)).values(status="paid"))
        for payout in payouts:
            paid = PayoutPaid(
                payout_id=payout.id,
                run_id=run.id,
                partner_id=payout.partner_id,
                amount=payout.amount,
                currency=run.currency,
                paid_at=run.paid_at,
            )
            await emit(session, paid)
            told = {"payout_id": payout.id, "amount": payout.amount, "currency": run.currency, "paid_at": run.paid_at}
            await tell(session, payout.partner_id, "payout.paid", payout.id, **told)
        await audit.record(session, "payout_run.paid", run.id, after=run.model_dump(mode="json"))
    return (await _shown(session, [run]))[0]


@partner_routes.get("")
async def list_payouts(caller: PartnerDep, session: SessionDep, page: PageDep) -> Page[PayoutOut]:
    """What the caller was or will be paid, the newest first."""
    found = select(Payout).where(col(Payout.partner_id) == caller.id)
    payouts, next_cursor = await keyset(session, found, page, (col(Payout.id).desc(),))
    wanted = select(PayoutRun).where(col(PayoutRun.id).in_([payout.run_id for payout in payouts]))
    runs = {run.id: run for run in (await session.execute(wanted)).scalars()}
    items = await _grouped(session, col(Payout.id), [payout.id for payout in payouts])
    return Page(
        items=[_out(runs[payout.run_id], payout.id, payout.amount, items[payout.id]) for payout in payouts],
        next_cursor=next_cursor,
    )


async def _shown(session: AsyncSession, runs: Sequence[PayoutRun]) -> list[PayoutOut]:
    items = await _items(session, [run.id for run in runs])
    return [_out(run, run.id, run.amount, items[run.id]) for run in runs]


def _out(run: PayoutRun, own_id: UUID, amount: int, items: list[PayoutItem]) -> PayoutOut:
    return PayoutOut(
        id=own_id,
        until=run.until,
        amount=amount,
        currency=run.currency,
        status="open" if run.paid_at is None else "paid",
        created_at=run.created_at,
        paid_at=run.paid_at,
        items=items,
    )


async def _items(session: AsyncSession, run_ids: Sequence[UUID]) -> dict[UUID, list[PayoutItem]]:
    return await _grouped(session, col(Payout.run_id), run_ids)


async def _grouped(session: AsyncSession, by: Any, ids: Sequence[UUID]) -> dict[UUID, list[PayoutItem]]:
    found = (
        select(by, col(Commission.partner_id), col(Commission.id), col(Commission.amount))
        .join(Payout, col(Payout.id) == col(Commission.payout_id))
        .where(by.in_(ids))
        .order_by(col(Commission.partner_id), col(Commission.id))
    )
    items: dict[UUID, list[PayoutItem]] = {item: [] for item in ids}
    for group, partner_id, commission_id, amount in await session.execute(found):
        items[group].append(PayoutItem(partner_id=partner_id, commission_id=commission_id, amount=amount))
    return items
