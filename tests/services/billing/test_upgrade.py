"""An installation from before revenue was recognised: its books stay, and what it was paid is earned from then on."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
from sqlalchemy import make_url

from kit.ids import new_id
from kit.migrations import upgrade
from tests.harness import Stores

PAID_AT = datetime(2031, 1, 31, 2, tzinfo=UTC)

ORDER = (
    'INSERT INTO "order" (id, number, member_id, kind, status, plan_code, plan_version, title, months, benefits, subtotal,'
    " discount, total, refunded_amount, currency, payment_method, session_open, auto_renew, created_at, expires_at, paid_at)"
    " VALUES ($1, $2, $3, 'membership', $4, 'card', 1, 'card', 1, '{}', 1990, $5, $6, $7, 'CNY', 'card', false, false, $8, $8, $8)"
)


async def _old_order(old: asyncpg.Connection, number: str, member: UUID, discount: int, refunded: int) -> UUID:
    """An order as it was written before: paid into what is deferred, refunded out of it."""
    order_id, total = new_id(), 1990 - discount
    status = "refunded" if refunded and refunded == total else "partially_refunded" if refunded else "paid"
    await old.execute(ORDER, order_id, number, member, status, discount, total, refunded, PAID_AT)
    moves = [("payment", "provider_receivable", "deferred_revenue", total)]
    moves += [("refund", "deferred_revenue", "provider_receivable", refunded)]
    for kind, debit, credit, amount in moves:
        if not amount:
            continue
        async with old.transaction():
            entry = new_id()
            await old.execute(
                "INSERT INTO ledger_entry (id, kind, source_id, order_id, at) VALUES ($1, $2, $1, $3, $4)",
                entry,
                kind,
                order_id,
                PAID_AT,
            )
            line = "INSERT INTO ledger_line (entry_id, position, account, currency, debit, credit) VALUES ($1, $2, $3, 'CNY', $4, $5)"
            await old.execute(line, entry, 1, debit, amount, 0)
            await old.execute(line, entry, 2, credit, 0, amount)
    return order_id


async def test_old_orders_get_schedules_that_agree_with_their_entries(stores: Stores) -> None:
    name = "billing_of_old"
    stores.postgres.ensure_database(name)
    url = stores.postgres.url(name)
    await upgrade("billing", url, "0006")
    parts = make_url(url)
    old = await asyncpg.connect(user=parts.username, database=parts.database, host=parts.query["host"])
    try:
        await old.execute(
            "INSERT INTO plan VALUES ('card', 'card', 1, '{}', true, 1, 1, now(), now());"
            "INSERT INTO plan_version VALUES ('card', 1, 1990, null, 'CNY', now())"
        )
        member, ends_at = new_id(), PAID_AT + timedelta(days=28)
        told = await _old_order(old, "told", member, 500, 0)
        partly = await _old_order(old, "partly", new_id(), 0, 990)
        whole = await _old_order(old, "whole", new_id(), 500, 1490)
        free = await _old_order(old, "free", new_id(), 1990, 0)
        span = {"starts_at": PAID_AT.isoformat(), "ends_at": ends_at.isoformat()}
        segment = {"source": "order", "source_id": str(told)} | span
        await old.execute("INSERT INTO member_time VALUES ($1, 1, $2)", member, json.dumps([segment]))
        await upgrade("billing", url)
        rows = await old.fetch(
            "SELECT order_id, amount, discount, holder_id, ends_at, next_on::text FROM revenue_schedule"
        )
        assert {tuple(row) for row in rows} == {
            (told, 1490, 500, member, ends_at, "2031-01-31"),
            (partly, 1000, 0, None, None, None),
            (whole, 0, 0, None, None, None),
            (free, 0, 1990, None, None, None),
        }
        deferred = "SELECT sum(credit - debit)::int FROM ledger_line WHERE account = 'deferred_revenue'"
        assert (
            await old.fetchval(deferred) == await old.fetchval("SELECT sum(amount)::int FROM revenue_schedule") == 2490
        )
    finally:
        await old.close()
    stores.postgres.drop_database(name)
