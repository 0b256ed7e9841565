"""Membership time: orders, refunds, rewards and grants through the handlers, and what the caller sees."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from contracts.billing import OrderPaid, OrderRefunded
from contracts.members import MembershipChanged
from contracts.referrals import RewardGranted, RewardRevoked
from kit import clock
from kit.ids import new_id
from services.members.benefits import BLACK_CARD_BENEFITS
from tests.harness import Api
from tests.services.members.steps import a_member

MONTHS = {1: "black-card-1m", 3: "black-card-3m", 12: "black-card-12m"}
START = datetime(2031, 1, 31, 2, 0, tzinfo=UTC)
"""10:00 on the 31st of January in Shanghai."""


def paid(member_id: UUID, months: int = 1, at: datetime | None = None, **more: Any) -> OrderPaid:
    """A paid order of a black card."""
    fields: dict[str, Any] = {
        "order_id": new_id(),
        "number": "H1",
        "member_id": member_id,
        "kind": "membership",
        "plan_code": MONTHS[months],
        "months": months,
        "benefits": BLACK_CARD_BENEFITS,
        "subtotal": 1990,
        "discount": 0,
        "total": 1990,
        "currency": "CNY",
        "payment_method": "card",
        "paid_at": at or clock.now(),
    }
    return OrderPaid(**(fields | more))


def refunded(order: OrderPaid, at: datetime | None = None, **more: Any) -> OrderRefunded:
    """The full refund of an order."""
    fields: dict[str, Any] = {
        "order_id": order.order_id,
        "refund_id": new_id(),
        "member_id": order.member_id,
        "amount": order.total,
        "currency": "CNY",
        "full": True,
        "removes_time": True,
        "refunded_at": at or clock.now(),
    }
    return OrderRefunded(**(fields | more))


async def membership(api: Api, member_id: UUID) -> dict[str, Any]:
    answer = await api.client.get("/v1/me/membership", headers=api.member(member_id))
    assert answer.status_code == 200
    return dict(answer.json())


async def segments(api: Api, member_id: UUID) -> list[dict[str, Any]]:
    answer = await api.client.get("/v1/me/membership/segments?limit=100", headers=api.member(member_id))
    assert answer.status_code == 200
    return list(answer.json()["items"])


async def spans(api: Api, member_id: UUID) -> list[tuple[str, str]]:
    return [(item["starts_at"], item["ends_at"]) for item in await segments(api, member_id)]


async def test_nobody_is_a_member_before_buying(api: Api) -> None:
    assert await membership(api, new_id()) == {
        "status": "none",
        "plan_code": None,
        "starts_at": None,
        "ends_at": None,
        "days_left": 0,
        "benefits": [],
        "auto_renew": False,
    }


async def test_a_paid_order_is_a_segment_and_is_told(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    order = paid(member_id, at=START)
    await api.handle(order)
    assert await membership(api, member_id) == {
        "status": "active",
        "plan_code": "black-card-1m",
        "starts_at": "2031-01-31T02:00:00Z",
        "ends_at": "2031-02-28T02:00:00Z",
        "days_left": 28,
        "benefits": list(BLACK_CARD_BENEFITS),
        "auto_renew": False,
    }
    [segment] = await segments(api, member_id)
    assert (segment["source"], segment["source_id"], segment["state"]) == ("order", str(order.order_id), "active")
    [told] = await api.emitted()
    assert isinstance(told, MembershipChanged)
    assert (told.member_id, told.version) == (member_id, 1)
    assert told.access_until == datetime(2031, 2, 28, 2, tzinfo=UTC)
    assert [str(picture.id) for picture in told.segments] == [segment["id"]]


async def test_buying_early_adds_at_the_end_with_one_anchor(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    await api.handle(*(paid(member_id, at=START + timedelta(minutes=number)) for number in range(3)))
    assert await spans(api, member_id) == [
        ("2031-01-31T02:00:00Z", "2031-02-28T02:00:00Z"),
        ("2031-02-28T02:00:00Z", "2031-03-31T02:00:00Z"),
        ("2031-03-31T02:00:00Z", "2031-04-30T02:00:00Z"),
    ]
    now = await membership(api, member_id)
    assert (now["starts_at"], now["ends_at"]) == ("2031-01-31T02:00:00Z", "2031-04-30T02:00:00Z")
    assert [item["state"] for item in await segments(api, member_id)] == ["active", "queued", "queued"]
    assert [event.version for event in await api.emitted() if isinstance(event, MembershipChanged)] == [1, 2, 3]


async def test_the_status_is_judged_at_the_instant(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    await api.handle(paid(member_id, at=START))
    api.clock.set(datetime(2031, 2, 28, 1, 59, 50, tzinfo=UTC))
    now = await membership(api, member_id)
    assert (now["status"], now["days_left"]) == ("active", 1)
    api.clock.set(datetime(2031, 2, 28, 2, tzinfo=UTC))
    now = await membership(api, member_id)
    assert (now["status"], now["days_left"], now["benefits"]) == ("expired", 0, [])
    assert (now["plan_code"], now["ends_at"]) == ("black-card-1m", "2031-02-28T02:00:00Z")
    [segment] = await segments(api, member_id)
    assert segment["state"] == "consumed"
    await api.handle(paid(member_id))
    now = await membership(api, member_id)
    assert (now["status"], now["starts_at"][:16]) == ("active", "2031-02-28T02:00")


async def test_the_same_order_again_adds_nothing(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id)
    await api.handle(order, order, order.model_copy(update={"id": new_id()}))
    assert len(await segments(api, member_id)) == 1
    assert len(await api.emitted()) == 1


async def test_gifts_and_courses_give_the_payer_no_time(api: Api) -> None:
    member_id = new_id()
    await api.handle(paid(member_id, kind="gift"), paid(member_id, kind="course", plan_code=None, course_id=new_id()))
    assert await segments(api, member_id) == []
    assert await api.emitted() == []


async def test_a_refunded_active_segment_ends_at_once_and_the_queue_moves_forward(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    first, second = paid(member_id, at=START), paid(member_id, 3, at=START + timedelta(hours=1))
    await api.handle(first, second)
    at = START + timedelta(days=2)
    api.clock.set(at)
    await api.handle(refunded(first, at))
    assert await spans(api, member_id) == [
        ("2031-01-31T02:00:00Z", "2031-02-02T02:00:00Z"),
        ("2031-02-02T02:00:00Z", "2031-05-02T02:00:00Z"),
    ]
    assert [item["state"] for item in await segments(api, member_id)] == ["revoked", "active"]
    told = (await api.emitted())[-1]
    assert isinstance(told, MembershipChanged)
    assert [picture.source_id for picture in told.segments] == [second.order_id]
    assert told.version == 3


async def test_a_refunded_queued_segment_never_was(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    first, second = paid(member_id, at=START), paid(member_id, 3, at=START + timedelta(hours=1))
    await api.handle(first, second, refunded(second, START + timedelta(hours=2)))
    listed = await segments(api, member_id)
    assert [(item["state"], item["starts_at"] is None) for item in listed] == [("active", False), ("revoked", True)]
    assert (await membership(api, member_id))["ends_at"] == "2031-02-28T02:00:00Z"


async def test_the_refund_of_everything_leaves_an_expired_membership(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id)
    await api.handle(order)
    api.clock.advance(timedelta(hours=1))
    await api.handle(refunded(order))
    assert (await membership(api, member_id))["status"] == "expired"
    told = (await api.emitted())[-1]
    assert isinstance(told, MembershipChanged)
    assert told.segments == ()
    assert told.access_until is not None
    assert told.access_until <= clock.now()


async def test_a_refund_heard_before_its_payment_is_remembered(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id)
    await api.handle(refunded(order), order)
    assert [item["state"] for item in await segments(api, member_id)] == ["revoked"]
    assert (await membership(api, member_id))["status"] in {"none", "expired"}


async def test_partial_refunds_and_kept_time_change_nothing(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id)
    await api.handle(order)
    before = await membership(api, member_id)
    await api.handle(refunded(order, full=False, amount=100, removes_time=False), refunded(order, removes_time=False))
    assert await membership(api, member_id) == before
    assert len(await api.emitted()) == 1


async def test_the_price_of_the_days_that_are_left_takes_those_days(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id)
    await api.handle(order)
    await api.handle(refunded(order, full=False, amount=1200))
    assert [item["state"] for item in await segments(api, member_id)] == ["revoked"]


async def test_two_purchases_at_the_same_instant_queue_up(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    await asyncio.gather(*(api.handle(paid(member_id, at=START)) for _ in range(8)))
    held = sorted(await spans(api, member_id))
    assert held[0][0] == "2031-01-31T02:00:00Z"
    assert held[-1][1] == "2031-09-30T02:00:00Z"
    assert all(earlier[1] == later[0] for earlier, later in pairwise(held))
    versions = [event.version for event in await api.emitted() if isinstance(event, MembershipChanged)]
    assert sorted(versions) == list(range(1, 9))


async def test_one_order_told_many_times_at_once_adds_one_segment(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id)
    again = [order.model_copy(update={"id": new_id()}) for _ in range(8)]
    await asyncio.gather(*(api.handle(event) for event in again))
    assert len(await segments(api, member_id)) == 1
    assert len(await api.emitted()) == 1


async def test_a_reward_is_days_with_the_black_cards_benefits(api: Api) -> None:
    member_id = new_id()
    reward = RewardGranted(
        reward_id=new_id(), member_id=member_id, days=7, reason="invitee paid", granted_at=clock.now()
    )
    await api.handle(reward, reward.model_copy(update={"id": new_id()}))
    [segment] = await segments(api, member_id)
    assert (segment["source"], segment["days"], segment["source_id"]) == ("reward", 7, str(reward.reward_id))
    now = await membership(api, member_id)
    assert (now["days_left"], now["benefits"]) == (7, list(BLACK_CARD_BENEFITS))


async def test_segments_come_in_pages(api: Api) -> None:
    member_id = new_id()
    await api.handle(*(paid(member_id, at=START + timedelta(minutes=number)) for number in range(5)))
    everything = await segments(api, member_id)
    params: dict[str, Any] = {"limit": 2}
    found = []
    for _ in range(3):
        path = "/v1/me/membership/segments"
        page = (await api.client.get(path, params=params, headers=api.member(member_id))).json()
        found += page["items"]
        params["cursor"] = page["next_cursor"]
    assert params["cursor"] is None
    assert found == everything
    assert len(found) == 5


async def test_reading_a_membership_asks_for_a_login(api: Api) -> None:
    for path in ("/v1/me/membership", "/v1/me/membership/segments"):
        assert (await api.client.get(path)).status_code == 401
        assert (await api.client.get(path, headers=api.admin())).status_code == 403


async def test_a_revoked_reward_takes_exactly_its_days_in_any_order(api: Api) -> None:
    for turn in range(2):
        member_id, headers = await a_member(api, f"+861370013700{turn}")
        reward = RewardGranted(reward_id=new_id(), member_id=member_id, days=7, reason="x", granted_at=clock.now())
        revoked = RewardRevoked(reward_id=reward.reward_id, member_id=member_id, revoked_at=clock.now())
        order = paid(member_id, months=1)
        await api.handle(order, *((reward, revoked), (revoked, reward))[turn])
        segments = (await api.client.get("/v1/me/membership/segments", headers=headers)).json()["items"]
        assert {segment["source"]: segment["state"] for segment in segments} == {"order": "active", "reward": "revoked"}
