"""What people do that moves money or time: how it begins, the act itself, and what it comes to."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from kit.ids import new_id
from tests.failures.billing.world import World

Thing = dict[str, Any]


@dataclass(frozen=True)
class Act:
    """`prepare` happens while all is well, `perform` while something is wrong, `expect` when it has passed."""

    prepare: Callable[[World], Awaitable[Thing]]
    perform: Callable[[World, Thing], Awaitable[None]]
    expect: Callable[[World, Thing], Awaitable[None]]


async def nothing(world: World) -> Thing:
    return {"coupon_token": world.till.coupon(world.member)}


async def pay(world: World, thing: Thing) -> None:
    thing["order"] = await world.order(coupon_token=thing["coupon_token"])
    await world.pay(thing["order"])


async def paid(world: World, thing: Thing) -> None:
    order = await world.read(thing["order"])
    assert (order["status"], order["total"], order["refunded_amount"]) == ("paid", 1490, 0)
    assert await world.segments() == [("order", order["id"])]


async def bought(world: World) -> Thing:
    return {"order": await world.buy(coupon_token=world.till.coupon(world.member)), "key": str(new_id())}


async def refund(world: World, thing: Thing) -> None:
    await world.insist(lambda: world.till.refund(world.member, thing["order"]["id"], key=thing["key"]), 201)


async def refunded(world: World, thing: Thing) -> None:
    order = await world.read(thing["order"])
    assert (order["status"], order["refunded_amount"]) == ("refunded", 1490)
    assert await world.segments() == []
    sent = """
        SELECT s.amount FROM sandbox_refund s JOIN refund r ON r.id::text = s.metadata ->> 'refund_id'
        WHERE r.order_id = CAST(:order AS uuid)
    """
    assert await world.billing.sql(sent, order=order["id"]) == [(1490,)]


async def ordered(world: World) -> Thing:
    return {"order": await world.order(coupon_token=world.till.coupon(world.member))}


async def expire(world: World, _: Thing) -> None:
    await world.wait(timedelta(minutes=30))


async def expired(world: World, thing: Thing) -> None:
    order = await world.read(thing["order"])
    assert (order["status"], order["paid_at"]) == ("expired", None)
    assert await world.segments() == []
    ended = "SELECT status FROM sandbox_session WHERE client_reference_id = :order"
    assert await world.billing.sql(ended, order=order["id"]) == [("expired",)]


async def given(world: World) -> Thing:
    gift = await world.buy(gift=True)
    return {"code": (await world.read(gift))["gift_code"], "gift": gift["id"], "key": str(new_id())}


async def redeem(world: World, thing: Thing) -> None:
    headers = world.billing.member(world.member) | {"Idempotency-Key": thing["key"]}
    wanted = {"code": thing["code"]}
    await world.insist(lambda: world.till.client.post("/v1/redemptions", json=wanted, headers=headers), 201)


async def redeemed(world: World, thing: Thing) -> None:
    assert await world.segments() == [("gift", thing["gift"])]


async def bought_twice(world: World) -> Thing:
    return {"lost": await world.buy(), "won": await world.buy()}


async def dispute(world: World, thing: Thing) -> None:
    for outcomes in (("opened", "opened"), ("lost", "won")):
        for name, outcome in zip(("lost", "won"), outcomes, strict=True):
            wanted = {"order_id": thing[name]["id"], "outcome": outcome}
            await world.insist(partial(world.till.client.post, "/v1/sandbox/disputes", json=wanted), 200, 201)
        await world.settle()


async def disputed(world: World, thing: Thing) -> None:
    assert (await world.read(thing["lost"]))["status"] == "disputed"
    assert (await world.read(thing["won"]))["status"] == "paid"
    assert await world.segments() == [("order", thing["won"]["id"])]


async def subscribed(world: World) -> Thing:
    order = await world.buy(auto_renew=True)
    ends_at = await world.until()
    await world.wait_until(ends_at - timedelta(days=5) + timedelta(seconds=1))
    return {"order": order, "ends_at": ends_at}


async def renew(world: World, thing: Thing) -> None:
    await world.wait_until(thing["ends_at"])


async def renewed(world: World, thing: Thing) -> None:
    orders = await world.billing.sql(
        'SELECT id::text, status, renews_from FROM "order" WHERE member_id = :member AND renews_from IS NOT NULL '
        "ORDER BY renews_from",
        member=world.member,
    )
    assert {order.status for order in orders} == {"paid"}
    assert orders[0].renews_from == thing["ends_at"]
    assert await world.segments() == [("order", thing["order"]["id"]), *(("order", order.id) for order in orders)]


ACTS = {
    "pay": Act(nothing, pay, paid),
    "refund": Act(bought, refund, refunded),
    "expire": Act(ordered, expire, expired),
    "redeem": Act(given, redeem, redeemed),
    "dispute": Act(bought_twice, dispute, disputed),
    "renew": Act(subscribed, renew, renewed),
}
