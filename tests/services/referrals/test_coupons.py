"""Coupons in a member's list: their state follows billing, in whatever order it is heard, and the clock."""

from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from contracts.billing import CouponRedeemed, CouponReleased, CouponReserved
from contracts.referrals import CouponRevoked
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.world import campaign, claim, coupons, member


async def held(api: Api, **terms: Any) -> tuple[UUID, UUID]:
    """A coupon and its holder."""
    made = await campaign(api, **terms)
    holder = await member(api)
    answer = await claim(api, made["id"], holder)
    assert answer.status_code == 201
    return UUID(answer.json()["id"]), holder


def story(coupon_id: UUID, holder: UUID) -> list[Any]:
    """Reserved by an order that was canceled, then by one that was paid."""
    now, first, second = clock.now(), new_id(), new_id()
    kinds = [(CouponReserved, first), (CouponReleased, first), (CouponReserved, second), (CouponRedeemed, second)]
    return [
        kind(coupon_id=coupon_id, order_id=order, member_id=holder, at=now + timedelta(seconds=place))
        for place, (kind, order) in enumerate(kinds)
    ]


async def test_a_coupon_is_reserved_freed_and_spent(api: Api) -> None:
    coupon_id, holder = await held(api)
    states = []

    for event in story(coupon_id, holder):
        await api.handle(event, event)
        states.append((await coupons(api, holder))[0]["status"])

    assert states == ["reserved", "issued", "reserved", "redeemed"]


@pytest.mark.parametrize("order", [order for order in permutations(range(4)) if order != (0, 1, 2, 3)][::4])
async def test_states_heard_in_another_order_end_the_same(api: Api, order: tuple[int, ...]) -> None:
    coupon_id, holder = await held(api)
    events = story(coupon_id, holder)

    await api.handle(*(events[place] for place in order))

    assert [coupon["status"] for coupon in await coupons(api, holder)] == ["redeemed"]


async def test_events_of_one_instant_are_told_apart_by_their_ids(api: Api) -> None:
    coupon_id, holder = await held(api)
    now, order_id = clock.now(), new_id()
    reserved = CouponReserved(coupon_id=coupon_id, order_id=order_id, member_id=holder, at=now)
    redeemed = CouponRedeemed(coupon_id=coupon_id, order_id=order_id, member_id=holder, at=now)

    await api.handle(redeemed, reserved)

    assert [coupon["status"] for coupon in await coupons(api, holder)] == ["redeemed"]


async def test_a_coupon_expires_by_the_clock_alone(api: Api) -> None:
    _, holder = await held(api, valid_days=3)
    now = clock.now()
    api.clock.set(now + timedelta(days=2, hours=23))
    assert [coupon["status"] for coupon in await coupons(api, holder)] == ["issued"]

    api.clock.set(now + timedelta(days=3, minutes=1))

    assert [coupon["status"] for coupon in await coupons(api, holder)] == ["expired"]
    assert await coupons(api, holder, status="issued") == []
    assert len(await coupons(api, holder, status="expired")) == 1


async def test_without_valid_days_a_coupon_ends_with_its_campaign(api: Api) -> None:
    end = clock.now() + timedelta(days=2)
    _, holder = await held(api, valid_days=None, ends_at=end.isoformat())

    (coupon,) = await coupons(api, holder)

    assert coupon["ends_at"] == end.isoformat().replace("+00:00", "Z")


async def test_an_admin_takes_an_unspent_coupon_back_and_billing_hears_of_it(api: Api) -> None:
    coupon_id, holder = await held(api)
    campaign_id = (await api.sql("SELECT campaign_id FROM coupon"))[0].campaign_id
    path = f"/v1/admin/coupon-campaigns/{campaign_id}/coupons/{coupon_id}"
    await api.emitted()

    first = await api.client.delete(path, headers=api.admin())
    again = await api.client.delete(path, headers=api.admin())

    assert (first.status_code, again.status_code, again.json()["code"]) == (204, 409, "coupon_spent")
    assert [coupon["status"] for coupon in await coupons(api, holder)] == ["revoked"]
    (told,) = await api.emitted()
    assert isinstance(told, CouponRevoked)
    assert (told.coupon_id, told.member_id) == (coupon_id, holder)
    unknown = await api.client.delete(f"{path[:-36]}{new_id()}", headers=api.admin())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "coupon_unknown")


async def test_members_see_their_own_coupons_only_newest_first_in_pages(api: Api) -> None:
    holder = await member(api)
    titles = ["一", "二", "三"]
    for title in titles:
        await claim(api, (await campaign(api, title=title))["id"], holder)
        await claim(api, (await campaign(api, title=f"别人的{title}"))["id"], new_id())

    first = (await api.client.get("/v1/me/coupons", headers=api.member(holder), params={"limit": 2})).json()
    rest = await api.client.get(
        "/v1/me/coupons", headers=api.member(holder), params={"limit": 2, "cursor": first["next_cursor"]}
    )

    assert [coupon["title"] for coupon in first["items"]] == ["三", "二"]
    assert [coupon["title"] for coupon in rest.json()["items"]] == ["一"]
    assert rest.json()["next_cursor"] is None
    assert rest.headers["Cache-Control"] == "private, no-store"
    assert (await api.client.get("/v1/me/coupons")).status_code == 401
    bad = await api.client.get("/v1/me/coupons", headers=api.member(holder), params={"status": "lost"})
    assert bad.status_code == 422
