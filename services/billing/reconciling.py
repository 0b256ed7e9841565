"""Reconciling: each business day that is over is compared once by itself, and any day when asked; a dead run is taken up."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.ids import new_id
from services.billing.comparing import compare
from services.billing.findings import Finding
from services.billing.models import Order
from services.billing.periods import DAY, day_end, day_of, day_start
from services.billing.provider import PaymentProviderUnavailable, ProviderRefusal, provider_of
from services.billing.provider_lists import (
    ListedDispute,
    ListedPayment,
    ListedRefund,
    disputes_between,
    payments_between,
    refunds_between,
)
from services.billing.reconciliation_models import Reconciliation, ReconciliationDifference

log = structlog.get_logger(__name__)

AFTER = timedelta(hours=2)
"""How long after a day's end it is compared: what was on its way has arrived by then."""
LEASE = timedelta(minutes=1)
MOST_DAYS = 366
MOST_DIFFERENCES = 10_000

_MOVED: Final = text("""
SELECT (received_at AT TIME ZONE :zone)::date FROM payment WHERE received_at >= :since AND received_at < :until
UNION SELECT (created_at AT TIME ZONE :zone)::date FROM refund WHERE created_at >= :since AND created_at < :until
UNION SELECT (paid_at AT TIME ZONE :zone)::date FROM "order" WHERE paid_at >= :since AND paid_at < :until
UNION SELECT (held_at AT TIME ZONE :zone)::date FROM subscription WHERE held_at >= :since AND held_at < :until
""")


async def start(rt: Runtime, day: date, requested_by: UUID) -> UUID:
    """Write down that a day is to be compared, for `execute` now and for periodic work if this process dies."""
    run_id = new_id()
    async with rt.db.session() as session, session.begin():
        session.add(
            Reconciliation(
                id=run_id,
                day=day,
                status="running",
                requested_by=requested_by,
                started_at=clock.now(),
                next_attempt_at=clock.now() + LEASE,
            )
        )
    return run_id


async def execute(rt: Runtime, runs: Sequence[tuple[UUID, date]]) -> None:
    """Compare days one after another with what the provider tells of all of them; left running when it is away."""
    ids = [run_id for run_id, _ in runs]
    try:
        told = await _listed(rt, ids, min(day for _, day in runs), max(day for _, day in runs))
        # A day on which nothing moved on either side has no differences, and there may be a year of them.
        moved = told.days() | await _moved(rt, runs) | {runs[-1][1]}
        await _finish_quiet(rt, [run_id for run_id, day in runs if day not in moved])
        for run_id, day in runs:
            if day in moved:
                await _finish(
                    rt, run_id, await compare(rt, day, told.payments[day], told.refunds[day], told.disputes[day])
                )
    except PaymentProviderUnavailable:
        log.warning("reconciliation waits for the provider", runs=len(ids))
    except ProviderRefusal as refusal:
        log.exception("reconciliation refused", refusal=refusal.code)
        failed = {"status": "failed", "error": refusal.code, "finished_at": clock.now()}
        async with rt.db.session() as session, session.begin():
            running = col(Reconciliation.id).in_(ids), col(Reconciliation.status) == "running"
            await session.execute(update(Reconciliation).where(*running).values(failed))


@dataclass
class _Told:
    """What the provider told, by business day."""

    payments: defaultdict[date, list[ListedPayment]] = field(default_factory=lambda: defaultdict(list))
    refunds: defaultdict[date, list[ListedRefund]] = field(default_factory=lambda: defaultdict(list))
    disputes: defaultdict[date, list[ListedDispute]] = field(default_factory=lambda: defaultdict(list))

    def days(self) -> set[date]:
        """The days of which there is something to tell."""
        return self.payments.keys() | self.refunds.keys() | self.disputes.keys()


