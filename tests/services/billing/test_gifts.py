"""Gifts: bought by one, redeemed by another, refunded before or after; the code is its buyer's alone."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.billing import CodeRedeemed, CouponRedeemed, CouponReserved, OrderPaid, OrderRefunded
from contracts.members import MemberErased, MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from services.billing import codes
from tests.services.billing.test_code_batches import redeem
from tests.services.billing.till import Till


async def buy_gift(till: Till, buyer: UUID, **body: Any) -> dict[str, Any]:
    return await till.buy(buyer, gift=True, **body)


async def preview(till: Till, order_id: str, buyer: UUID | None = None) -> dict[str, Any]:
    """The refund preview of the buyer, or of an admin."""
    path = f"/v1/{'' if buyer else 'admin/'}orders/{order_id}/refund-preview"
    headers = till.api.member(buyer) if buyer else till.api.admin("orders:read")
    answer = await till.client.post(path, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def tell_time(till: Till, member: UUID, *, days: int, source_id: UUID, version: int = 1) -> SegmentPicture:
    """Let members tell of a gift's segment of so many days from now on."""
    now = clock.now()
    picture = SegmentPicture(
        id=new_id(),
        source="gift",
        source_id=source_id,
        plan_code="black-card-1m",
        months=0,
        days=days,
        starts_at=now,
        ends_at=now + timedelta(days=days),
        benefits=(),
        added_at=now,
    )
    await till.api.handle(MembershipChanged(member_id=member, version=version, segments=(picture,)))
    return picture


async def test_a_gift_s_time_begins_with_whoever_redeems_it(till: Till) -> None:
    buyer, friend = new_id(), new_id()
    order = await buy_gift(till, buyer, plan_code="black-card-12m")
    [paid] = await till.api.emitted()
    assert isinstance(paid, OrderPaid)
    assert (paid.kind, paid.plan_code, paid.months, paid.total) == ("gift", "black-card-12m", 12, 18900)
    assert order["kind"] == "gift"
    assert codes.grouped(codes.normalised(order["gift_code"]) or "") == order["gift_code"]
    assert (order["gift"]["status"], order["gift"]["redeemed_at"]) == ("open", None)
    till.api.clock.advance(timedelta(days=200))
    answer = await redeem(till, order["gift_code"].lower(), friend)
    assert answer.status_code == 201, answer.text
    segment = answer.json()["segment"]
    [event] = await till.api.emitted()
    assert isinstance(event, CodeRedeemed)
    assert (event.source, str(event.source_id), event.member_id, event.months) == ("gift", order["id"], friend, 12)
    assert (segment["source"], segment["source_id"], segment["months"]) == ("gift", order["id"], 12)
    assert (segment["id"], segment["state"]) == (str(event.segment_id), "active")
    after = await till.read(buyer, order["id"])
    assert (after["status"], after["gift_code"], after["gift"]["status"]) == ("paid", order["gift_code"], "redeemed")
    # The giver's own time is as it was: none.
    quote = await till.client.post(
        "/v1/orders/preview", json={"plan_code": "black-card-1m"}, headers=till.api.member(buyer)
    )
    assert quote.json()["membership_after"]["starts_at"] > segment["starts_at"]
    assert (await redeem(till, order["gift_code"], buyer)).json()["code"] == "code_used"
    assert await till.api.emitted() == []


