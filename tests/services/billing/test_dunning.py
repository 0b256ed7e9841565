"""Renewals that the bank refuses: tried again after 1, 3 and 6 days, paid by hand, or lapsed; and never charged twice."""

import asyncio
from datetime import timedelta

import pytest

from contracts.billing import OrderClosed, OrderPaid, SubscriptionChanged
from contracts.referrals import RewardGranted
from kit import clock
from kit.ids import new_id
from services.billing import renewal_charges, renewals
from tests.services.billing.renewing import ENDS, World, local, subscribed, wall


@pytest.mark.parametrize(
    ("failures", "paid_after"), [(1, "2027-03-01 10:00"), (2, "2027-03-03 10:00"), (3, "2027-03-06 10:00")]
)
async def test_a_charge_that_failed_is_tried_again_after_1_3_and_6_days(
    world: World, failures: int, paid_after: str
) -> None:
    member = await subscribed(world, *["fail"] * failures)
    await world.walk(local(ENDS) + timedelta(minutes=1))
    shown = await world.subscription(member)
    assert (shown["status"], wall(shown["renews_at"]), wall(shown["access_until"])) == (
        "past_due",
        ENDS,
        "2027-03-07 10:00",
    )
    assert (await world.membership(member))["status"] == "grace"
    await world.walk(local(paid_after) - timedelta(minutes=1))
    assert (await world.subscription(member))["status"] == "past_due"
    assert await world.charges(member) == ["requires_payment_method"] * failures
    await world.walk(local(paid_after) + timedelta(minutes=1))
    assert await world.charges(member) == ["requires_payment_method"] * failures + ["succeeded"]
    # No gap, and the same anchor.
    assert [wall(end) for _, end in await world.spans(member)] == [ENDS, "2027-03-31 10:00"]
    assert (await world.subscription(member))["status"] == "active"
    assert (await world.membership(member))["status"] == "active"
    assert [row[1:] for row in await world.renewals(member)] == [("paid", 1990)]
    kinds = [notice.kind for notice in world.notices()]
    assert kinds == ["renewal_upcoming", *["renewal_failed"] * failures, "renewal_paid"]
    states = [event.status for event in world.told if isinstance(event, SubscriptionChanged)]
    assert states == ["active", "past_due", "active"]
    await world.at_rest()


async def test_what_is_never_paid_lapses_with_the_grace(world: World) -> None:
    member = await subscribed(world, *["fail"] * 10)
    await world.walk(local("2027-03-07 09:59"))
    assert await world.charges(member) == ["requires_payment_method"] * 4
    assert (await world.membership(member))["status"] == "grace"
    await world.walk(local("2027-03-07 10:01"))
    assert (await world.subscription(member))["status"] == "none"
    assert (await world.membership(member))["status"] == "expired"
    assert [row[1:] for row in await world.renewals(member)] == [("expired", 1990)]
    assert [notice.kind for notice in world.notices()] == [
        "renewal_upcoming",
        *["renewal_failed"] * 4,
        "renewal_lapsed",
    ]
    tries = [notice.body_zh for notice in world.notices("renewal_failed")]
    for text, again in zip(tries, ("3月1日 10:00", "3月3日 10:00", "3月6日 10:00", "最后一次尝试"), strict=True):
        assert again in text
    assert [event.reason for event in world.told if isinstance(event, OrderClosed)] == ["expired"]
    await world.pass_by(days=60)
    assert len(await world.charges(member)) == 4
    await world.at_rest()


async def test_a_job_that_runs_twice_charges_once(world: World) -> None:
    member = await subscribed(world, "fail")
    world.api.clock.set(local("2027-02-23 10:01"))
    await world.settle()
    for at, made in (("2027-02-28 10:01", 1), ("2027-03-01 10:02", 2)):
        world.api.clock.set(local(at))
        runs = await asyncio.gather(*(renewals.run(world.api.rt) for _ in range(4)))
        assert sum(runs) >= 1
        await asyncio.gather(*(renewal_charges.chase(world.api.rt) for _ in range(4)))
        await renewals.run(world.api.rt)
        assert len(await world.charges(member)) == made
        await world.settle()
    assert (await world.subscription(member))["status"] == "active"
    assert len([event for event in world.told if isinstance(event, OrderPaid) and event.renews_from]) == 1
    await world.at_rest()


