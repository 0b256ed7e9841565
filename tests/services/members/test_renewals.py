"""Renewals: grace while a subscription is charged, renewals that start at the old end, and who is found in grace."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.billing import SubscriptionChanged
from contracts.members import MembershipChanged
from kit.events import Event
from kit.ids import new_id
from services.members.benefits import BLACK_CARD_BENEFITS
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_membership import START, membership, paid, refunded, segments, spans

END = datetime(2031, 2, 28, 2, tzinfo=UTC)
"""Where a month bought at START ends."""
DAY = timedelta(days=1)


def subscribed(member_id: UUID, status: str = "active", version: int = 1, **more: Any) -> SubscriptionChanged:
    """A subscription's state."""
    fields: dict[str, Any] = {
        "subscription_id": UUID(int=member_id.int ^ 1),
        "member_id": member_id,
        "version": version,
        "status": status,
        "plan_code": "black-card-1m",
        "renewing": status in {"active", "past_due"},
    }
    return SubscriptionChanged(**(fields | more))


async def told(api: Api) -> MembershipChanged:
    """The last picture told."""
    found = [event for event in await api.emitted() if isinstance(event, MembershipChanged)]
    return found[-1]


async def test_a_renewing_membership_has_seven_days_of_grace_judged_at_the_instant(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    await api.handle(paid(member_id, at=START), subscribed(member_id))
    held = await membership(api, member_id)
    assert (held["status"], held["auto_renew"]) == ("active", True)
    picture = await told(api)
    assert (picture.access_until, picture.segments[-1].ends_at) == (END + 7 * DAY, END)

    for moment in (END, END + 7 * DAY - timedelta(seconds=5)):
        api.clock.set(moment)
        assert await membership(api, member_id) == {
            "status": "grace",
            "plan_code": "black-card-1m",
            "starts_at": "2031-01-31T02:00:00Z",
            "ends_at": "2031-02-28T02:00:00Z",
            "days_left": 0,
            "benefits": list(BLACK_CARD_BENEFITS),
            "auto_renew": True,
        }
    api.clock.set(END + 7 * DAY)
    held = await membership(api, member_id)
    assert (held["status"], held["benefits"]) == ("expired", [])
    # What has passed by itself was told beforehand.
    assert await api.emitted() == []


@pytest.mark.parametrize("status", ["canceling", "none"])
async def test_an_end_of_renewing_takes_the_grace_back(api: Api, status: str) -> None:
    member_id = new_id()
    api.clock.set(START)
    await api.handle(paid(member_id, at=START), subscribed(member_id), subscribed(member_id, "past_due", 2))
    api.clock.set(END + DAY)
    assert (await membership(api, member_id))["status"] == "grace"
    await api.emitted()
    await api.handle(subscribed(member_id, status, 3))
    held = await membership(api, member_id)
    assert (held["status"], held["auto_renew"]) == ("expired", False)
    assert (await told(api)).access_until == END
    # Older news, and the same again, change nothing.
    await api.handle(subscribed(member_id, "past_due", 2), subscribed(member_id, status, 3))
    assert (await membership(api, member_id))["status"] == "expired"
    assert await api.emitted() == []


async def test_resuming_gives_the_grace_again(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    await api.handle(paid(member_id, at=START), subscribed(member_id, "canceling", 2), subscribed(member_id))
    assert (await membership(api, member_id))["auto_renew"] is False
    await api.handle(subscribed(member_id, "active", 3))
    assert (await membership(api, member_id))["auto_renew"] is True
    assert (await told(api)).access_until == END + 7 * DAY


async def test_a_subscription_heard_before_its_payment_tells_nothing_yet(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    await api.handle(subscribed(member_id))
    assert await api.emitted() == []
    await api.handle(paid(member_id, at=START))
    assert (await told(api)).access_until == END + 7 * DAY
    assert (await membership(api, member_id))["auto_renew"] is True


async def test_time_that_was_taken_away_leaves_no_grace(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    order = paid(member_id, at=START)
    await api.handle(order, subscribed(member_id), refunded(order, START + DAY))
    api.clock.set(START + 2 * DAY)
    assert (await membership(api, member_id))["status"] == "expired"
    assert (await told(api)).access_until == START + DAY


@pytest.mark.parametrize("late", [timedelta(0), DAY, 3 * DAY, 6 * DAY, 7 * DAY - timedelta(seconds=1)])
async def test_a_renewal_paid_within_grace_starts_at_the_old_end_with_the_same_anchor(
    api: Api, late: timedelta
) -> None:
    member_id = new_id()
    api.clock.set(START)
    await api.handle(paid(member_id, at=START), subscribed(member_id))
    ends = [
        "2031-02-28T02:00:00Z",
        "2031-03-31T02:00:00Z",
        "2031-04-30T02:00:00Z",
        "2031-05-31T02:00:00Z",
        "2031-06-30T02:00:00Z",
    ]
    for end in ends[:-1]:
        at = datetime.fromisoformat(end)
        api.clock.set(at + late)
        assert (await membership(api, member_id))["status"] == "grace"
        renewal = paid(member_id, at=at + late, renews_from=at)
        await api.handle(renewal, renewal)
        held = await membership(api, member_id)
        assert (held["status"], held["starts_at"]) == ("active", "2031-01-31T02:00:00Z")
    assert await spans(api, member_id) == list(zip(["2031-01-31T02:00:00Z", *ends], ends, strict=False))


async def test_a_renewal_paid_after_its_grace_starts_with_the_payment(api: Api) -> None:
    member_id = new_id()
    late = END + 7 * DAY
    api.clock.set(late)
    await api.handle(paid(member_id, at=START), subscribed(member_id), paid(member_id, at=late, renews_from=END))
    assert await spans(api, member_id) == [
        ("2031-01-31T02:00:00Z", "2031-02-28T02:00:00Z"),
        ("2031-03-07T02:00:00Z", "2031-04-07T02:00:00Z"),
    ]


async def test_whoever_buys_more_in_grace_loses_nothing_in_any_order(api: Api) -> None:
    for turn in range(6):
        member_id = new_id()
        more = paid(member_id, 3, END + 2 * DAY)
        renewal = paid(member_id, at=END + 3 * DAY, renews_from=END)
        news: list[Event] = [paid(member_id, at=START), subscribed(member_id), more, renewal] * 2
        random.Random(turn).shuffle(news)
        await api.handle(*news)
        listed = {item["source_id"]: (item["starts_at"], item["ends_at"]) for item in await segments(api, member_id)}
        assert listed[str(more.order_id)] == ("2031-03-02T02:00:00Z", "2031-06-02T02:00:00Z")
        assert listed[str(renewal.order_id)] == ("2031-06-02T02:00:00Z", "2031-07-02T02:00:00Z")


async def test_points_are_doubled_in_grace_too(api: Api) -> None:
    member_id, headers = await a_member(api)
    api.clock.set(START)
    await api.handle(paid(member_id, at=START), subscribed(member_id))
    path = "/v1/me/check-ins"
    for moment, points in ((END - DAY, 2), (END + DAY, 2), (END + 8 * DAY, 1)):
        api.clock.set(moment)
        answer = await api.client.post(path, headers=api.member(member_id))
        assert (answer.status_code, answer.json()["points"]) == (201, points), answer.text
    assert headers


async def test_admins_find_whoever_is_in_grace(api: Api) -> None:
    api.clock.set(START)
    ids = {name: (await a_member(api, f"+861390000000{place}"))[0] for place, name in enumerate("abcde")}
    await api.handle(
        paid(ids["a"], at=START),
        subscribed(ids["a"]),
        paid(ids["b"], at=START),
        subscribed(ids["b"]),
        subscribed(ids["b"], "canceling", 2),
        paid(ids["c"], 3, START),
        subscribed(ids["c"]),
        paid(ids["d"], at=START - 31 * DAY),
        subscribed(ids["d"]),
    )

    async def found(status: str) -> set[str]:
        params = {"membership": status}
        answer = await api.client.get("/v1/admin/members", params=params, headers=api.admin("members:read"))
        items = answer.json()["items"]
        assert {item["membership"]["status"] for item in items} <= {status}
        return {name for name, member_id in ids.items() if str(member_id) in {item["id"] for item in items}}

    for moment, active, grace, expired in (
        (START + DAY, "abc", "d", ""),
        (END + DAY, "c", "a", "bd"),
        (END + 7 * DAY, "c", "", "abd"),
    ):
        api.clock.set(moment)
        assert (await found("active"), await found("grace"), await found("expired"), await found("none")) == (
            set(active),
            set(grace),
            set(expired),
            {"e"},
        )
