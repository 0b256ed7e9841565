"""People, jobs and the provider at the same moment: one of them is first, and the money agrees on which."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx

from kit.ids import new_id
from tests.failures.billing.invariants import check
from tests.failures.billing.world import LATER, SOON, World


async def _press(world: World, order: dict[str, Any]) -> httpx.Response:
    path = f"/v1/{order['checkout']['url'].partition('/v1/')[2]}/pay"
    return await world.till.client.post(path, json={})


async def _statuses(world: World) -> dict[str, int]:
    rows = await world.billing.sql('SELECT status, count(*) FROM "order" GROUP BY status')
    return {row[0]: row[1] for row in rows}


async def test_who_cancels_while_paying_has_either_paid_or_canceled(world: World) -> None:
    people = [new_id() for _ in range(8)]
    orders = [await world.order(person) for person in people]
    paying = [_press(world, order) for order in orders]
    canceling = [world.till.cancel(person, order["id"]) for person, order in zip(people, orders, strict=True)]
    answers = await asyncio.gather(*paying, *canceling)
    assert {answer.status_code for answer in answers} <= {200, 409}
    await world.wait(*SOON, *LATER)
    charged = (await world.billing.sql("SELECT count(*) FROM sandbox_charge WHERE status = 'succeeded'"))[0][0]
    assert await _statuses(world) == {
        status: count for status, count in (("paid", charged), ("canceled", 8 - charged)) if count
    }
    assert charged == sum(answer.status_code == 200 for answer in answers[:8])
    await check(world)


async def test_everybody_who_asks_finds_the_same_payment(world: World) -> None:
    order = await world.order()
    await _press(world, order)
    asking = [world.till.read(world.member, order["id"], refresh=True) for _ in range(5)]
    await asyncio.gather(*asking, world.till.cancel(world.member, order["id"]), world.billing.run_due())
    await world.settle()
    assert (await world.read(order))["status"] == "paid"
    assert await world.billing.sql("SELECT count(*) FROM payment") == [(1,)]
    await check(world)


async def test_a_payment_at_the_moment_of_expiry_is_taken_or_impossible(world: World) -> None:
    orders = [await world.order(new_id()) for _ in range(6)]
    world.billing.clock.advance(timedelta(minutes=30))
    await asyncio.gather(*(_press(world, order) for order in orders), world.billing.run_due())
    await world.wait(*SOON, *LATER)
    charged = (await world.billing.sql("SELECT count(*) FROM sandbox_charge WHERE status = 'succeeded'"))[0][0]
    assert (await _statuses(world)).get("paid", 0) == charged
    assert sum((await _statuses(world)).values()) == 6
    await check(world)


async def test_one_coupon_in_many_orders_at_once_is_held_by_one(world: World) -> None:
    token = world.till.coupon(world.member)
    plans = ["black-card-1m", "black-card-3m", "black-card-12m"] * 3
    answers = await asyncio.gather(
        *(world.till.order(world.member, plan_code=plan, coupon_token=token) for plan in plans)
    )
    held = await world.billing.sql("SELECT order_id::text FROM coupon_use WHERE status = 'reserved'")
    assert {answer.json()["id"] for answer in answers if answer.status_code in (200, 201)} == {row[0] for row in held}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {
        "coupon_reserved",
        "order_busy",
    }
    assert len(held) == 1
    await world.wait(timedelta(minutes=31))
    await check(world)


async def test_many_partial_refunds_at_once_never_exceed_the_payment(world: World) -> None:
    order = await world.buy()
    asking = [world.till.admin_refund(order["id"], amount=300) for _ in range(10)]
    answers = await asyncio.gather(*asking, world.till.refund(world.member, order["id"]))
    assert {answer.status_code for answer in answers} <= {201, 409, 422}
    given = sum(answer.json()["amount"] for answer in answers if answer.status_code == 201)
    await world.wait(*SOON)
    after = await world.read(order)
    assert after["refunded_amount"] == given <= 1990
    await check(world)


async def test_a_refund_and_a_dispute_at_once_do_not_give_the_money_away_twice(world: World) -> None:
    orders = [await world.buy() for _ in range(2)]
    racing = []
    for order in orders:
        racing.append(world.till.refund(world.member, order["id"]))
        wanted = {"order_id": order["id"], "outcome": "opened"}
        racing.append(world.till.client.post("/v1/sandbox/disputes", json=wanted))
    answers = await asyncio.gather(*racing)
    assert {answer.status_code for answer in answers} <= {200, 201, 409, 422}
    await world.wait(*SOON, *LATER)
    gone = await world.billing.sql(
        "SELECT c.amount, c.amount_refunded + coalesce((SELECT sum(d.amount) FROM sandbox_dispute d WHERE d.charge_id = c.id), 0) "
        "FROM sandbox_charge c"
    )
    assert all(lost <= amount for amount, lost in gone), gone
    await check(world)
