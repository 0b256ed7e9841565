"""Orders: one open order a plan, prices kept, somebody else's not found."""

import asyncio

from contracts.billing import OrderPaid
from kit.ids import new_id
from tests.services.billing.till import Till


async def test_an_order_is_placed_paid_and_told_once(till: Till) -> None:
    member = new_id()
    placed = await till.order(member)
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert (order["status"], order["subtotal"], order["discount"], order["total"]) == ("pending", 1990, 0, 1990)
    assert order["checkout"]["url"]
    assert (await till.pay(order)).status_code == 200
    paid = await till.read(member, order["id"])
    assert paid["status"] == "paid"
    assert paid["paid_at"] is not None
    assert paid["checkout"] is None
    (event,) = await till.api.emitted()
    assert isinstance(event, OrderPaid)
    assert (str(event.order_id), event.total, event.months, event.kind) == (order["id"], 1990, 1, "membership")
    assert event.fingerprint
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}
    assert await till.api.run_due() == 0


async def test_twenty_orders_at_once_are_one(till: Till) -> None:
    member = new_id()
    answers = await asyncio.gather(*(till.order(member) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({answer.json()["checkout"]["url"] for answer in answers}) == 1
    assert await till.api.sql('SELECT count(*) FROM "order"') == [(1,)]
