"""Renewals through the months: announced, charged once at the very end of the time, at the price that was said."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from contracts.billing import OrderPaid, SubscriptionChanged
from kit.ids import new_id
from services.billing.subscribing import ON_TIME
from tests.services.billing.renewing import MONTH, World, local, wall

YEAR = {
    "2027-01-29 10:00": "02-28 03-29 04-29 05-29 06-29 07-29 08-29 09-29 10-29 11-29 12-29 01-29 02-29",
    "2027-01-30 23:30": "02-28 03-30 04-30 05-30 06-30 07-30 08-30 09-30 10-30 11-30 12-30 01-30 02-29",
    "2027-01-31 00:10": "02-28 03-31 04-30 05-31 06-30 07-31 08-31 09-30 10-31 11-30 12-31 01-31 02-29",
}


@pytest.mark.timeout(400)
async def test_a_year_of_renewals_ends_on_the_day_it_began_without_a_gap(world: World) -> None:
    members = {bought_at: new_id() for bought_at in YEAR}
    for bought_at, member in members.items():
        await world.walk(local(bought_at))
        await world.subscribe(member)
    await world.walk(local("2028-02-01 12:00"))
    for bought_at, member in members.items():
        spans = await world.spans(member)
        assert [wall(end)[5:10] for _, end in spans] == YEAR[bought_at].split()
        assert all(before[1] == after[0] for before, after in pairwise(spans))
        assert {wall(end)[11:] for _, end in spans} == {bought_at[11:]}
        renewed = await world.renewals(member)
        assert [row[1:] for row in renewed] == [("paid", 1990)] * 12
        assert [row[0] for row in renewed] == [datetime.fromisoformat(end) for _, end in spans[:-1]]
        assert await world.charges(member) == ["succeeded"] * 12
        # Each was announced five days before.
        notices = [event for event in world.notices("renewal_upcoming") if event.member_id == member]
        assert len({event.reference for event in notices}) == len(notices) == 12
        ahead = [row[0] - notice.wanted_at for row, notice in zip(renewed, notices, strict=True)]
        assert all(timedelta(days=5) - ON_TIME < span <= timedelta(days=5) for span in ahead)
    paid = [event for event in world.told if isinstance(event, OrderPaid)]
    assert len(paid) == 3 * 13
    assert all(event.paid_at - event.renews_from < ON_TIME for event in paid if event.renews_from)
    assert len(world.notices("renewal_paid")) == 3 * 12
    await world.till.balanced()
    await world.at_rest()


async def test_an_order_that_renews_is_told_and_shown(world: World) -> None:
    member = new_id()
    assert await world.subscription(member) == {
        "status": "none",
        "plan_code": None,
        "renews_at": None,
        "cancel_at": None,
        "amount": None,
        "currency": None,
        "card": None,
        "order_id": None,
        "access_until": None,
    }
    order = await world.subscribe(member)
    assert order["auto_renew"] is True
    ((_, end),) = await world.spans(member)
    shown = await world.subscription(member)
    assert shown == {
        "status": "active",
        "plan_code": MONTH,
        "renews_at": end,
        "cancel_at": None,
        "amount": 1990,
        "currency": "CNY",
        "card": {"brand": "visa", "last4": "4242"},
        "order_id": None,
        "access_until": None,
    }
    (changed,) = [event for event in world.told if isinstance(event, SubscriptionChanged)]
    assert (changed.member_id, changed.status, changed.renewing) == (member, "active", True)
    assert changed.plan_code == MONTH
    assert (await world.membership(member))["auto_renew"] is True
    await world.at_rest()


async def test_an_order_that_does_not_renew_makes_no_subscription(world: World) -> None:
    member = new_id()
    await world.till.buy(member)
    await world.settle()
    await world.pass_by(days=40)
    assert (await world.subscription(member))["status"] == "none"
    assert (await world.charges(member), world.notices()) == ([], [])


@pytest.mark.parametrize("method", ["alipay", "wechat_pay"])
async def test_a_wallet_does_not_renew(world: World, method: str) -> None:
    refused = await world.till.order(new_id(), auto_renew=True, payment_method=method)
    assert (refused.status_code, refused.json()["code"]) == (422, "auto_renew_needs_card")
    assert await world.api.sql('SELECT count(*) FROM "order"') == [(0,)]


async def test_what_costs_nothing_and_what_is_given_away_do_not_renew(world: World) -> None:
    member = new_id()
    free = world.till.coupon(member, value=5000)
    refused = await world.till.order(member, auto_renew=True, coupon_token=free)
    assert (refused.status_code, refused.json()["code"]) == (422, "auto_renew_needs_payment")
    gift = await world.till.order(member, auto_renew=True, gift=True)
    assert (gift.status_code, gift.json()["code"]) == (422, "gift_not_renewed")
    assert await world.api.sql('SELECT count(*) FROM "order"') == [(0,)]


async def test_a_coupon_is_for_the_first_order_only(world: World) -> None:
    member = new_id()
    order = await world.till.buy(member, auto_renew=True, coupon_token=world.till.coupon(member))
    assert order["total"] == 1490
    await world.settle()
    assert (await world.subscription(member))["amount"] == 1990
    await world.pass_by(days=32)
    assert [row[1:] for row in await world.renewals(member)] == [("paid", 1990)]


async def test_the_notice_comes_five_days_before_and_says_all_there_is_to_say(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    await world.walk(local("2027-04-05 09:29"))
    assert world.notices() == []
    await world.walk(local("2027-04-05 09:31"))
    (notice,) = world.notices()
    assert (notice.member_id, notice.kind) == (member, "renewal_upcoming")
    assert notice.body_zh == (
        "你的「黑卡月卡」将于 2027年4月10日 09:30 自动续费，届时从尾号 4242 的银行卡扣款 ¥19.90。"
        "如不需要，请在此之前在「我的会员」中取消自动续费。"
    )
    assert notice.body_en == (
        "Your 黑卡月卡 renews on 10 April 2027, 09:30: ¥19.90 will be charged to your card ending in 4242. "
        "If you do not want this, cancel auto-renewal in your membership before then."
    )
    await world.at_rest()
    await world.walk(local("2027-04-10 09:29"))
    assert (len(world.notices()), await world.renewals(member)) == (1, [])


async def test_a_price_that_rises_after_the_notice_is_not_charged_yet(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    await world.walk(local("2027-04-06 09:30"))
    await _change_plan(world, amount=2590)
    assert (await world.subscription(member))["amount"] == 1990
    await world.walk(local("2027-04-11 09:30"))
    assert (await world.subscription(member))["amount"] == 2590
    await world.walk(local("2027-05-11 09:30"))
    assert [row[2] for row in await world.renewals(member)] == [1990, 2590]
    assert "¥25.90" in world.notices("renewal_upcoming")[1].body_zh


async def test_a_price_that_falls_after_the_notice_is_charged_at_once(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    await world.walk(local("2027-04-06 09:30"))
    await _change_plan(world, amount=990)
    await world.walk(local("2027-04-11 09:30"))
    assert [row[1:] for row in await world.renewals(member)] == [("paid", 990)]


async def test_a_plan_taken_off_sale_is_not_renewed_and_its_members_are_told(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    await _change_plan(world, active=False)
    await world.walk(local("2027-04-06 09:30"))
    shown = await world.subscription(member)
    assert (shown["status"], wall(shown["cancel_at"])) == ("canceling", "2027-04-10 09:30")
    refused = await world.act(member, "resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "plan_not_on_sale")
    await world.walk(local("2027-04-12 09:30"))
    assert (await world.subscription(member))["status"] == "none"
    assert (await world.renewals(member), await world.charges(member)) == ([], [])
    assert [event.kind for event in world.notices()] == ["renewal_stopped"]
    assert (await world.membership(member))["status"] == "expired"


async def test_a_plan_taken_off_sale_after_the_notice_is_renewed_once_more(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    await world.walk(local("2027-04-06 09:30"))
    await _change_plan(world, active=False)
    await world.walk(local("2027-06-12 09:30"))
    assert [row[1:] for row in await world.renewals(member)] == [("paid", 1990)]
    assert [event.kind for event in world.notices()] == ["renewal_upcoming", "renewal_paid", "renewal_stopped"]


async def test_time_bought_meanwhile_is_not_paid_for_twice(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    await world.walk(local("2027-04-06 09:30"))
    await world.till.buy(member, plan_code="black-card-3m")
    await world.settle()
    assert wall((await world.subscription(member))["renews_at"]) == "2027-07-10 09:30"
    await world.walk(local("2027-07-01 09:30"))
    assert await world.charges(member) == []
    await world.walk(local("2027-07-11 09:30"))
    assert [wall(row[0].isoformat()) for row in await world.renewals(member)] == ["2027-07-10 09:30"]
    # Announced anew for the new day.
    assert len(world.notices("renewal_upcoming")) == 2


async def test_time_bought_in_the_last_second_is_not_paid_for_twice(world: World) -> None:
    member = new_id()
    await world.subscribe(member)
    await world.pass_by(days=20)
    renews_at = (await world.subscription(member))["renews_at"]
    await world.walk(local(wall(renews_at)) - timedelta(minutes=1))
    placed = (await world.till.order(member)).json()
    await world.till.pay(placed)
    # Members has not heard of it when the old end comes.
    world.api.clock.advance(timedelta(minutes=3))
    await world.api.run_due()
    assert (await world.charges(member), await world.renewals(member)) == ([], [])
    await world.settle()
    assert (await world.subscription(member))["renews_at"] == (await world.spans(member))[-1][1]
    await world.at_rest()


async def test_a_refund_that_leaves_nothing_ends_it(world: World) -> None:
    member = new_id()
    order = await world.subscribe(member)
    assert (await world.till.refund(member, order["id"])).status_code == 201
    await world.settle()
    assert (await world.subscription(member))["status"] == "none"
    assert [event.kind for event in world.notices()] == ["renewal_stopped"]
    await world.pass_by(days=40)
    assert await world.charges(member) == []


async def test_a_refund_of_what_it_came_with_ends_it_though_other_time_is_left(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.till.buy(member, plan_code="black-card-3m")
    await world.settle()
    order = await world.subscribe(member)
    assert wall((await world.subscription(member))["renews_at"]) == "2027-07-10 09:30"
    assert (await world.till.refund(member, order["id"])).status_code == 201
    await world.settle()
    assert (await world.subscription(member))["status"] == "none"
    (notice,) = world.notices()
    assert (notice.kind, "这次购买已退款" in notice.body_zh) == ("renewal_stopped", True)
    assert wall((await world.membership(member))["ends_at"]) == "2027-06-10 09:30"
    await world.walk(local("2027-07-20 09:30"))
    assert (await world.charges(member), await world.renewals(member)) == ([], [])


async def test_what_the_unused_days_are_worth_ends_it_as_all_the_money_does(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    order = await world.subscribe(member)
    await world.till.buy(member, plan_code="black-card-3m")
    await world.walk(local("2027-03-20 09:29"))
    answer = await world.till.admin_refund(order["id"])
    assert (answer.status_code, answer.json()["amount"]) == (201, 1990 * 21 // 31)
    await world.settle()
    assert wall((await world.membership(member))["ends_at"]) == "2027-06-20 09:29"
    assert (await world.subscription(member))["status"] == "none"
    assert [notice.kind for notice in world.notices()] == ["renewal_stopped"]
    await world.walk(local("2027-06-30 09:30"))
    assert (await world.charges(member), await world.renewals(member)) == ([], [])


async def test_a_full_refund_of_what_is_over_ends_it_at_once(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    order = await world.subscribe(member)
    await world.till.buy(member, plan_code="black-card-3m")
    await world.walk(local("2027-04-20 09:30"))
    assert (await world.till.admin_refund(order["id"], amount=1990)).status_code == 201
    await world.settle()
    assert wall((await world.membership(member))["ends_at"]) == "2027-07-10 09:30"
    # Not when they next buy something.
    assert (await world.subscription(member))["status"] == "none"
    assert [notice.kind for notice in world.notices()] == ["renewal_stopped"]


async def test_a_refund_of_what_was_bought_on_top_brings_the_renewal_forward(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    more = await world.till.buy(member)
    await world.settle()
    assert wall((await world.subscription(member))["renews_at"]) == "2027-05-10 09:30"
    assert (await world.till.refund(member, more["id"])).status_code == 201
    await world.settle()
    assert wall((await world.subscription(member))["renews_at"]) == "2027-04-10 09:30"
    await world.walk(local("2027-04-11 09:30"))
    assert [row[1:] for row in await world.renewals(member)] == [("paid", 1990)]


async def test_a_refunded_renewal_is_the_last_one(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    await world.walk(local("2027-04-12 09:30"))
    ((renewal,),) = await world.api.sql('SELECT id FROM "order" WHERE renews_from IS NOT NULL')
    assert (await world.till.refund(member, str(renewal))).status_code == 201
    await world.settle()
    assert (await world.subscription(member))["status"] == "none"
    assert (await world.membership(member))["status"] == "expired"
    await world.pass_by(days=70)
    assert await world.charges(member) == ["succeeded"]


async def test_nobody_is_charged_within_five_days_of_a_late_notice(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    # Billing was down while the notice was due.
    world.api.clock.set(local("2027-04-08 09:30"))
    await world.settle()
    (notice,) = world.notices("renewal_upcoming")
    assert "2027年4月13日 09:30" in notice.body_zh
    await world.walk(local("2027-04-13 09:29"))
    assert await world.charges(member) == []
    assert (await world.membership(member))["status"] == "grace"
    await world.walk(local("2027-04-13 09:31"))
    assert await world.charges(member) == ["succeeded"]
    # Nothing is lost and nothing is won by it: the time goes on at the old end.
    assert [wall(end) for _, end in await world.spans(member)] == ["2027-04-10 09:30", "2027-05-10 09:30"]


async def test_time_that_is_long_over_is_not_charged_any_more(world: World) -> None:
    member = new_id()
    await world.subscribe(member)
    world.api.clock.advance(timedelta(days=60))
    await world.settle()
    assert (await world.subscription(member))["status"] == "none"
    assert (await world.charges(member), await world.renewals(member)) == ([], [])
    assert [event.kind for event in world.notices()] == ["renewal_lapsed"]
    await world.at_rest()


async def test_a_year_s_card_renews_by_the_year(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2028-02-29 08:00"))
    await world.subscribe(member, "black-card-12m")
    await world.walk(local("2029-03-01 08:00"))
    assert [wall(end) for _, end in await world.spans(member)] == ["2029-02-28 08:00", "2030-02-28 08:00"]
    assert [row[1:] for row in await world.renewals(member)] == [("paid", 18900)]


async def _change_plan(world: World, **change: object) -> None:
    headers = world.api.admin()
    held = await world.till.client.get(f"/v1/admin/plans/{MONTH}", headers=headers)
    headers["If-Match"] = held.headers["ETag"]
    answer = await world.till.client.patch(f"/v1/admin/plans/{MONTH}", json=change, headers=headers)
    assert answer.status_code == 200, answer.text
