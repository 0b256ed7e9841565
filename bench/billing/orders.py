"""Orders placed and paid a second, from the app's first request to the membership being granted, through the gateway.

Run: `python -m bench.billing.orders [orders]`. Two floors in the same run, on the same stores: the sandbox provider alone
(a session opened with the SDK and paid; it works in this process, as it does in `make up`), and pgbench committing the
rows of an order and of its payment.
"""

import asyncio
import sys
import time
from typing import Any

import stripe
from starlette.types import ASGIApp

from bench.billing.shop import Shop, bearers, open_shop, percentiles, post, share
from bench.load import pgbench
from kit.ids import new_id
from services.billing.provider import provider_of

CLIENTS = 16
WAIT_S = 60.0
TABLES = (
    "CREATE TABLE sale (id uuid PRIMARY KEY, number text UNIQUE, member uuid, status text, total bigint, title text)",
    "CREATE TABLE money (id uuid PRIMARY KEY, sale uuid REFERENCES sale, ref text UNIQUE, amount bigint)",
    "CREATE TABLE line (id uuid PRIMARY KEY, account text, debit bigint, credit bigint)",
    "CREATE TABLE told (id bigserial PRIMARY KEY, body jsonb)",
)
ROWS = """
SELECT gen_random_uuid()::text AS sale \\gset
BEGIN;
INSERT INTO sale VALUES (:sale::uuid, :sale, gen_random_uuid(), 'pending', 1990, 'card');
COMMIT;
BEGIN;
UPDATE sale SET status = 'paid' WHERE id = :sale::uuid AND status = 'pending';
INSERT INTO money VALUES (gen_random_uuid(), :sale::uuid, :sale, 1990);
INSERT INTO line VALUES (gen_random_uuid(), 'cash', 1990, 0), (gen_random_uuid(), 'deferred', 0, 1990);
INSERT INTO told (body) VALUES ('{"type": "paid"}');
COMMIT;
"""


async def orders(shop: Shop, count: int) -> None:
    """Place and pay so many, each by another member, and wait until each is paid."""
    placing: list[float] = []

    async def buy(bearer: bytes) -> None:
        started = time.perf_counter()
        wanted = {"plan_code": "black-card-1m", "payment_method": "card"}
        order = await post(shop.app, "/v1/orders", bearer, wanted, 201, str(new_id()))
        placing.append(time.perf_counter() - started)
        await _pay(shop.app, order["checkout"]["url"])

    people = await bearers(count)
    started = time.perf_counter()
    placed = await share(people, CLIENTS, buy)
    while (paid := (await shop.rows("SELECT count(*) FROM \"order\" WHERE status = 'paid'"))[0][0]) < count:
        if time.perf_counter() - started > WAIT_S:
            raise RuntimeError(f"{paid} of {count} orders are paid after {WAIT_S} s")
        await asyncio.sleep(0.05)
    took = time.perf_counter() - started
    print(f"placed and paid, {CLIENTS} clients:        {count / took:8.1f}/s   ({count} in {took:.1f} s)")
    print(f"   placed, and paid at the cashier: {count / placed:8.1f}/s   placing: {percentiles(placing)}")


async def _pay(app: ASGIApp, url: str) -> None:
    await post(app, f"/v1/{url.partition('/v1/')[2]}/pay", b"", {}, 200)


async def provider_alone(shop: Shop, count: int) -> None:
    """The least that these sessions cost: opened with the SDK, and paid."""
    client: stripe.StripeClient = provider_of(shop.rt).client
    item: Any = {"currency": "cny", "unit_amount": 1990, "product_data": {"name": "card"}}

    async def one(_: int) -> None:
        session = await client.v1.checkout.sessions.create_async(
            {"mode": "payment", "line_items": [{"quantity": 1, "price_data": item}]},
            {"idempotency_key": str(new_id())},
        )
        await _pay(shop.app, session.url or "")

    took = await share(list(range(count)), CLIENTS, one)
    print(f"floor: the sandbox provider alone: {count / took:8.1f}/s")


async def main(count: int) -> None:
    """Floors and product, one after the other."""
    async with open_shop() as shop:
        await orders(shop, count)
        await provider_alone(shop, count)
        await asyncio.to_thread(shop.postgres.query, *TABLES, database="floor")
        script = shop.folder / "rows.sql"
        script.write_text(ROWS)
        committed = await asyncio.to_thread(pgbench, shop.postgres, "floor", script)
        print(f"floor: the rows alone, pgbench:    {committed:8.1f}/s")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
