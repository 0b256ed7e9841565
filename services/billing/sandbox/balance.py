"""The house's balance at the provider: what each payment brought after its fee, and what was paid out; made up when asked."""

from datetime import datetime, time, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field
from stripe.params import BalanceTransactionListParams

from kit import clock
from kit.db import instant
from services.billing.registry import Model
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.shapes import Json
from services.billing.sandbox.wire import epoch, new_key

PAID_OUT_AT: Final = time(1)
"""When, by the business zone, what came in until the day before is paid out."""
SETTLES_AFTER: Final = timedelta(days=2)

# Basis points of the amount, and fen, as such methods cost; what the house pays out and gives back costs nothing.
_MISSING: Final = text("""
SELECT c.id AS source, CASE c.method WHEN 'card' THEN 'charge' ELSE 'payment' END AS type, 'charge' AS category,
       c.amount, CASE c.method WHEN 'card' THEN (c.amount * 290 + 5000) / 10000 + 30 ELSE (c.amount * 60 + 5000) / 10000 END
           AS fee, c.currency, c.created_at
FROM sandbox_charge c WHERE c.status = 'succeeded'
AND NOT EXISTS (SELECT FROM sandbox_balance_move b WHERE b.source = c.id AND b.category = 'charge')
UNION ALL
SELECT r.id, CASE r.method WHEN 'card' THEN 'refund' ELSE 'payment_refund' END, 'refund', -r.amount, 0, r.currency,
       r.created_at
FROM sandbox_refund r WHERE r.status <> 'failed'
AND NOT EXISTS (SELECT FROM sandbox_balance_move b WHERE b.source = r.id AND b.category = 'refund')
UNION ALL
SELECT d.id, 'adjustment', 'dispute', -d.amount, d.fee, d.currency, d.created_at FROM sandbox_dispute d
WHERE NOT EXISTS (SELECT FROM sandbox_balance_move b WHERE b.source = d.id AND b.category = 'dispute')
UNION ALL
SELECT d.id, 'adjustment', 'dispute_reversal', d.amount, 0, d.currency, d.closed_at FROM sandbox_dispute d
WHERE d.status = 'won'
AND NOT EXISTS (SELECT FROM sandbox_balance_move b WHERE b.source = d.id AND b.category = 'dispute_reversal')
ORDER BY created_at, source
""")
_ADD: Final = text("""
INSERT INTO sandbox_balance_move (id, type, category, source, amount, fee, currency, created_at)
VALUES (:id, :type, :category, :source, :amount, :fee, :currency, :created_at)
ON CONFLICT DO NOTHING
""")
_PAY_OUT: Final = text("""
WITH out AS (
    UPDATE sandbox_balance_move SET payout_id = :payout
    WHERE payout_id IS NULL AND type <> 'payout' AND currency = :currency AND created_at < :until RETURNING amount - fee AS net
)
SELECT coalesce(sum(net), 0)::bigint FROM out
""")
_UNPAID: Final = text("""
SELECT currency FROM sandbox_balance_move WHERE payout_id IS NULL AND type <> 'payout' AND created_at < :until
GROUP BY currency HAVING sum(amount - fee) > 0
""")


class SandboxBalanceMove(Model, table=True):
    """Something that changed the balance, at Stripe a BalanceTransaction; `payout_id` is what it was paid out with."""

    __tablename__ = "sandbox_balance_move"
    __table_args__ = (
        Index("sandbox_balance_move_once", "source", "category", unique=True),
        Index("sandbox_balance_move_unpaid", "created_at", postgresql_where=text("payout_id IS NULL")),
    )

    id: str = Field(primary_key=True)
    type: str
    category: str
    source: str
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    fee: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    payout_id: str | None = None
    created_at: datetime = Field(sa_column=instant())


class SandboxPayout(Model, table=True):
    """Money sent to the house's bank account."""

    __tablename__ = "sandbox_payout"

    id: str = Field(primary_key=True)
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    created_at: datetime = Field(sa_column=instant())


def payout_json(row: SandboxPayout) -> Json:
    """A Payout."""
    return {
        "id": row.id,
        "object": "payout",
        "amount": row.amount,
        "arrival_date": epoch(row.created_at),
        "automatic": True,
        "created": epoch(row.created_at),
        "currency": row.currency,
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "status": "paid",
        "type": "bank_account",
    }


def move_json(row: SandboxBalanceMove) -> Json:
    """A BalanceTransaction."""
    available_at = row.created_at + SETTLES_AFTER
    fee = {"amount": row.fee, "application": None, "currency": row.currency, "description": None, "type": "stripe_fee"}
    return {
        "id": row.id,
        "object": "balance_transaction",
        "amount": row.amount,
        "available_on": epoch(available_at),
        "balance_type": "payments",
        "created": epoch(row.created_at),
        "currency": row.currency,
        "description": None,
        "exchange_rate": None,
        "fee": row.fee,
        "fee_details": [fee] if row.fee else [],
        "net": row.amount - row.fee,
        "reporting_category": row.category,
        "source": row.source,
        "status": "available" if available_at <= clock.now() else "pending",
        "type": row.type,
    }


async def list_all(call: Call) -> Json:
    """What changed the balance, newest first."""
    # Imported here, because the objects know this kind of theirs.
    from services.billing.sandbox.objects import page  # noqa: PLC0415

    await _bring_up_to_date(call.session)
    row: Any = SandboxBalanceMove
    conditions = [row.type == call.values["type"]] if "type" in call.values else []
    return await page(call.session, "txn", call.path, call.values, *conditions)


async def _bring_up_to_date(session: AsyncSession) -> None:
    """Note what has moved since somebody last asked; nobody who never asks pays for it."""
    missing = (await session.execute(_MISSING)).mappings().all()
    if missing:
        await session.execute(_ADD, [dict(row) | {"id": new_key("txn")} for row in missing])
    today = clock.now().astimezone(clock.ZONE).date()
    paid_out_at = datetime.combine(today, PAID_OUT_AT, clock.ZONE)
    if paid_out_at > clock.now():
        return
    until = datetime.combine(today, time(), clock.ZONE)
    for currency in (await session.scalars(_UNPAID, {"until": until})).all():
        payout = {"payout": new_key("po"), "currency": currency}
        net = (await session.execute(_PAY_OUT, payout | {"until": until})).scalar_one()
        if net:
            made = SandboxPayout(id=payout["payout"], amount=net, currency=currency, created_at=paid_out_at)
            session.add(made)
            await session.flush()
            values = {"id": new_key("txn"), "type": "payout", "category": "payout", "source": made.id}
            await session.execute(
                _ADD, values | {"amount": -net, "fee": 0, "currency": currency, "created_at": paid_out_at}
            )


OPERATIONS = [
    operation(
        "GET",
        "/v1/balance_transactions",
        BalanceTransactionListParams,
        "limit starting_after ending_before created created.* type",
        list_all,
    ),
]