async def test_a_bank_that_asks_for_its_customer_gets_them(world: World) -> None:
    member = await subscribed(world, "require_action")
    await world.walk(local(ENDS) + timedelta(minutes=1))
    assert (await world.subscription(member))["status"] == "past_due"
    (notice,) = world.notices("renewal_action_required")
    orders = (await world.till.client.get("/v1/orders?status=pending", headers=world.api.member(member))).json()
    (order,) = orders["items"]
    assert order["checkout"]["url"] in notice.body_zh
    assert order["checkout"]["url"] in notice.body_en
    again = (await world.act(member, "pay")).json()
    assert again == order["checkout"]
    assert (await world.press(again)).status_code == 200
    assert (await world.subscription(member))["status"] == "active"
    assert [wall(end) for _, end in await world.spans(member)] == [ENDS, "2027-03-31 10:00"]
    # The card that paid by hand is the one that is charged from now on.
    await world.walk(local("2027-04-01 10:00"))
    assert [row[1] for row in await world.renewals(member)] == ["paid", "paid"]
    assert await world.charges(member) == ["requires_payment_method", "succeeded"]


async def test_a_page_that_expired_is_followed_by_another(world: World) -> None:
    member = await subscribed(world, *["require_action"] * 10)
    await world.walk(local(ENDS) + timedelta(minutes=1))
    first = (await world.act(member, "pay")).json()
    # The next try ends the page first: nobody pays by hand while the card is charged.
    await world.walk(local("2027-03-01 10:01"))
    second = (await world.act(member, "pay")).json()
    assert second["url"] != first["url"]
    assert (await world.press(first)).status_code == 409
    await world.walk(local("2027-03-02 12:00"))
    third = (await world.act(member, "pay")).json()
    assert third["url"] != second["url"]
    assert (await world.press(third)).status_code == 200
    assert [wall(end) for _, end in await world.spans(member)] == [ENDS, "2027-03-31 10:00"]
    nothing = await world.act(member, "pay")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_to_pay")
    await world.at_rest()


async def test_a_page_paid_unheard_is_found_before_the_card_is_tried_again(world: World) -> None:
    member = await subscribed(world, "fail")
    await world.walk(local(ENDS) + timedelta(minutes=1))
    page = (await world.act(member, "pay")).json()
    await world.till.lose_webhooks()
    await world.press(page)
    world.api.clock.set(local("2027-03-01 10:01"))
    await world.settle()
    assert await world.charges(member) == ["requires_payment_method"]
    assert [row[1] for row in await world.renewals(member)] == ["paid"]
    assert await world.api.sql("SELECT count(*) FROM payment") == [(2,)]


async def test_another_card_is_tried_at_once(world: World) -> None:
    member = await subscribed(world, "fail")
    await world.walk(local(ENDS) + timedelta(minutes=1))
    page = await world.act(member, "card")
    assert page.status_code == 201
    assert (await world.act(member, "card")).json() == page.json()
    assert (await world.press(page.json())).status_code == 200
    assert (await world.subscription(member))["status"] == "active"
    assert await world.charges(member) == ["requires_payment_method", "succeeded"]
    assert [notice.kind for notice in world.notices()][-2:] == ["card_updated", "renewal_paid"]
    (old,), (new,) = await world.api.sql("SELECT payment_method_ref FROM renewal_attempt ORDER BY number")
    assert old != new
    await world.at_rest()


async def test_a_card_that_was_kept_unheard_is_found(world: World) -> None:
    member = await subscribed(world)
    page = (await world.act(member, "card")).json()
    await world.till.lose_webhooks()
    await world.press(page)
    assert world.notices("card_updated") == []
    world.api.clock.advance(timedelta(minutes=2))
    await world.settle()
    assert len(world.notices("card_updated")) == 1
    await world.pass_by(days=2)
    assert len(world.notices("card_updated")) == 1


async def test_time_earned_in_the_grace_takes_the_place_of_the_renewal(world: World) -> None:
    member = await subscribed(world, *["fail"] * 10)
    await world.walk(local("2027-03-02 10:00"))
    reward = RewardGranted(reward_id=new_id(), member_id=member, days=7, reason="invited", granted_at=clock.now())
    await world.people.handle(reward)
    await world.settle()
    shown = await world.subscription(member)
    assert (shown["status"], wall(shown["renews_at"]), shown["order_id"]) == ("active", "2027-03-09 10:00", None)
    assert [row[1] for row in await world.renewals(member)] == ["canceled"]
    await world.bank(member)
    await world.walk(local("2027-03-20 10:00"))
    assert [row[1] for row in await world.renewals(member)] == ["canceled", "paid"]
    await world.at_rest()


async def test_a_purchase_in_the_grace_takes_the_place_of_the_renewal(world: World) -> None:
    member = await subscribed(world, *["fail"] * 10)
    await world.walk(local("2027-03-02 10:00"))
    page = (await world.act(member, "pay")).json()
    await world.till.buy(member)
    await world.settle()
    assert (await world.subscription(member))["status"] == "active"
    assert [wall(end) for _, end in await world.spans(member)] == [ENDS, "2027-04-02 10:00"]
    # The page for what is not due any more is closed.
    await world.pass_by(minutes=20)
    assert (await world.press(page)).status_code == 409
    await world.at_rest()