async def test_the_code_is_shown_to_the_buyer_only_and_kept_by_nobody(till: Till) -> None:
    buyer = new_id()
    pending = (await till.order(buyer, gift=True)).json()
    assert (pending["gift_code"], pending["gift"]) == (None, None)
    [(hash_before, status)] = await till.api.sql("SELECT code_hash, status FROM redeem_code")
    letters = codes.gift_code(till.api.rt.settings.codes_key, UUID(pending["id"]))
    assert (bytes(hash_before), status) == (codes.digest(till.api.rt.settings.codes_key, letters), "unpaid")
    assert (await redeem(till, letters)).json()["code"] == "code_unknown"
    await till.pay(pending)
    order = await till.read(buyer, pending["id"])
    assert order["gift_code"] == codes.grouped(letters)
    own = (await till.client.get("/v1/orders", headers=till.api.member(buyer))).json()["items"]
    assert [item["gift_code"] for item in own] == [order["gift_code"]]
    async with till.client.stream("GET", f"/v1/orders/{order['id']}/events", headers=till.api.member(buyer)) as stream:
        assert order["gift_code"] in "".join([part async for part in stream.aiter_text()])
    admin = till.api.admin("orders:read")
    for path in (f"/v1/admin/orders/{order['id']}", "/v1/admin/orders"):
        shown = await till.client.get(path, headers=admin)
        assert shown.status_code == 200
        assert order["gift_code"] not in shown.text
    other = await till.client.get(f"/v1/orders/{order['id']}", headers=till.api.member())
    assert other.status_code == 404
    receipt = await till.client.get(f"/v1/orders/{order['id']}/receipt", headers=till.api.member(buyer))
    assert receipt.status_code == 200
    assert "黑卡月卡（礼品 gift）" in receipt.text
    assert order["gift_code"] not in receipt.text
    told = await till.api.sql("SELECT string_agg(body::text, '') AS told FROM outbox")
    assert letters not in told[0].told
    assert order["gift_code"] not in told[0].told


async def test_an_admin_sees_whether_and_by_whom_a_gift_was_redeemed(till: Till) -> None:
    buyer, friend = new_id(), new_id()
    order = await buy_gift(till, buyer)
    path, admin = f"/v1/admin/orders/{order['id']}", till.api.admin("orders:read")
    before = (await till.client.get(path, headers=admin)).json()
    assert (before["gift"]["status"], before["gift_redeemed_by"], before["gift_code"]) == ("open", None, None)
    await redeem(till, order["gift_code"], friend)
    after = (await till.client.get(path, headers=admin)).json()
    assert (after["gift"]["status"], after["gift_redeemed_by"]) == ("redeemed", str(friend))
    assert after["gift"]["redeemed_at"] is not None


async def test_two_hundred_at_once_redeem_a_gift_once(till: Till) -> None:
    order = await buy_gift(till, new_id())
    await till.api.emitted()
    answers = await asyncio.gather(*(redeem(till, order["gift_code"]) for _ in range(200)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 199}
    assert [type(event) for event in await till.api.emitted()] == [CodeRedeemed]


async def test_a_gift_stands_beside_an_order_for_oneself_and_one_of_each_is_open(till: Till) -> None:
    buyer = new_id()
    own, gift = await till.order(buyer), await till.order(buyer, gift=True)
    assert (own.status_code, gift.status_code) == (201, 201)
    again = await till.order(buyer, gift=True)
    assert (again.status_code, again.json()["id"]) == (200, gift.json()["id"])
    assert (await till.order(buyer)).json()["id"] == own.json()["id"]
    assert await till.api.sql("SELECT count(*) FROM redeem_code") == [(1,)]
    assert (await till.cancel(buyer, gift.json()["id"])).status_code == 200
    assert (await till.order(buyer, gift=True)).status_code == 201


async def test_a_buyer_may_redeem_their_own_gift_behind_what_they_have(till: Till) -> None:
    buyer = new_id()
    await till.buy(buyer)
    gift = await buy_gift(till, buyer)
    segment = (await redeem(till, gift["gift_code"], buyer)).json()["segment"]
    assert segment["state"] == "queued"


async def test_a_gift_with_nothing_to_pay_is_good_at_once(till: Till) -> None:
    buyer = new_id()
    free = till.coupon(buyer, value=1990)
    placed = await till.order(buyer, gift=True, coupon_token=free)
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert (order["status"], order["total"], order["gift"]["status"]) == ("paid", 0, "open")
    assert [type(event) for event in await till.api.emitted()] == [CouponReserved, CouponRedeemed, OrderPaid]
    assert (await redeem(till, order["gift_code"])).status_code == 201


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"auto_renew": True}, "gift_not_renewed"),
        ({"plan_code": None, "course_id": "01990d3f-6c00-7000-8000-00000000beef"}, "course_for_oneself"),
        ({"gift": "yes"}, "validation_failed"),
    ],
)
async def test_what_cannot_be_given_is_refused(till: Till, body: dict[str, Any], code: str) -> None:
    answer = await till.order(new_id(), **({"gift": True} | body))
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert await till.api.sql('SELECT 1 FROM "order"') == []


