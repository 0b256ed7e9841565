"""Where time comes from: redeemed gifts and codes, disputes that suspend it and give it back, and plans told beforehand."""

import asyncio
import random
from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

from contracts.billing import CodeRedeemed, OrderDisputed, OrderPaid, PlanChanged
from contracts.members import MembershipChanged
from kit import clock
from kit.events import Event
from kit.ids import new_id
from services.members.benefits import BLACK_CARD_BENEFITS
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_membership import START, membership, paid, refunded, segments, spans

DAY = timedelta(days=1)
FIRST = ("2031-01-31T02:00:00Z", "2031-02-28T02:00:00Z")


def redeemed(member_id: UUID, source: str = "gift", **more: Any) -> CodeRedeemed:
    """A code somebody redeemed at START."""
    fields: dict[str, Any] = {
        "segment_id": new_id(),
        "source": source,
        "source_id": new_id(),
        "member_id": member_id,
        "plan_code": "black-card-1m",
        "months": 1,
        "benefits": BLACK_CARD_BENEFITS,
        "redeemed_at": START,
    }
    return CodeRedeemed(**(fields | more))


def disputed(order: OrderPaid, outcome: str, at: Any, **more: Any) -> OrderDisputed:
    """A step of a dispute of this order."""
    fields: dict[str, Any] = {
        "order_id": order.order_id,
        "member_id": order.member_id,
        "kind": order.kind,
        "outcome": outcome,
        "amount": order.total,
        "currency": "CNY",
        "removes_time": outcome != "won",
        "disputed_at": at,
    }
    return OrderDisputed(**(fields | more))


async def test_a_redeemed_code_is_a_segment_of_whoever_redeemed_it(api: Api) -> None:
    api.clock.set(START)
    for source in ("gift", "redeem_code"):
        member_id = new_id()
        event = redeemed(member_id, source)
        await api.handle(event, event, event.model_copy(update={"id": new_id()}))
        [segment] = await segments(api, member_id)
        assert (segment["id"], segment["source"]) == (str(event.segment_id), source)
        assert (segment["source_id"], segment["state"]) == (str(event.source_id), "active")
        assert (segment["starts_at"], segment["ends_at"]) == FIRST
        assert len(await api.emitted()) == 1


async def test_a_member_s_redeemed_code_queues_behind_what_they_have(api: Api) -> None:
    member_id = new_id()
    await api.handle(redeemed(member_id, redeemed_at=START + DAY), paid(member_id, at=START))
    assert sorted(await spans(api, member_id)) == [FIRST, ("2031-02-28T02:00:00Z", "2031-03-31T02:00:00Z")]


async def test_a_refunded_gift_takes_the_segment_of_whoever_redeemed_it_in_any_order(api: Api) -> None:
    for turn in range(2):
        buyer, friend = new_id(), new_id()
        api.clock.set(START + turn * DAY)
        order = paid(buyer, kind="gift", at=clock.now())
        code = redeemed(friend, source_id=order.order_id, redeemed_at=clock.now())
        refund = refunded(order, kind="gift", beneficiary_id=friend)
        await api.handle(order, *((code, refund), (refund, code))[turn], refund)
        assert [segment["state"] for segment in await segments(api, friend)] == ["revoked"]
        assert await segments(api, buyer) == []
    assert await api.sql("SELECT * FROM early_revocation") == []


async def test_the_refund_of_a_gift_nobody_redeemed_or_of_a_course_leaves_nothing_behind(api: Api) -> None:
    buyer = new_id()
    gift = paid(buyer, kind="gift")
    course = paid(buyer, kind="course", plan_code=None, course_id=new_id())
    await api.handle(gift, course, refunded(gift, kind="gift"), refunded(course, kind="course"))
    assert await api.sql("SELECT * FROM early_revocation") == []
    assert await api.emitted() == []


