"""Rewards: once for each step, within the month's cap, and never for oneself."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from contracts.referrals import CouponIssued, RewardGranted
from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.world import code_of, coupons, invited, lesson, member, paid, registered


async def granted(api: Api) -> list[tuple[str, str, str | None]]:
    rows = await api.sql("SELECT cause, status, reason FROM reward ORDER BY cause")
    return [tuple(row) for row in rows]


async def test_the_first_lesson_earns_a_coupon_and_the_first_payment_seven_days(api: Api) -> None:
    inviter = await member(api)
    newcomer = await invited(api, inviter)
    await api.emitted()

    await api.handle(lesson(newcomer), lesson(newcomer), paid(newcomer), paid(newcomer))

    (coupon,) = await coupons(api, inviter)
    assert (coupon["kind"], coupon["value"], coupon["status"]) == ("amount", 500, "issued")
    issued, days = await api.emitted()
    assert isinstance(issued, CouponIssued)
    assert (issued.member_id, str(issued.coupon_id)) == (inviter, coupon["id"])
    assert isinstance(days, RewardGranted)
    assert (days.member_id, days.days, days.plan_code, days.reason) == (inviter, 7, None, "referral")
    assert await granted(api) == [("first_lesson", "granted", None), ("first_payment", "granted", None)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_the_order_of_events_does_not_matter(api: Api, order: tuple[int, ...]) -> None:
    inviter = await member(api)
    event = registered(invite_code=await code_of(api, inviter))
    api.clock.advance(timedelta(minutes=1))
    events: list[Any] = [event, lesson(event.member_id), paid(event.member_id)]

    for place in order:
        await api.handle(events[place])

    assert await granted(api) == [("first_lesson", "granted", None), ("first_payment", "granted", None)]
    assert len(await coupons(api, inviter)) == 1
    assert len(await coupons(api, event.member_id)) == 1


async def test_what_is_free_or_a_gift_or_a_course_is_no_first_payment(api: Api) -> None:
    newcomer = await invited(api, await member(api))

    await api.handle(paid(newcomer, total=0, discount=1990), paid(newcomer, kind="gift"), paid(newcomer, kind="course"))

    assert await granted(api) == []


@pytest.mark.parametrize(
    ("reason", "inviter_has", "newcomer_has"),
    [
        ("same_device", {"device": "tablet"}, {"device": "tablet"}),
        ("same_payment", {"fingerprint": "card-1"}, {"fingerprint": "card-1"}),
    ],
)
async def test_an_inviter_earns_nothing_by_themselves(
    api: Api, reason: str, inviter_has: dict[str, str], newcomer_has: dict[str, str]
) -> None:
    inviter = await member(api)
    newcomer = await invited(api, inviter)
    for one, has in ((inviter, inviter_has), (newcomer, newcomer_has)):
        if "device" in has:
            body = {"channel": "h5", "visitor_id": has["device"]}
            assert (await api.client.post("/v1/touches", headers=api.member(one), json=body)).status_code == 201
    await api.handle(paid(inviter, fingerprint=inviter_has.get("fingerprint")))
    await api.emitted()

    await api.handle(paid(newcomer, fingerprint=newcomer_has.get("fingerprint")))

    assert await granted(api) == [("first_payment", "refused", reason)]
    assert await api.emitted() == []
    [mine] = (await api.client.get("/v1/me/invite/rewards", headers=api.member(inviter))).json()["items"]
    assert (mine["cause"], mine["status"], mine["reason"]) == ("first_payment", "refused", "not_eligible")


async def test_at_most_twenty_rewards_a_month_also_when_they_come_at_once(api: Api) -> None:
    inviter = await member(api)
    code = await code_of(api, inviter)
    newcomers = []
    for _ in range(13):
        newcomers.append(await member(api, invite_code=code))
        # Slowly enough to be no burst.
        api.clock.advance(timedelta(minutes=7))
    await api.emitted()

    await asyncio.gather(*(api.handle(lesson(one)) for one in newcomers))
    await asyncio.gather(*(api.handle(paid(one)) for one in newcomers))

    told = await api.emitted()
    assert len([event for event in told if isinstance(event, CouponIssued)]) == 13
    assert len([event for event in told if isinstance(event, RewardGranted)]) == 7
    rows = await api.sql("SELECT status, reason, count(*) AS n FROM reward GROUP BY 1, 2 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("granted", None, 20), ("refused", "monthly_cap", 6)]
    mine = await api.client.get("/v1/me/invite/rewards", headers=api.member(inviter), params={"limit": 100})
    items = mine.json()["items"]
    assert (mine.json()["used_this_month"], mine.json()["monthly_cap"]) == (20, 20)
    assert Counter((item["status"], item["reason"]) for item in items) == {
        ("granted", None): 20,
        ("refused", "monthly_cap"): 6,
    }
    assert [item["at"] for item in items] == sorted((item["at"] for item in items), reverse=True)
    assert (await api.client.get("/v1/me/invite/rewards")).status_code == 401


async def test_the_month_is_one_of_the_business_zone(api: Api) -> None:
    inviter = await member(api)
    newcomers = [await invited(api, inviter) for _ in range(2)]
    before, after = datetime(2030, 1, 31, 15, 59, tzinfo=UTC), datetime(2030, 1, 31, 16, 0, tzinfo=UTC)

    await api.handle(lesson(newcomers[0], completed_at=before), lesson(newcomers[1], completed_at=after))

    rows = await api.sql("SELECT month, used FROM reward_budget ORDER BY month")
    assert [(str(row.month), row.used) for row in rows] == [("2030-01-01", 1), ("2030-02-01", 1)]


async def test_the_same_step_handled_twice_at_once_pays_once(api: Api) -> None:
    inviter = await member(api)
    newcomer = await invited(api, inviter)

    await asyncio.gather(*(api.handle(lesson(newcomer)) for _ in range(6)))

    assert len(await coupons(api, inviter)) == 1
    rows = await api.sql("SELECT used FROM reward_budget")
    assert [row.used for row in rows] == [1]


async def test_the_rule_in_force_at_the_touch_pays(api: Api) -> None:
    inviter = await member(api)
    code = await code_of(api, inviter)
    await api.client.post("/v1/touches", json={"invite_code": code, "visitor_id": "early"})
    api.clock.advance(timedelta(hours=1))
    terms = {"newcomer_amount": 800, "inviter_amount": 0, "inviter_days": 14, "monthly_cap": 20}
    answer = await api.client.post("/v1/admin/referral-rules", headers=api.admin(), json=terms)
    assert (answer.status_code, answer.json()["version"]) == (201, 2)

    early = await member(api, visitor_id="early")
    later = await member(api, invite_code=code)
    await api.handle(lesson(early), lesson(later))
    await api.emitted()
    await api.handle(paid(early), paid(later))

    assert [coupon["value"] for coupon in await coupons(api, early)] == [500]
    assert [coupon["value"] for coupon in await coupons(api, later)] == [800]
    assert [event.days for event in await api.emitted() if isinstance(event, RewardGranted)] == [7, 14]
    assert len(await coupons(api, inviter)) == 1


async def test_a_rule_is_never_edited_only_followed_by_the_next(api: Api) -> None:
    path, admin = "/v1/admin/referral-rules", api.admin()
    answers = await asyncio.gather(*(api.client.post(path, headers=admin, json={"inviter_days": n}) for n in (1, 2, 3)))

    assert sorted(answer.json()["version"] for answer in answers) == [2, 3, 4]
    listed = (await api.client.get(path, headers=admin)).json()["items"]
    assert [item["version"] for item in listed] == [4, 3, 2, 1]
    assert len({item["newcomer_campaign_id"] for item in listed}) == 1
    first = listed[3]
    assert (first["newcomer_amount"], first["inviter_amount"], first["inviter_days"]) == (500, 500, 7)
    assert (first["monthly_cap"], first["window_days"]) == (20, 30)
    assert (await api.client.post(path, headers=api.admin("coupons:read"), json={})).status_code == 403
    assert (await api.client.post(path, headers=admin, json={"inviter_days": -1})).status_code == 422
    assert (await api.client.post(path, headers=admin, json={"surprise": 1})).status_code == 422


async def test_a_member_nobody_invited_earns_nobody_anything(api: Api) -> None:
    alone = new_id()

    await api.handle(registered(alone, channel="douyin"), lesson(alone), paid(alone))

    assert await granted(api) == []
    assert await api.emitted() == []


async def test_a_reward_that_is_out_of_stock_takes_nothing_from_the_months_cap(api: Api) -> None:
    newcomer = await invited(api, await member(api))
    (rule,) = (await api.client.get("/v1/admin/referral-rules", headers=api.admin())).json()["items"]
    await api.sql("UPDATE campaign SET total = 0 WHERE id = :id", id=rule["inviter_campaign_id"])

    await api.handle(lesson(newcomer), paid(newcomer))

    assert await granted(api) == [("first_lesson", "refused", "coupon_exhausted"), ("first_payment", "granted", None)]
    assert [row.used for row in await api.sql("SELECT used FROM reward_budget")] == [1]