async def test_a_quote_for_a_gift_promises_the_buyer_no_time(till: Till) -> None:
    buyer = new_id()
    body = {"plan_code": "black-card-3m", "gift": True, "coupon_token": till.coupon(buyer)}
    quote = await till.client.post("/v1/orders/preview", json=body, headers=till.api.member(buyer))
    assert quote.status_code == 200
    assert (quote.json()["total"], quote.json()["membership_after"]) == (4400, None)


async def test_a_gift_can_be_redeemed_for_a_year_from_its_payment(till: Till) -> None:
    buyer = new_id()
    pending = (await till.order(buyer, gift=True)).json()
    till.api.clock.advance(timedelta(minutes=20))
    await till.pay(pending)
    order = await till.read(buyer, pending["id"])
    [(expires_at, paid_at)] = await till.api.sql(
        'SELECT c.expires_at, o.paid_at FROM redeem_code c JOIN "order" o ON o.id = c.order_id'
    )
    assert expires_at == paid_at + timedelta(days=365)
    till.api.clock.set(expires_at)
    refused = await redeem(till, order["gift_code"])
    assert (refused.status_code, refused.json()["code"]) == (409, "code_expired")
    assert (await till.read(buyer, order["id"]))["gift"]["status"] == "expired"


async def test_a_gift_refunded_unredeemed_is_void(till: Till) -> None:
    buyer = new_id()
    await till.buy(buyer)
    order = await buy_gift(till, buyer, plan_code="black-card-3m")
    till.api.clock.advance(timedelta(days=3))
    await till.api.emitted()
    shown = await preview(till, order["id"], buyer)
    assert (shown["refundable"], shown["days_used"]) == (4900, 0)
    refunded = await till.refund(buyer, order["id"])
    assert (refunded.status_code, refunded.json()["amount"], refunded.json()["segment_id"]) == (201, 4900, None)
    [event] = await till.api.emitted()
    assert isinstance(event, OrderRefunded)
    assert (event.kind, event.beneficiary_id, event.full, event.removes_time) == ("gift", None, True, True)
    answer = await redeem(till, order["gift_code"])
    assert (answer.status_code, answer.json()["code"]) == (409, "code_void")
    after = await till.read(buyer, order["id"])
    assert (after["status"], after["gift_code"], after["gift"]["status"]) == ("refunded", None, "void")


async def test_an_old_unredeemed_gift_is_given_back_in_full_by_an_admin(till: Till) -> None:
    buyer = new_id()
    order = await buy_gift(till, buyer)
    till.api.clock.advance(timedelta(days=400))
    assert (await preview(till, order["id"], buyer))["refundable"] == 0
    assert await preview(till, order["id"]) == {"refundable": 1990, "days_used": 0, "membership_after": None}
    assert (await till.refund(buyer, order["id"])).json()["code"] == "refund_window_over"
    assert (await till.admin_refund(order["id"])).json()["amount"] == 1990
    assert (await redeem(till, order["gift_code"])).json()["code"] == "code_void"


async def test_a_full_refund_after_redemption_takes_the_redeemer_s_segment(till: Till) -> None:
    buyer, friend = new_id(), new_id()
    order = await buy_gift(till, buyer)
    till.api.clock.advance(timedelta(days=2))
    segment = (await redeem(till, order["gift_code"], friend)).json()["segment"]
    till.api.clock.advance(timedelta(days=1, hours=1))
    await till.api.emitted()
    # Days count from the redemption; whose time it is and how long is the friend's own business.
    assert await preview(till, order["id"], buyer) == {"refundable": 1990, "days_used": 2, "membership_after": None}
    refunded = await till.refund(buyer, order["id"])
    assert (refunded.json()["status"], refunded.json()["segment_id"]) == ("succeeded", segment["id"])
    [event] = await till.api.emitted()
    assert isinstance(event, OrderRefunded)
    assert (event.kind, event.member_id, event.beneficiary_id) == ("gift", buyer, friend)
    assert (event.full, event.removes_time) == (True, True)
    assert (await redeem(till, order["gift_code"])).json()["code"] == "code_used"
    assert await till.balanced() == {"provider_receivable": 0, "deferred_revenue": 0}


