"""The coupon of the month: a benefit of the black card, taken once a calendar month of the business zone."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import httpx

from contracts.members import MemberErased, MemberMerged, MembershipChanged, SegmentPicture
from contracts.referrals import CouponIssued
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.world import coupons, member

PATH = "/v1/me/coupons/monthly"


async def holds(
    api: Api, member_id: UUID, *, days: int, version: int = 1, grace: int = 0, benefit: bool = True
) -> None:
    now = clock.now()
    ends_at = now + timedelta(days=days)
    segment = SegmentPicture(
        id=new_id(),
        source="order",
        source_id=new_id(),
        plan_code="black-card-1m",
        months=0,
        days=days,
        starts_at=now,
        ends_at=ends_at,
        added_at=now,
        benefits=("monthly_coupon",) if benefit else ("member_lessons",),
    )
    until = ends_at + timedelta(days=grace)
    changed = MembershipChanged(member_id=member_id, version=version, segments=(segment,), access_until=until)
    await api.handle(changed)


async def take(api: Api, member_id: UUID, **headers: str) -> httpx.Response:
    return await api.client.post(PATH, headers=api.member(member_id) | headers)


async def test_a_black_card_brings_one_coupon_a_month(api: Api) -> None:
    api.clock.set(datetime.fromisoformat("2027-01-31T23:50:00+08:00"))
    who = await member(api)
    refused = await take(api, who)
    assert (refused.status_code, refused.json()["code"]) == (403, "monthly_coupon_not_included")
    assert refused.json()["action"] == "buy_membership"
    january = {"Idempotency-Key": "january"}
    refused = await take(api, who, **january)
    await holds(api, who, days=40, grace=7)
    again = await take(api, who, **january)
    assert (again.status_code, again.content) == (403, refused.content)
    assert (refused.status_code, again.headers["Idempotency-Replayed"]) == (403, "true")
    await api.emitted()
    shown = {"month": "2027-01", "amount": 300, "min_amount": 1000, "included": True, "claimed": False}
    assert (await api.client.get(PATH, headers=api.member(who))).json() == shown

    answers = await asyncio.gather(*(take(api, who) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert {answer.json().get("code") for answer in answers} == {None, "coupon_already_claimed"}
    (coupon,) = await coupons(api, who)
    assert (coupon["title"], coupon["value"], coupon["min_amount"]) == ("黑卡会员 1 月券", 300, 1000)
    assert coupon["ends_at"].startswith("2027-03-02T15:50:00.")
    (told,) = await api.emitted()
    assert isinstance(told, CouponIssued)
    assert str(told.coupon_id) == coupon["id"]
    assert (await api.client.get(PATH, headers=api.member(who))).json() == shown | {"claimed": True}
    listed = (await api.client.get("/v1/coupon-campaigns")).json()["items"]
    assert "黑卡会员 1 月券" not in [campaign["title"] for campaign in listed]

    api.clock.advance(timedelta(minutes=10))
    key = {"Idempotency-Key": "february"}
    first, again = await take(api, who, **key), await take(api, who, **key)
    assert (first.status_code, first.json()["title"]) == (201, "黑卡会员 2 月券")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    # Within grace, and then no more.
    api.clock.set(datetime.fromisoformat("2027-03-18T23:00:00+08:00"))
    assert (await take(api, who)).status_code == 201
    api.clock.set(datetime.fromisoformat("2027-04-01T00:00:00+08:00"))
    assert (await take(api, who)).json()["code"] == "monthly_coupon_not_included"
    await holds(api, who, days=40, version=1)
    assert (await take(api, who)).status_code == 403
    await holds(api, who, days=10, version=2, grace=7)
    assert (await take(api, who)).status_code == 201
    await api.handle(MemberErased(member_id=who))
    api.clock.advance(timedelta(days=30))
    await holds(api, who, days=40, version=3)
    assert (await take(api, who)).status_code == 403
    # Also of one of whose card nothing had been heard yet, and who was somebody else before.
    unheard, former = await member(api), new_id()
    await api.handle(MemberMerged(kept_id=unheard, merged_id=former), MemberErased(member_id=unheard))
    for late in (unheard, former):
        await holds(api, late, days=40)
        assert (await take(api, late)).status_code == 403
    assert await api.sql("SELECT count(*) FROM coupon_benefit") == [(0,)]


async def test_the_coupon_of_the_month_is_for_members_whose_plan_has_it(api: Api) -> None:
    who = await member(api)
    await holds(api, who, days=30, benefit=False)
    assert (await take(api, who)).json()["code"] == "monthly_coupon_not_included"
    for method in ("GET", "POST"):
        assert (await api.client.request(method, PATH)).status_code == 401
        assert (await api.client.request(method, PATH, headers=api.admin())).status_code == 403
    await holds(api, who, days=30, version=2)
    api.rt.settings.monthly_coupon_amount = 0
    assert (await api.client.get(PATH, headers=api.member(who))).json()["included"] is False
    assert (await take(api, who)).status_code == 403
