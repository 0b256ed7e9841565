"""Refunds: in time in full, later by unused days, a row before the money, one event for everything that follows."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.billing import CouponReleased, OrderRefunded
from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from tests.services.billing.till import Till


async def _granted(till: Till, member: UUID, order: dict[str, Any], days: int = 31) -> SegmentPicture:
    start = clock.now()
    segment = SegmentPicture(
        id=new_id(),
        source="order",
        source_id=UUID(order["id"]),
        plan_code=order["plan_code"],
        months=0,
        days=days,
        starts_at=start,
        ends_at=start + timedelta(days=days),
        benefits=(),
        added_at=start,
    )
    changed = MembershipChanged(member_id=member, version=1, segments=(segment,), access_until=segment.ends_at)
    await till.api.handle(changed)
    return segment


async def test_a_member_takes_everything_back_in_time(till: Till) -> None:
    member = new_id()
    order = await till.buy(member, coupon_token=till.coupon(member))
    segment = await _granted(till, member, order)
    await till.api.emitted()
    till.api.clock.advance(timedelta(days=2, hours=1))
    path = f"/v1/orders/{order['id']}/refund-preview"
    preview = (await till.client.post(path, headers=till.api.member(member))).json()
    assert preview == {"refundable": 1490, "days_used": 3, "membership_after": None}
    refunded = await till.refund(member, order["id"])
    assert refunded.status_code == 201, refunded.text
    body = refunded.json()
    assert (body["amount"], body["status"], body["segment_id"]) == (1490, "succeeded", str(segment.id))
    released, event = await till.api.emitted()
    assert isinstance(released, CouponReleased)
    assert isinstance(event, OrderRefunded)
    assert (event.amount, event.full, event.removes_time) == (1490, True, True)
    after = await till.read(member, order["id"])
    assert (after["status"], after["refunded_amount"]) == ("refunded", 1490)
    balance = await till.balanced()
    assert (balance["provider_receivable"], balance["deferred_revenue"]) == (0, 0)
    # What two days had earned is given back, too.
    assert balance["refunds"] > 0
    assert balance["revenue"] + balance["coupons"] + balance["refunds"] == 0
    again = await till.refund(member, order["id"])
    assert (again.status_code, again.json()["code"]) == (409, "nothing_refundable")
    # The provider's own events about the refund bring nothing new.
    await till.api.run_due()
    assert await till.api.run_due() == 0
    assert await till.api.emitted() == []


async def test_twenty_refunds_at_once_give_the_money_back_once(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    await till.api.emitted()
    answers = await asyncio.gather(*(till.refund(member, order["id"]) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"nothing_refundable"}
    assert [type(event) for event in await till.api.emitted()] == [OrderRefunded]
    assert await till.balanced() == {"provider_receivable": 0, "deferred_revenue": 0}


async def test_partial_refunds_keep_the_time_and_never_exceed_the_payment(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    await till.api.emitted()
    first = await till.refund(member, order["id"], amount=1000)
    assert (first.status_code, first.json()["segment_id"]) == (201, None)
    over = await till.refund(member, order["id"], amount=991)
    assert (over.status_code, over.json()["code"]) == (422, "refund_too_high")
    partly = await till.read(member, order["id"])
    assert (partly["status"], partly["refunded_amount"]) == ("partially_refunded", 1000)
    await till.refund(member, order["id"])
    one, two = await till.api.emitted()
    assert isinstance(one, OrderRefunded)
    assert isinstance(two, OrderRefunded)
    assert (one.full, one.removes_time, two.full, two.removes_time) == (False, False, True, True)
    assert two.amount == 990


async def test_after_the_window_only_an_admin_refunds_by_unused_days(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    await _granted(till, member, order, days=31)
    till.api.clock.advance(timedelta(days=9, hours=1))
    late = await till.refund(member, order["id"])
    assert (late.status_code, late.json()["code"]) == (409, "refund_window_over")
    path = f"/v1/orders/{order['id']}/refund-preview"
    assert (await till.client.post(path, headers=till.api.member(member))).json()["refundable"] == 0
    path = f"/v1/admin/orders/{order['id']}/refund-preview"
    preview = (await till.client.post(path, headers=till.api.admin("orders:read"))).json()
    assert (preview["refundable"], preview["days_used"]) == (1990 * 21 // 31, 10)
    await till.api.emitted()
    kept = await till.admin_refund(order["id"], amount=100, keep_time=True)
    assert kept.status_code == 201
    (event,) = await till.api.emitted()
    assert isinstance(event, OrderRefunded)
    assert (event.amount, event.full, event.removes_time) == (100, False, False)
    rest, again = await asyncio.gather(*(till.admin_refund(order["id"]) for _ in range(2)))
    assert sorted((rest.status_code, again.status_code)) == [201, 409]
    assert {rest.json().get("code"), again.json().get("code")} == {None, "nothing_refundable"}
    preview = (await till.client.post(path, headers=till.api.admin("orders:read"))).json()
    assert preview["refundable"] == 0
    goodwill = [(await till.admin_refund(order["id"], amount=amount)).status_code for amount in (42, 600)]
    assert goodwill == [201, 201]
    told = [event for event in await till.api.emitted() if isinstance(event, OrderRefunded)]
    given = [(event.amount, event.full, event.removes_time) for event in told]
    assert given == [(1990 * 21 // 31 - 100, False, True), (42, False, False), (600, True, True)]


async def test_days_on_which_a_dispute_kept_a_member_out_are_not_used(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    segment = await _granted(till, member, order, days=31)
    till.api.clock.advance(timedelta(days=14, hours=1))
    longer = segment.model_copy(update={"idle_s": 5 * 86_400, "ends_at": segment.ends_at + timedelta(days=5)})
    changed = MembershipChanged(member_id=member, version=2, segments=(longer,), access_until=longer.ends_at)
    await till.api.handle(changed)
    path = f"/v1/admin/orders/{order['id']}/refund-preview"
    preview = (await till.client.post(path, headers=till.api.admin("orders:read"))).json()
    # The fifteenth day has begun, five of them were nobody's: ten of thirty-one are used.
    assert (preview["refundable"], preview["days_used"]) == (1990 * 21 // 31, 10)


async def test_a_refund_goes_on_when_the_provider_was_away(till: Till) -> None:
    member, key = new_id(), str(new_id())
    order = await till.buy(member)
    await till.api.emitted()
    await till.break_calls("error", match="/v1/refunds")
    away = await till.refund(member, order["id"], key=key)
    assert (away.status_code, away.json()["code"]) == (503, "payment_provider_unavailable")
    assert int(away.headers["Retry-After"]) <= 10
    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert await till.api.emitted() == []
    await till.break_calls("error", times=0)
    done = await till.refund(member, order["id"], key=key)
    assert (done.status_code, done.json()["status"]) == (201, "succeeded")
    till.api.clock.advance(timedelta(minutes=5))
    await till.api.run_due()
    assert [type(event) for event in await till.api.emitted()] == [OrderRefunded]
    assert await till.api.sql("SELECT count(*) FROM refund") == [(1,)]


async def test_a_refund_whose_answer_was_lost_is_chased_to_its_end(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    await till.api.emitted()
    await till.break_calls("drop", times=3, match="/v1/refunds")
    assert (await till.refund(member, order["id"])).status_code == 503
    till.api.clock.advance(timedelta(minutes=1))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "refunded"
    assert [type(event) for event in await till.api.emitted()] == [OrderRefunded]
    assert await till.api.sql("SELECT count(*) FROM sandbox_refund") == [(1,)]


async def test_a_second_payment_of_one_order_is_sent_back_by_itself(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    assert (await till.pay(order, duplicate=True)).status_code == 200
    till.api.clock.advance(timedelta(seconds=30))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["refunded_amount"] == 0
    seen = await till.client.get(f"/v1/admin/orders/{order['id']}", headers=till.api.admin("orders:read"))
    assert sorted(payment["status"] for payment in seen.json()["payments"]) == ["applied", "surplus"]
    assert [(one["amount"], one["status"], one["cause"]) for one in seen.json()["refunds"]] == [
        (1990, "succeeded", "surplus")
    ]
    assert (await till.read(member, order["id"]))["status"] == "paid"
    balances = await till.balanced()
    assert balances == {"provider_receivable": 1990, "deferred_revenue": -1990, "refunds_payable": 0}


async def test_a_refund_needs_a_key_an_owner_and_a_scope(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    path = f"/v1/orders/{order['id']}/refunds"
    keyless = await till.client.post(path, json={"reason": "x"}, headers=till.api.member(member))
    assert (keyless.status_code, keyless.json()["code"]) == (400, "idempotency_key_required")
    assert (await till.refund(new_id(), order["id"])).status_code == 404
    headers = till.api.admin("orders:read") | {"Idempotency-Key": "k"}
    refused = await till.client.post(f"/v1/admin{path[3:]}", json={"reason": "x"}, headers=headers)
    assert refused.status_code == 403
    assert (await till.read(member, order["id"]))["refunded_amount"] == 0


async def test_a_refund_whose_answer_was_lost_is_found_when_its_key_is_forgotten(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    # Three calls, because two more are made by themselves; and the webhook that would tell of the refund.
    dropped = {"target": "calls", "kind": "drop", "times": 3, "seconds": 1.0, "match": "/v1/refunds"}
    delayed = {"target": "deliveries", "kind": "delay", "times": 100, "seconds": 86_000.0}
    assert (await till.client.put("/v1/sandbox/faults", json={"faults": [dropped, delayed]})).status_code == 200
    lost = await till.refund(member, order["id"], amount=700)
    assert (lost.status_code, lost.json()["code"]) == (503, "payment_provider_unavailable")
    assert await till.api.sql("SELECT status, provider_ref FROM refund") == [("pending", None)]
    assert await till.api.sql("SELECT amount FROM sandbox_refund") == [(700,)]
    await till.api.sql("DELETE FROM sandbox_idempotency")
    till.api.clock.advance(timedelta(hours=13))
    await till.api.run_due()
    assert await till.api.sql("SELECT amount FROM sandbox_refund") == [(700,)]
    after = await till.read(member, order["id"])
    assert (after["status"], after["refunded_amount"]) == ("partially_refunded", 700)
    assert await till.balanced() == {"provider_receivable": 1290, "deferred_revenue": -1290}
    assert await till.api.run_due() == 0
