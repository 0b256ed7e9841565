"""Revenue by business day: what was paid, what went back, who paid, what is still to be earned, and which renewals were due."""

from datetime import date
from typing import Annotated, Any, Final

from fastapi import Response
from sqlalchemy import text

from kit import clock
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import problems
from kit.http import json_response
from kit.shapes import Out
from services.billing.periods import BadPeriod, PeriodDep

router = new_router(prefix="/v1/admin/metrics", tags=["admin ledger"])

Reader = Annotated[Caller, admin_with("orders:read")]

MOST_DAYS = 366
CURRENCY: Final = "CNY"

# Money that bought nothing is neither paid nor given back: it waits for a person, or is on its way home.
_PAID: Final = text("""
SELECT (p.received_at AT TIME ZONE :zone)::date AS day, sum(p.amount)::bigint AS gross,
       count(DISTINCT o.member_id) AS payers
FROM payment p JOIN "order" o ON o.id = p.order_id
WHERE p.received_at >= :since AND p.received_at < :until AND p.status = 'applied' AND p.amount > 0
      AND p.currency = :currency
GROUP BY 1
""")
# What a payer's bank took for good is given back as much as a refund is.
_REFUNDED: Final = text("""
SELECT day, sum(amount)::bigint AS refunds
FROM (
    SELECT (settled_at AT TIME ZONE :zone)::date AS day, amount
    FROM refund
    WHERE settled_at >= :since AND settled_at < :until AND status = 'succeeded' AND cause <> 'surplus'
          AND currency = :currency
    UNION ALL
    SELECT (e.at AT TIME ZONE :zone)::date, l.credit
    FROM ledger_entry e JOIN ledger_line l ON l.entry_id = e.id
    WHERE e.kind = 'dispute_lost' AND e.at >= :since AND e.at < :until AND l.account = 'disputed'
          AND l.currency = :currency
) back GROUP BY day
""")
_RENEWED: Final = text("""
SELECT (renews_from AT TIME ZONE :zone)::date AS day, count(*) AS renewals_due, count(paid_at) AS renewals_paid
FROM "order" WHERE renews_from >= :since AND renews_from < :until GROUP BY 1
""")
# From what is deferred now, the row without a day, back to the period: days that are over since are few, entries many.
_DEFERRED: Final = text("""
SELECT NULL::date AS day, coalesce(sum(credit - debit), 0)::bigint AS moved
FROM ledger_line WHERE account = 'deferred_revenue' AND currency = :currency
UNION ALL
SELECT (e.at AT TIME ZONE :zone)::date, sum(l.credit - l.debit)::bigint
FROM ledger_entry e JOIN ledger_line l ON l.entry_id = e.id
WHERE e.at >= :since AND l.account = 'deferred_revenue' AND l.currency = :currency
GROUP BY 1
""")


class RevenueDay(Out):
    """A business day in fen: `gross` is what was paid after discounts, `arpu` is net by payer, rounded down.

    `deferred_revenue` is what was paid and not earned yet at the day's end. Renewals count on the day they were due.
    """

    day: date
    gross: int
    refunds: int
    net: int
    payers: int
    arpu: int
    deferred_revenue: int
    renewals_due: int
    renewals_paid: int


class Revenue(Out):
    """Every day of the period, also those on which nothing happened."""

    currency: str
    items: list[RevenueDay]


@router.get("/revenue", response_model=Revenue, responses=problems(BadPeriod))
async def read_revenue(_: Reader, session: SessionDep, period: PeriodDep) -> Response:
    """Revenue of each business day from `from` to `to`, both included, at most a year."""
    period.limited(MOST_DAYS)
    values = {
        "zone": clock.ZONE.key,
        "since": period.starts_at,
        "until": period.ends_at,
        "currency": CURRENCY,
    }
    paid, refunded, renewed = [
        {row.day: row for row in (await session.execute(statement, values)).all()}
        for statement in (_PAID, _REFUNDED, _RENEWED)
    ]
    moved = {row.day: row.moved for row in (await session.execute(_DEFERRED, values)).all()}
    deferred = moved.pop(None)
    deferred -= sum(amount for day, amount in moved.items() if day > period.last)
    items: list[dict[str, Any]] = []
    for day in reversed(period.days()):
        gross, payers = (paid[day].gross, paid[day].payers) if day in paid else (0, 0)
        refunds = refunded[day].refunds if day in refunded else 0
        items.append(
            {
                "day": day,
                "gross": gross,
                "refunds": refunds,
                "net": gross - refunds,
                "payers": payers,
                "arpu": (gross - refunds) // payers if payers else 0,
                "deferred_revenue": deferred,
                "renewals_due": renewed[day].renewals_due if day in renewed else 0,
                "renewals_paid": renewed[day].renewals_paid if day in renewed else 0,
            }
        )
        deferred -= moved.get(day, 0)
    return json_response({"currency": CURRENCY, "items": items[::-1]})