async def test_a_dispute_suspends_exactly_its_time_and_a_won_one_gives_it_back(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    order = paid(member_id, at=START)
    await api.handle(order)
    api.clock.set(START + 10 * DAY)
    await api.handle(disputed(order, "opened", START + 10 * DAY))
    assert (await membership(api, member_id))["status"] == "expired"
    assert [segment["state"] for segment in await segments(api, member_id)] == ["revoked"]
    # 60 days later: the eighteen days that were left begin now.
    api.clock.set(START + 70 * DAY)
    await api.handle(disputed(order, "won", START + 70 * DAY))
    held = await membership(api, member_id)
    assert (held["status"], held["days_left"], held["starts_at"]) == ("active", 18, "2031-01-31T02:00:00Z")
    assert held["ends_at"] == "2031-04-29T02:00:00Z"
    assert [segment["state"] for segment in await segments(api, member_id)] == ["active"]
    told = [event for event in await api.emitted() if isinstance(event, MembershipChanged)]
    assert [len(event.segments) for event in told] == [1, 0, 1]
    # Nobody could use those sixty days.
    assert (told[0].segments[0].idle_s, told[2].segments[0].idle_s) == (0, 60 * 86_400)


async def test_a_dispute_won_at_once_leaves_the_calendar_as_it_was(api: Api) -> None:
    member_id = new_id()
    api.clock.set(START)
    orders = [paid(member_id, at=START + timedelta(minutes=place)) for place in range(2)]
    await api.handle(*orders)
    before = await spans(api, member_id)
    opened = START + DAY
    api.clock.set(opened + timedelta(minutes=30))
    await api.handle(disputed(orders[0], "opened", opened))
    assert await spans(api, member_id) != before
    await api.handle(disputed(orders[0], "won", opened + timedelta(minutes=30)))
    assert await spans(api, member_id) == before


async def test_what_was_used_of_the_time_behind_a_disputed_one_is_not_given_twice(api: Api) -> None:
    member_id = new_id()
    first, second = paid(member_id, at=START), paid(member_id, at=START + timedelta(minutes=1))
    opened, won = START + 10 * DAY, START + 20 * DAY
    await api.handle(first, second, disputed(first, "opened", opened))
    assert (await spans(api, member_id))[1] == ("2031-02-10T02:00:00Z", "2031-03-10T02:00:00Z")
    await api.handle(disputed(first, "won", won))
    # The second was there all the while: nothing was lost, and both end where they would have.
    assert await spans(api, member_id) == [FIRST, ("2031-02-28T02:00:00Z", "2031-03-31T02:00:00Z")]


async def test_a_lost_dispute_takes_the_time_for_good(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id, at=START)
    lost = disputed(order, "lost", START + 9 * DAY)
    await api.handle(order, disputed(order, "opened", START + 2 * DAY), lost, lost)
    assert await spans(api, member_id) == [("2031-01-31T02:00:00Z", "2031-02-02T02:00:00Z")]


async def test_the_steps_of_a_dispute_may_come_in_any_order_and_twice(api: Api) -> None:
    for outcome, states in (("won", ["active", "queued"]), ("lost", ["revoked", "active"])):
        seen: list[Any] = []
        for order_of_news in permutations(range(4)):
            member_id = new_id()
            first, second = paid(member_id, at=START), paid(member_id, 3, START + timedelta(hours=1))
            news: list[Event] = [
                first,
                second,
                disputed(first, "opened", START + 3 * DAY),
                disputed(first, outcome, START + 5 * DAY),
            ]
            api.clock.set(START + 6 * DAY + timedelta(minutes=len(seen)))
            await api.handle(*(news[place] for place in order_of_news), *(news[place] for place in order_of_news))
            listed = sorted(await segments(api, member_id), key=lambda item: item["months"])
            assert [item["state"] for item in listed] == states
            seen.append([(item["starts_at"], item["ends_at"]) for item in listed])
        assert all(spans == seen[0] for spans in seen)
        api.clock.advance(DAY)


async def test_all_that_bears_on_an_order_may_be_heard_at_once(api: Api) -> None:
    for turn in range(4):
        member_id = new_id()
        order = paid(member_id, at=START)
        news: list[Event] = [
            order,
            disputed(order, "opened", START + 2 * DAY),
            disputed(order, "won", START + 4 * DAY),
            redeemed(member_id, redeemed_at=START + 5 * DAY),
            refunded(order, START + 20 * DAY) if turn % 2 else order,
        ]
        again = [event.model_copy(update={"id": new_id()}) for event in news]
        await asyncio.gather(*(api.handle(event) for event in [*news, *again]))
        end = ("2031-03-02T02:00:00Z", "2031-02-20T02:00:00Z")[turn % 2]
        assert await spans(api, member_id) == [
            ("2031-01-31T02:00:00Z", end),
            (end, ("2031-04-02T02:00:00Z", "2031-03-20T02:00:00Z")[turn % 2]),
        ]


async def test_a_dispute_that_keeps_the_time_keeps_it(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id, at=START)
    await api.handle(order, disputed(order, "opened", START + DAY, removes_time=False))
    assert await spans(api, member_id) == [FIRST]
    await api.handle(disputed(order, "lost", START + 2 * DAY))
    assert await spans(api, member_id) == [("2031-01-31T02:00:00Z", "2031-02-02T02:00:00Z")]


async def test_a_gift_s_dispute_suspends_the_time_of_whoever_redeemed_it(api: Api) -> None:
    buyer, friend = new_id(), new_id()
    order = paid(buyer, kind="gift", at=START)
    code = redeemed(friend, source_id=order.order_id)
    await api.handle(order, disputed(order, "opened", START), code)
    assert await spans(api, friend) == [FIRST]
    await api.handle(disputed(order, "opened", START + DAY, beneficiary_id=friend))
    assert [segment["state"] for segment in await segments(api, friend)] == ["revoked"]
    await api.handle(disputed(order, "won", START + DAY, beneficiary_id=friend))
    assert await spans(api, friend) == [FIRST]


async def test_a_refund_after_a_won_dispute_takes_what_is_left(api: Api) -> None:
    member_id = new_id()
    order = paid(member_id, at=START)
    news = [
        order,
        disputed(order, "opened", START + 2 * DAY),
        disputed(order, "won", START + 4 * DAY),
        refunded(order, START + 5 * DAY),
    ]
    random.Random(5).shuffle(news)
    await api.handle(*news)
    assert await spans(api, member_id) == [("2031-01-31T02:00:00Z", "2031-02-05T02:00:00Z")]


def plan(code: str, revision: int, *benefits: str) -> PlanChanged:
    """A plan as it is at this revision."""
    return PlanChanged(plan_code=code, revision=revision, name="x", months=6, benefits=benefits, active=True)


async def test_a_comp_may_name_a_plan_that_nobody_has_bought_yet(api: Api) -> None:
    member_id, _ = await a_member(api)
    path = f"/v1/admin/members/{member_id}/membership-grants"
    body = {"days": 3, "plan_code": "tea-card", "reason": "x"}
    refused = await api.client.post(path, json=body, headers=api.admin())
    assert (refused.status_code, refused.json()["code"]) == (422, "plan_unknown")
    await api.handle(plan("tea-card", 2, "tea"), plan("tea-card", 1, "coffee"))
    assert (await api.client.post(path, json=body, headers=api.admin())).status_code == 201
    assert (await membership(api, member_id))["benefits"] == ["tea"]


async def test_a_plan_s_own_word_counts_more_than_what_orders_showed(api: Api) -> None:
    member_id, _ = await a_member(api)
    card = "black-card-1m"
    later = paid(new_id(), benefits=("old",), at=clock.now() + DAY)
    await api.handle(paid(new_id(), benefits=("older",)), plan(card, 7, "new"), later)
    path = f"/v1/admin/members/{member_id}/membership-grants"
    body = {"days": 3, "plan_code": card, "reason": "x"}
    assert (await api.client.post(path, json=body, headers=api.admin())).status_code == 201
    assert (await membership(api, member_id))["benefits"] == ["new"]
