"""Reconciliations: provider, orders and ledger of a business day compared, each difference with its repair."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, Unprocessable, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Day, Instant, Out, StrictIn
from services.billing import reconciling, repairs
from services.billing.periods import EARLIEST
from services.billing.provider import PaymentProviderUnavailable
from services.billing.reconciliation_models import (
    DifferenceStatus,
    Kind,
    Reconciliation,
    ReconciliationDifference,
    Repair,
    RunStatus,
)

router = new_router(prefix="/v1/admin/reconciliations", tags=["admin ledger"])

Reader = Annotated[Caller, admin_with("orders:read")]
Bookkeeper = Annotated[Caller, admin_with("orders:write")]

PATIENCE_S = 10.0


class DayNotBegun(Unprocessable):
    """This day has not begun yet, or lies before there was anything to compare; name one that has."""

    zh = "这一天还没有开始，或早于任何可核对的日期，请换一天。"
    loc = ("body", "day")


class ReconciliationNotFound(NotFound):
    """There is no such reconciliation."""

    zh = "没有这次对账。"


class DifferenceNotFound(NotFound):
    """This reconciliation has no such difference."""

    zh = "这次对账里没有这条差异。"


class RepairNeedsPerson(Conflict):
    """No machine can decide this: compare what is expected with what was found; a parked payment may be sent back."""

    zh = "这条差异须由人工判断：请对照应有与实有；待处理的付款可以选择退回。"


class RepairNotPossible(Conflict):
    """This cannot be repaired this way any more; reconcile the day again and look at what it finds."""

    zh = "这条差异已不能这样修复，请重新对账后再看结果。"


class ReconciliationIn(StrictIn):
    """The business day to compare."""

    day: Day


class RepairIn(StrictIn):
    """What a person decided: `send_back` gives a payment that waits for them back to its payer."""

    decision: Literal["send_back"] | None = None


class DifferenceOut(Out):
    """What should be and what is; `repair` is what the repair call does, or `person` where only somebody can decide.

    `settle` takes in a payment whose notice was lost, `record` a refund made at the provider, `follow` brings a refund
    or a dispute to the state it has there, `post` writes a missing entry of the ledger.
    """

    id: UUID
    kind: Kind
    order_id: UUID | None
    provider_ref: str | None
    expected: int | str | None
    found: int | str | None
    currency: str | None
    repair: Repair
    status: DifferenceStatus
    outcome: str | None
    repaired_at: Instant | None


class Progress(Out):
    """How much the provider has told so far."""

    payments: int
    refunds: int


class ReconciliationOut(Out):
    """A comparison of a day; `failed` when the provider refused to tell, `running` until all was compared."""

    id: UUID
    day: date
    status: RunStatus
    automatic: bool
    progress: Progress
    error: str | None
    started_at: Instant
    finished_at: Instant | None
    differences: list[DifferenceOut]


async def _shown(session: AsyncSession, runs: Sequence[Reconciliation]) -> list[ReconciliationOut]:
    found: dict[UUID, list[DifferenceOut]] = {run.id: [] for run in runs}
    rows = await session.scalars(
        select(ReconciliationDifference)
        .where(col(ReconciliationDifference.reconciliation_id).in_(list(found)))
        .order_by(col(ReconciliationDifference.reconciliation_id), col(ReconciliationDifference.position))
    )
    for row in rows:
        found[row.reconciliation_id].append(DifferenceOut.model_validate(row))
    return [
        ReconciliationOut(
            **run.model_dump(include={"id", "day", "status", "error", "started_at", "finished_at"}),
            automatic=run.requested_by is None,
            progress=Progress(payments=run.payments, refunds=run.refunds),
            differences=found[run.id],
        )
        for run in runs
    ]


async def wanted_run(reconciliation_id: UUID, session: SessionDep) -> Reconciliation:
    """The reconciliation in the path."""
    run = await session.get(Reconciliation, reconciliation_id, populate_existing=True)
    if run is None:
        raise ReconciliationNotFound
    return run


Run = Annotated[Reconciliation, Depends(wanted_run, scope="function")]


@router.post("", status_code=201, responses=problems(DayNotBegun))
async def reconcile_day(
    body: ReconciliationIn, caller: Bookkeeper, session: SessionDep, rt: RuntimeDep
) -> ReconciliationOut:
    """Compare a day anew; a long one goes on after the answer, which then says `running`. It changes nothing by itself."""
    if not EARLIEST <= body.day <= clock.today():
        raise DayNotBegun
    await session.commit()
    run_id = await reconciling.start(rt, body.day, caller.id)
    # It outlives an impatient caller; if the process dies, periodic work takes it up.
    work = asyncio.create_task(reconciling.execute(rt, [(run_id, body.day)]))
    rt.state.setdefault("reconciliations", set()).add(work)
    work.add_done_callback(rt.state["reconciliations"].discard)
    await asyncio.wait([work], timeout=PATIENCE_S)
    await audit.record(session, "reconciliation.started", run_id, after={"day": body.day})
    run = await wanted_run(run_id, session)
    return (await _shown(session, [run]))[0]


@router.get("")
async def list_reconciliations(
    _: Reader, session: SessionDep, page: PageDep, day: Day | None = None
) -> Page[ReconciliationOut]:
    """All comparisons, the latest first; `day` narrows them to one business day."""
    query = select(Reconciliation)
    if day is not None:
        query = query.where(col(Reconciliation.day) == day)
    order = (col(Reconciliation.started_at).desc(), col(Reconciliation.id).desc())
    found, next_cursor = await keyset(session, query, page, order)
    return Page(items=await _shown(session, found), next_cursor=next_cursor)


@router.get("/{reconciliation_id}", responses=problems(ReconciliationNotFound))
async def read_reconciliation(_: Reader, run: Run, session: SessionDep) -> ReconciliationOut:
    """One comparison, and how far it is."""
    return (await _shown(session, [run]))[0]


@router.post(
    "/{reconciliation_id}/differences/{difference_id}/repair",
    responses=problems(
        ReconciliationNotFound, DifferenceNotFound, RepairNeedsPerson, RepairNotPossible, PaymentProviderUnavailable
    ),
)
async def repair_difference(
    caller: Bookkeeper,
    run: Run,
    difference_id: UUID,
    session: SessionDep,
    rt: RuntimeDep,
    body: RepairIn | None = None,
) -> DifferenceOut:
    """Do what `repair` says, on the way on which a notice of the provider would have done it; once, however often asked."""
    difference = await session.get(ReconciliationDifference, difference_id, populate_existing=True)
    if difference is None or difference.reconciliation_id != run.id:
        raise DifferenceNotFound
    if difference.status == "repaired":
        return DifferenceOut.model_validate(difference)
    if difference.repair != "person":
        outcome = await repairs.repair(session, rt, difference, caller.id)
    elif body is not None and body.decision == "send_back" and difference.source_id is not None:
        outcome = await repairs.send_back(session, difference, caller.id)
    else:
        raise RepairNeedsPerson
    if outcome is None:
        raise RepairNotPossible
    await session.refresh(difference, with_for_update=True)
    if difference.status == "open":
        difference.status, difference.outcome = "repaired", outcome
        difference.repaired_at, difference.repaired_by = clock.now(), caller.id
        await session.flush()
        given = {"kind": difference.kind, "order_id": difference.order_id, "outcome": outcome}
        await audit.record(session, "reconciliation.repaired", difference.id, after=given)
    return DifferenceOut.model_validate(difference)
