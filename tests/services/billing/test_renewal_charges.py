"""Charges whose outcome nobody knows: made once, found again, neither repeated nor given up."""

import asyncio
from datetime import timedelta

import pytest

from services.billing import renewal_charges, renewals
from tests.services.billing.renewing import ENDS, World, local, subscribed, unheard, wall


async def test_a_charge_whose_answer_is_lost_is_made_once(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-02-28 09:59"))
    await unheard(world, times=3)
    world.api.clock.set(local("2027-02-28 10:00") + timedelta(seconds=30))
    await world.settle()
    # It was charged, and nobody here knows: neither given up nor charged again.
    assert await world.charges(member) == ["succeeded"]
    assert [row[1] for row in await world.renewals(member)] == ["pending"]
    assert (await world.subscription(member))["status"] == "active"
    world.api.clock.advance(timedelta(minutes=2))
    await world.settle()
    assert await world.charges(member) == ["succeeded"]
    assert [row[1] for row in await world.renewals(member)] == ["paid"]
    assert [wall(end) for _, end in await world.spans(member)] == [ENDS, "2027-03-31 10:00"]
    await world.at_rest()


async def test_a_decline_whose_answer_is_lost_is_one_decline(world: World) -> None:
    member = await subscribed(world, "fail")
    await world.walk(local("2027-02-28 09:59"))
    await world.till.break_calls("drop", match="/v1/payment_intents", times=3)
    world.api.clock.set(local("2027-02-28 10:00") + timedelta(seconds=30))
    await world.settle()
    assert (await world.subscription(member))["status"] == "active"
    world.api.clock.advance(timedelta(minutes=2))
    await world.settle()
    assert await world.charges(member) == ["requires_payment_method"]
    assert (await world.subscription(member))["status"] == "past_due"
    assert len(world.notices("renewal_failed")) == 1


async def test_a_charge_that_was_made_long_ago_is_found_when_its_key_is_forgotten(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-02-28 09:59"))
    await unheard(world, times=1000)
    world.api.clock.set(local("2027-02-28 10:00") + timedelta(seconds=30))
    await world.settle()
    await world.api.sql("DELETE FROM sandbox_idempotency")
    await world.till.break_calls("drop", times=0)
    world.api.clock.set(local("2027-03-01 10:05"))
    await world.settle()
    assert await world.charges(member) == ["succeeded"]
    assert [row[1] for row in await world.renewals(member)] == ["paid"]
    assert [wall(end) for _, end in await world.spans(member)] == [ENDS, "2027-03-31 10:00"]


async def test_nothing_lapses_while_nobody_knows_whether_it_was_charged(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-02-28 09:59"))
    await world.till.break_calls("error", match="/v1/payment_intents", times=10_000)
    await world.walk(local("2027-03-07 11:00"))
    assert [row[1] for row in await world.renewals(member)] == ["pending"]
    assert world.notices("renewal_lapsed") == []
    await world.till.break_calls("error", times=0)
    await world.pass_by(days=2)
    # It was never made: with nothing charged in the grace, it lapses.
    assert len(await world.charges(member)) <= 1
    (row,) = await world.renewals(member)
    assert row[1] in ("paid", "expired")
    await world.till.balanced()
    await world.at_rest()


async def test_a_process_that_died_before_it_charged_is_followed_by_one_that_does(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-02-28 09:59"))
    world.api.clock.set(local("2027-02-28 10:00") + timedelta(seconds=30))

    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    whole = renewal_charges.try_to_execute
    renewal_charges.try_to_execute = dies  # type: ignore[assignment]
    try:
        with pytest.raises(asyncio.CancelledError):
            await renewals.run(world.api.rt)
    finally:
        renewal_charges.try_to_execute = whole
    assert await world.charges(member) == []
    world.api.clock.advance(timedelta(minutes=1))
    await world.settle()
    assert await world.charges(member) == ["succeeded"]
    assert [row[1] for row in await world.renewals(member)] == ["paid"]


async def test_a_charge_that_was_parked_is_not_made_again(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-02-28 09:59"))
    await unheard(world, times=3)
    world.api.clock.set(local("2027-02-28 10:00") + timedelta(seconds=30))
    await world.settle()
    assert await world.charges(member) == ["succeeded"]
    # Whatever made the amounts differ, money that came is not asked for a second time.
    await world.api.sql('UPDATE "order" SET subtotal = 2000, total = 2000 WHERE renews_from IS NOT NULL')
    await world.pass_by(days=3)
    assert await world.charges(member) == ["succeeded"]
    assert await world.api.sql("SELECT status FROM payment ORDER BY received_at") == [("applied",), ("parked",)]
    held = await world.till.client.get("/v1/admin/subscriptions?held=true", headers=world.api.admin("orders:read"))
    assert [row["held_reason"] for row in held.json()["items"]] == ["charged_before"]
    assert [notice.kind for notice in world.notices()] == ["renewal_upcoming", "renewal_stopped"]
    await world.pass_by(days=6)
    assert await world.charges(member) == ["succeeded"]
    assert (await world.subscription(member))["status"] == "none"