async def test_a_part_or_an_admin_s_kindness_leaves_the_gift(till: Till) -> None:
    buyer, friend = new_id(), new_id()
    part, kept = await buy_gift(till, buyer), await buy_gift(till, buyer, plan_code="black-card-3m")
    assert (await till.refund(buyer, part["id"], amount=990)).json()["segment_id"] is None
    assert (await till.admin_refund(kept["id"], keep_time=True)).json()["amount"] == 4900
    assert (await till.read(buyer, kept["id"]))["gift_code"] == kept["gift_code"]
    for order in (part, kept):
        assert (await redeem(till, order["gift_code"], friend)).status_code == 201
    refunds = [event for event in await till.api.emitted() if isinstance(event, OrderRefunded)]
    assert [(event.full, event.removes_time) for event in refunds] == [(False, False), (True, False)]


async def test_after_the_window_a_redeemed_gift_is_worth_its_unused_days(till: Till) -> None:
    buyer, friend = new_id(), new_id()
    order = await buy_gift(till, buyer)
    till.api.clock.advance(timedelta(days=30))
    await redeem(till, order["gift_code"], friend)
    picture = await tell_time(till, friend, days=31, source_id=UUID(order["id"]))
    till.api.clock.advance(timedelta(days=9, hours=1))
    shown = await preview(till, order["id"])
    assert (shown["refundable"], shown["days_used"]) == (1990 * 21 // 31, 10)
    assert shown["membership_after"] is None
    assert picture.ends_at > clock.now()


async def test_a_gift_is_redeemed_before_its_refund_or_not_at_all(till: Till) -> None:
    for _ in range(6):
        buyer, friend = new_id(), new_id()
        order = await buy_gift(till, buyer)
        await till.api.emitted()
        refunded, *redeemed = await asyncio.gather(
            till.refund(buyer, order["id"]), *(redeem(till, order["gift_code"], friend) for _ in range(3))
        )
        assert refunded.json()["status"] == "succeeded"
        got = [answer for answer in redeemed if answer.status_code == 201]
        events = await till.api.emitted()
        [refund] = [event for event in events if isinstance(event, OrderRefunded)]
        assert (refund.full, refund.removes_time) == (True, True)
        if got:
            assert [type(event) for event in events] == [CodeRedeemed, OrderRefunded]
            assert refund.beneficiary_id == friend
        else:
            assert [type(event) for event in events] == [OrderRefunded]
            assert refund.beneficiary_id is None
            assert {answer.json()["code"] for answer in redeemed} == {"code_void"}


async def test_nobody_redeems_a_gift_whose_refund_is_under_way_unless_it_fails(till: Till) -> None:
    buyer = new_id()
    order = await buy_gift(till, buyer)
    await till.break_calls("error", match="/v1/refunds")
    assert (await till.refund(buyer, order["id"])).status_code == 503
    assert (await redeem(till, order["gift_code"])).json()["code"] == "code_void"
    assert await till.api.sql("SELECT status FROM redeem_code") == [("open",)]
    await till.api.sql("UPDATE refund SET status = 'failed'")
    assert (await redeem(till, order["gift_code"])).status_code == 201


async def test_a_disputed_gift_waits_and_a_dispute_won_makes_it_good_again(till: Till) -> None:
    buyer = new_id()
    order = await buy_gift(till, buyer)
    await till.api.sql("UPDATE \"order\" SET status = 'disputed'")
    held = await till.read(buyer, order["id"])
    assert (held["gift"]["status"], held["gift_code"]) == ("on_hold", order["gift_code"])
    assert (await redeem(till, order["gift_code"])).json()["code"] == "code_void"
    await till.api.sql("UPDATE \"order\" SET status = 'paid'")
    assert (await redeem(till, order["gift_code"])).status_code == 201


async def test_who_redeemed_a_gift_sees_it_in_their_export_without_its_code(till: Till) -> None:
    buyer, friend = new_id(), new_id()
    order = await buy_gift(till, buyer)
    await redeem(till, order["gift_code"], friend)
    for _ in range(2):
        held = (await till.client.get("/internal/export", headers=till.api.member(friend))).json()
        [row] = held["redeem_code"]
        assert (row["order_id"], row["status"], row["member_id"]) == (order["id"], "redeemed", str(friend))
        assert "code_hash" not in row
        # What was given stays on record, as orders do; nothing in it names anybody.
        await till.api.handle(MemberErased(member_id=friend))
    held = (await till.client.get("/internal/export", headers=till.api.member(buyer))).json()
    assert held["redeem_code"] == []
    assert order["gift_code"] not in str(held)
