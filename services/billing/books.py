"""The books: the chart of accounts, and entries that balance; what is written once stays as it is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.ids import new_id
from services.billing.models import LedgerEntry, LedgerLine

Group = Literal["asset", "liability", "income", "expense"]

CASH: Final = "cash"
PROVIDER: Final = "provider_receivable"
DISPUTED: Final = "disputed"
DEFERRED: Final = "deferred_revenue"
PARKED: Final = "unapplied_payments"
OWED_BACK: Final = "refunds_payable"
COMMISSIONS_OWED: Final = "commissions_payable"
REVENUE: Final = "revenue"
COUPONS: Final = "coupons"
REFUNDS: Final = "refunds"
COMMISSIONS: Final = "commission_expense"
FEES: Final = "provider_fees"

CHART: Final[Mapping[str, tuple[Group, str]]] = {
    CASH: ("asset", "银行存款 / money in the house's own bank account"),
    PROVIDER: ("asset", "应收支付渠道 / what the payment provider holds for the house"),
    DISPUTED: ("asset", "争议中 / what a payer's bank took back while a dispute is open"),
    DEFERRED: ("liability", "递延收入 / paid, and not earned yet"),
    PARKED: ("liability", "待处理款项 / payments of a wrong amount, which wait for a person"),
    OWED_BACK: ("liability", "应退款项 / payments that bought nothing and go back"),
    COMMISSIONS_OWED: ("liability", "应付佣金 / what partners have earned and not been paid"),
    REVENUE: ("income", "收入 / earned, at list prices"),
    COUPONS: ("income", "优惠抵减 / discounts on what was earned; reduces revenue"),
    REFUNDS: ("income", "退款抵减 / given back of what was earned already; reduces revenue"),
    COMMISSIONS: ("expense", "佣金支出 / commissions of partners"),
    FEES: ("expense", "渠道手续费 / what the payment provider keeps"),
}
"""Every account: which group it belongs to, and what it holds."""


def sides(entry_id: UUID, lines: Mapping[str, int], currency: str, after: int = 0) -> list[dict[str, Any]]:
    """The rows of an entry's lines, which follow so many others of it."""
    moved = [(account, amount) for account, amount in lines.items() if amount]
    return [
        {
            "entry_id": entry_id,
            "position": position,
            "account": account,
            "currency": currency,
            "debit": max(amount, 0),
            "credit": max(-amount, 0),
        }
        for position, (account, amount) in enumerate(moved, after + 1)
    ]


async def enter(
    session: AsyncSession,
    kind: str,
    source_id: UUID,
    lines: Mapping[str, int],
    currency: str,
    *,
    order_id: UUID | None = None,
    at: datetime | None = None,
) -> bool:
    """Write an entry in the caller's transaction: debits positive, credits negative, in sum zero.

    Once for each kind and source: False, and nothing written, when it is there already or has nothing to say.
    """
    if sum(lines.values()) or not lines.keys() <= CHART.keys():
        raise ValueError(f"{kind} {source_id} does not balance: {dict(lines)}")
    if not any(lines.values()):
        return False
    row = {"id": new_id(), "kind": kind, "source_id": source_id, "order_id": order_id, "at": at or clock.now()}
    entry_id = await session.scalar(
        upsert(LedgerEntry).values(row).on_conflict_do_nothing().returning(col(LedgerEntry.id))
    )
    if entry_id is None:
        return False
    await session.execute(insert(LedgerLine), sides(entry_id, lines, currency))
    return True


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
) -> bool:
    """Book `amount` from one account to another; as `enter`."""
    return await enter(session, kind, source_id, {debit: amount, credit: -amount}, currency, order_id=order_id, at=at)
