"""10,000 webhooks in random order with duplicates: the time to store them, the time to handle them, every invariant.

Run: `python -m bench.billing.webhooks [orders]`. Of each order five messages come: its payment by two kinds of events, each
told a second time under another event id, and one delivered twice. The floor, in the same run and on the same PostgreSQL,
is pgbench storing one message with one commit.
"""

import asyncio
import json
import random
import sys
import time
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from bench.billing.shop import SECRET, WEBHOOKS, Shop, ask, open_shop, share
from bench.load import pgbench
from kit import clock
from services.billing.sandbox.deliveries import signature

CLIENTS = 64
WAIT_S = 600.0
STORE = "INSERT INTO message VALUES (gen_random_uuid()::text, 'kind', repeat('x', 600)::bytea, now(), 0, now());\n"
ORDERS = """
    INSERT INTO "order" (id, number, member_id, kind, status, plan_code, plan_version, title, months, benefits, subtotal,
        discount, total, refunded_amount, currency, payment_method, auto_renew, session_open, session_id, created_at,
        expires_at, next_check_at)
    SELECT gen_random_uuid(), 'HK-' || n, gen_random_uuid(), 'membership', 'pending', 'black-card-1m', 1, 'card', 1, '{}',
        1990, 0, 1990, 0, 'CNY', 'card', false, true, 'cs_' || n, :now, :until, :until
    FROM generate_series(1, :orders) n RETURNING id, number
"""
INTENTS = """
    INSERT INTO sandbox_intent (id, currency, amount, amount_received, status, payment_method_types, metadata, created_at)
    SELECT 'pi_' || n, 'cny', 1990, 1990, 'succeeded', '["card"]', '{}', :now FROM generate_series(1, :orders) n
"""
RESULT = """
    SELECT (SELECT count(*) FROM "order" WHERE status = 'paid') AS paid,
        (SELECT count(*) FROM payment WHERE status = 'applied') AS applied,
        (SELECT count(*) FROM payment) AS payments,
        (SELECT count(*) FROM outbox WHERE type = 'billing.order.paid') AS told,
        (SELECT count(*) FROM provider_event) AS events,
        (SELECT count(*) FROM provider_event WHERE handled_at IS NULL) AS unhandled,
        (SELECT count(*) FROM ledger_entry WHERE kind = 'payment') AS booked,
        (SELECT sum(debit) FROM ledger_line WHERE account = 'provider_receivable') AS received,
        (SELECT sum(debit) - sum(credit) FROM ledger_line) AS out_of_balance
"""


def messages(orders: list[Any]) -> list[bytes]:
    """Five messages of each order, of four events."""
    bodies = []
    for order_id, number in orders:
        ref = f"pi_{number.removeprefix('HK-')}"
        labels = {"order_id": str(order_id)}
        intent = {"id": ref, "object": "payment_intent", "amount_received": 1990, "currency": "cny", "metadata": labels}
        session = {
            "id": f"cs_{ref}",
            "object": "checkout.session",
            "payment_status": "paid",
            "payment_intent": ref,
            "amount_total": 1990,
            "currency": "cny",
            "client_reference_id": str(order_id),
            "metadata": labels,
        }
        told = [("payment_intent.succeeded", intent), ("checkout.session.completed", session)] * 2
        events = [
            json.dumps({"id": f"evt_{ref}_{n}", "object": "event", "type": kind, "data": {"object": subject}}).encode()
            for n, (kind, subject) in enumerate(told)
        ]
        bodies += [*events, events[0]]
    random.shuffle(bodies)
    return bodies


async def deliver(shop: Shop, orders: int) -> None:
    """Post all messages, wait until they are handled, and look at what came of them."""
    now = clock.now()
    placed = await shop.rows(ORDERS, orders=orders, now=now, until=now + timedelta(hours=1))
    await shop.rows(INTENTS, orders=orders, now=now)
    bodies = messages(placed)
    count = len(bodies)

    async def one(body: bytes) -> None:
        headers = [(b"stripe-signature", signature(body, SECRET).encode())]
        status, answer = await ask(shop.app, "POST", WEBHOOKS, headers=headers, body=body)
        if status != HTTPStatus.OK:
            raise RuntimeError(f"a webhook was answered {status}: {answer.decode()[:200]}")

    started = time.perf_counter()
    stored = await share(bodies, CLIENTS, one)
    while (left := (await shop.rows(RESULT))[0]).unhandled:
        if time.perf_counter() - started > WAIT_S:
            raise RuntimeError(f"after {WAIT_S} s: {left}")
        await asyncio.sleep(0.1)
    took = time.perf_counter() - started
    print(f"{count} webhooks, {CLIENTS} clients: answered in {stored:.1f} s ({count / stored:.0f}/s)")
    print(f"   all {4 * orders} events handled in {took:.1f} s ({4 * orders / took:.0f}/s)")
    found = left._asdict()
    expected = dict.fromkeys(("paid", "applied", "payments", "told", "booked"), orders)
    expected |= {"events": 4 * orders, "unhandled": 0, "received": 1990 * orders, "out_of_balance": 0}
    if found != expected:
        raise RuntimeError(f"expected {expected}, found {found}")
    print(f"   {orders} orders paid once each, {orders} payments, books balanced, nothing told twice")


async def main(orders: int) -> None:
    """Floor and product, one after the other."""
    async with open_shop() as shop:
        table = "CREATE TABLE message (id text PRIMARY KEY, kind text, body bytea, at timestamptz, tries int, due timestamptz)"
        await asyncio.to_thread(shop.postgres.query, table, database="floor")
        script = shop.folder / "store.sql"
        script.write_text(STORE)
        committed = await asyncio.to_thread(pgbench, shop.postgres, "floor", script)
        print(f"floor: a message stored with a commit, pgbench: {committed:.0f}/s")
        await deliver(shop, orders)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
