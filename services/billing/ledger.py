"""The ledger: double entry, append-only, balanced per entry and currency by the database itself."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.billing.models import LedgerEntry, LedgerLine

router = new_router(prefix="/v1/admin/ledger", tags=["admin ledger"])

Bookkeeper = Annotated[Caller, admin_with("orders:read")]

PROVIDER = "provider_receivable"
DEFERRED = "deferred_revenue"
PARKED = "unapplied_payments"
OWED_BACK = "refunds_payable"


class AccountOut(Out):
    """Everything ever posted to an account in a currency."""

    account: str
    currency: str
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


async def post(  # noqa: PLR0913 - an entry has this many sides
    session: AsyncSession,
    kind: str,
    source_id: UUID,
    *,
    debit: str,
    credit: str,
    amount: int,
    currency: str,
    order_id: UUID | None = None,
    at: datetime | None = None,
) -> None:
    """Book `amount` from one account to another, in the caller's transaction; once for each kind and source."""
    entry_id = new_id()
    await session.execute(
        insert(LedgerEntry).values(id=entry_id, kind=kind, source_id=source_id, order_id=order_id, at=at or clock.now())
    )
    line = {"entry_id": entry_id, "currency": currency}
    await session.execute(
        insert(LedgerLine),
        [
            line | {"position": 1, "account": debit, "debit": amount, "credit": 0},
            line | {"position": 2, "account": credit, "debit": 0, "credit": amount},
        ],
    )


@router.get("/trial-balance")
async def trial_balance(_: Bookkeeper, session: SessionDep) -> TrialBalance:
    """Every account's debits and credits, and whether they balance in each currency."""
    rows = await session.execute(
        select(
            col(LedgerLine.account),
            col(LedgerLine.currency),
            func.sum(col(LedgerLine.debit)),
            func.sum(col(LedgerLine.credit)),
        )
        .group_by(col(LedgerLine.account), col(LedgerLine.currency))
        .order_by(col(LedgerLine.account), col(LedgerLine.currency))
    )
    accounts = [
        AccountOut(account=account, currency=currency, debit=int(debit), credit=int(credit))
        for account, currency, debit, credit in rows
    ]
    difference: dict[str, int] = {}
    for account in accounts:
        difference[account.currency] = difference.get(account.currency, 0) + account.debit - account.credit
    return TrialBalance(balanced=not any(difference.values()), accounts=accounts)


@router.get("/entries")
async def entries(
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