async def _listed(rt: Runtime, ids: Sequence[UUID], first: date, last: date) -> _Told:
    provider = provider_of(rt)
    since, until = day_start(first), day_end(last)
    told = _Told()
    seen = 0
    async for payments in payments_between(provider, since, until):
        for payment in payments:
            told.payments[day_of(payment.made_at)].append(payment)
        seen += len(payments)
        await _note(rt, ids, "payments", seen)
    seen = 0
    async for refunds in refunds_between(provider, since, until):
        for refund in refunds:
            told.refunds[day_of(refund.made_at)].append(refund)
        seen += len(refunds)
        await _note(rt, ids, "refunds", seen)
    async for disputes in disputes_between(provider, since, until):
        for dispute in disputes:
            told.disputes[day_of(dispute.made_at)].append(dispute)
    return told


async def _moved(rt: Runtime, runs: Sequence[tuple[UUID, date]]) -> set[date]:
    """The days of these runs on which something moved with us."""
    days = [day for _, day in runs]
    values = {"zone": clock.ZONE.key, "since": day_start(min(days)), "until": day_end(max(days))}
    async with rt.db.session() as session:
        return set((await session.scalars(_MOVED, values)).all())


async def _finish_quiet(rt: Runtime, ids: Sequence[UUID]) -> None:
    async with rt.db.session() as session, session.begin():
        running = col(Reconciliation.id).in_(ids), col(Reconciliation.status) == "running"
        await session.execute(update(Reconciliation).where(*running).values(status="done", finished_at=clock.now()))


async def _note(rt: Runtime, ids: Sequence[UUID], what: str, seen: int) -> None:
    """Show how far it is, and stay the one who does it."""
    async with rt.db.session() as session, session.begin():
        values = {what: seen, "next_attempt_at": clock.now() + LEASE}
        await session.execute(update(Reconciliation).where(col(Reconciliation.id).in_(ids)).values(values))


async def _finish(rt: Runtime, run_id: UUID, findings: Sequence[Finding]) -> None:
    async with rt.db.session() as session, session.begin():
        # One that two processes did is written by the first.
        done = await session.scalar(
            update(Reconciliation)
            .where(col(Reconciliation.id) == run_id, col(Reconciliation.status) == "running")
            .values(status="done", finished_at=clock.now())
            .returning(col(Reconciliation.day))
        )
        if done is None:
            return
        rows = [
            vars(finding) | {"id": new_id(), "reconciliation_id": run_id, "position": position, "status": "open"}
            for position, finding in enumerate(findings[:MOST_DIFFERENCES], 1)
        ]
        if rows:
            await session.execute(insert(ReconciliationDifference), rows)
    if findings:
        log.error("reconciliation found differences", day=done.isoformat(), differences=len(findings))


async def reconcile(rt: Runtime) -> int:
    """Compare the days that are over and were not compared yet, and go on with runs that nobody does any more."""
    now = clock.now()
    await _begin(rt, now)
    async with rt.db.session() as session, session.begin():
        waiting = (
            select(col(Reconciliation.id))
            .where(col(Reconciliation.status) == "running", col(Reconciliation.next_attempt_at) <= now)
            .order_by(col(Reconciliation.day))
            .limit(MOST_DAYS)
            .with_for_update(skip_locked=True)
        )
        claim = update(Reconciliation).where(col(Reconciliation.id).in_(waiting)).values(next_attempt_at=now + LEASE)
        runs = (await session.execute(claim.returning(col(Reconciliation.id), col(Reconciliation.day)))).all()
    if runs:
        await execute(rt, [(run_id, day) for run_id, day in sorted(runs, key=lambda run: run.day)])
    return len(runs)


async def _begin(rt: Runtime, now: datetime) -> None:
    last = day_of(now - AFTER) - DAY
    async with rt.db.session() as session, session.begin():
        done = await session.scalar(
            select(func.max(col(Reconciliation.day))).where(col(Reconciliation.requested_by).is_(None))
        )
        if done is None:
            first_order = await session.scalar(select(func.min(col(Order.created_at))))
            if first_order is None:
                return
            done = day_of(first_order) - DAY
        days = [done + DAY * step for step in range(1, (last - done).days + 1)]
        rows = [
            {"id": new_id(), "day": day, "status": "running", "payments": 0, "refunds": 0}
            | {"started_at": now, "next_attempt_at": now}
            for day in days
        ]
        if rows:
            await session.execute(upsert(Reconciliation).on_conflict_do_nothing(), rows)


due = Due("reconcile", reconcile, every_s=30.0)
