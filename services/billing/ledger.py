"""The ledger as admins read it: the trial balance, now or as it stood, and the entries as pages or as a file."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi.responses import StreamingResponse
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from kit.text import instant
from services.billing.books import CHART, Group
from services.billing.models import LedgerEntry, LedgerLine
from services.billing.periods import BadPeriod, Period, PeriodDep

router = new_router(prefix="/v1/admin/ledger", tags=["admin ledger"])

Bookkeeper = Annotated[Caller, admin_with("orders:read")]

PORTION = 1000
MOST_DAYS = 366
COLUMNS = ("at", "entry_id", "kind", "order_id", "account", "debit", "credit", "currency")
BOM = "\ufeff"
"""By which spreadsheets know the file for UTF-8."""

_LINES: Final = text("""
SELECT e.at, e.id, e.kind, e.order_id, l.position, l.account, l.debit, l.credit, l.currency
FROM (
    SELECT at, id, kind, order_id FROM ledger_entry
    WHERE at >= :since AND at < :until AND (at, id) > (:at, :id) ORDER BY at, id LIMIT :portion
) e JOIN ledger_line l ON l.entry_id = e.id ORDER BY e.at, e.id, l.position
""")


class AccountOut(Out):
    """Everything posted to an account in a currency; revenue's reductions, coupons and refunds, are income, too."""

    account: str
    currency: str
    group: Group
    debit: int
    credit: int


class TrialBalance(Out):
    """All accounts; `balanced` is whether debits equal credits in every currency."""

    balanced: bool
    accounts: list[AccountOut]


class LineOut(Out):
    """One side of an entry."""

    account: str
    debit: int
    credit: int
    currency: str


class LedgerEntryOut(Out):
    """One event in the books."""

    id: UUID
    order_id: UUID | None
    kind: str
    lines: list[LineOut]
    at: Instant


_CHART: Final = "\n".join(f"- `{account}` ({group}): {holds}" for account, (group, holds) in CHART.items())


@router.get(
    "/trial-balance",
    description="Every account's debits and credits, and whether they balance in each currency.\n\n"
    f"`at` asks how they stood then. The accounts are:\n\n{_CHART}",
)
async def read_trial_balance(_: Bookkeeper, session: SessionDep, at: Instant | None = None) -> TrialBalance:
    """Every account's debits and credits, now or at an instant."""
    query = select(
        col(LedgerLine.account),
        col(LedgerLine.currency),
        func.sum(col(LedgerLine.debit)),
        func.sum(col(LedgerLine.credit)),
    )
    if at is not None:
        query = query.join(LedgerEntry, col(LedgerEntry.id) == col(LedgerLine.entry_id)).where(
            col(LedgerEntry.at) <= at
        )
    sides = (col(LedgerLine.account), col(LedgerLine.currency))
    rows = await session.execute(query.group_by(*sides).order_by(*sides))
    accounts = [
        AccountOut(account=account, currency=currency, group=CHART[account][0], debit=int(debit), credit=int(credit))
        for account, currency, debit, credit in rows
    ]
    difference: dict[str, int] = {}
    for account in accounts:
        difference[account.currency] = difference.get(account.currency, 0) + account.debit - account.credit
    return TrialBalance(balanced=not any(difference.values()), accounts=accounts)


@router.get("/entries")
async def list_ledger_entries(
    _: Bookkeeper, session: SessionDep, page: PageDep, order_id: UUID | None = None
) -> Page[LedgerEntryOut]:
    """The books, newest first; `order_id` narrows them to one order."""
    query = select(LedgerEntry)
    if order_id:
        query = query.where(col(LedgerEntry.order_id) == order_id)
    found, next_cursor = await keyset(session, query, page, (col(LedgerEntry.at).desc(), col(LedgerEntry.id).desc()))
    lines = await _lines_of(session, [entry.id for entry in found])
    return Page(
        items=[
            LedgerEntryOut(id=entry.id, order_id=entry.order_id, kind=entry.kind, lines=lines[entry.id], at=entry.at)
            for entry in found
        ],
        next_cursor=next_cursor,
    )


@router.get(
    "/entries.csv",
    response_class=StreamingResponse,
    responses=problems(BadPeriod) | {200: {"content": {"text/csv": {}}, "description": "One line of an entry a row."}},
)
async def download_entries(_: Bookkeeper, rt: RuntimeDep, period: PeriodDep) -> StreamingResponse:
    """The books of the business days `from` to `to` as CSV, oldest first, one line of an entry a row; a year at most."""
    name = f"ledger-{period.limited(MOST_DAYS).first}-{period.last}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    return StreamingResponse(_written(rt, period), media_type="text/csv; charset=utf-8", headers=headers)


async def _written(rt: Runtime, period: Period) -> AsyncIterator[str]:
    """The file, a portion at a time, each in a transaction of its own: a slow reader holds up no clean-up."""
    yield BOM + _csv([COLUMNS])
    after: tuple[datetime, UUID] = (period.starts_at, UUID(int=0))
    while True:
        async with rt.db.session() as session:
            bounds = {"since": period.starts_at, "until": period.ends_at, "portion": PORTION}
            rows = (await session.execute(_LINES, bounds | {"at": after[0], "id": after[1]})).all()
        if not rows:
            return
        yield _csv(
            [
                (
                    instant(row.at),
                    row.id,
                    row.kind,
                    row.order_id or "",
                    row.account,
                    row.debit,
                    row.credit,
                    row.currency,
                )
                for row in rows
            ]
        )
        after = (rows[-1].at, rows[-1].id)


def _csv(rows: Sequence[tuple[object, ...]]) -> str:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return lines.getvalue()


async def _lines_of(session: AsyncSession, entry_ids: Sequence[UUID]) -> dict[UUID, list[LineOut]]:
    lines: dict[UUID, list[LineOut]] = {entry_id: [] for entry_id in entry_ids}
    rows = await session.scalars(
        select(LedgerLine)
        .where(col(LedgerLine.entry_id).in_(entry_ids))
        .order_by(col(LedgerLine.entry_id), col(LedgerLine.position))
    )
    for line in rows:
        lines[line.entry_id].append(LineOut.model_validate(line))
    return lines
