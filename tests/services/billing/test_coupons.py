"""Coupons: on one live order at a time, spent with it, given back when it ends."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from contracts.billing import CouponRedeemed, CouponReleased, CouponReserved, OrderClosed, OrderPaid
from contracts.coupon import CouponClaims, sign
from contracts.referrals import CouponRevoked
from kit import clock
from kit.ids import new_id
from tests.harness import BEGINNING
from tests.services.billing.till import Till


async def test_a_coupon_lowers_the_price_and_is_spent_with_the_payment(till: Till) -> None:
    member = new_id()
    token = till.coupon(member)
    preview = await till.client.post(
        "/v1/orders/preview",
        json={"plan_code": "black-card-3m", "coupon_token": token},
        headers=till.api.member(member),
    )
    assert preview.status_code == 200, preview.text
    assert (preview.json()["subtotal"], preview.json()["discount"], preview.json()["total"]) == (4900, 500, 4400)
    assert preview.json()["coupon"]["discount"] == 500
    order = await till.buy(member, plan_code="black-card-3m", coupon_token=token)
    assert (order["discount"], order["total"]) == (500, 4400)
    told = await till.api.emitted()
    assert [type(event) for event in told] == [CouponReserved, CouponRedeemed, OrderPaid]
    again = await till.order(member, plan_code="black-card-1m", coupon_token=token)
    assert (again.status_code, again.json()["code"]) == (409, "coupon_used")
    assert await till.balanced() == {"provider_receivable": 4400, "deferred_revenue": -4400}


async def test_a_coupon_on_two_orders_at_once_is_on_one(till: Till) -> None:
    member = new_id()
    token = till.coupon(member)
    plans = ("black-card-1m", "black-card-3m", "black-card-12m")
    answers = await asyncio.gather(*(till.order(member, plan_code=plan, coupon_token=token) for plan in plans * 3))
    good = [answer for answer in answers if answer.status_code in (200, 201)]
    assert len({answer.json()["id"] for answer in good}) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"coupon_reserved"}
    assert await till.api.sql("SELECT count(*) FROM coupon_use") == [(1,)]
    assert await till.api.sql('SELECT count(*) FROM "order"') == [(1,)]
    assert [type(event) for event in await till.api.emitted()] == [CouponReserved]


async def test_canceling_frees_the_coupon_for_another_order(till: Till) -> None:
    member = new_id()
    token = till.coupon(member)
    order = (await till.order(member, coupon_token=token)).json()
    held = await till.order(member, plan_code="black-card-3m", coupon_token=token)
    assert (held.status_code, held.json()["code"]) == (409, "coupon_reserved")
    canceled = await till.cancel(member, order["id"])
    assert (canceled.status_code, canceled.json()["status"], canceled.json()["checkout"]) == (200, "canceled", None)
    twice = await till.cancel(member, order["id"])
    assert twice.json() == canceled.json()
    told = await till.api.emitted()
    assert [type(event) for event in told] == [CouponReserved, CouponReleased, OrderClosed]
    assert (await till.order(member, plan_code="black-card-3m", coupon_token=token)).status_code == 201
    closed = await till.pay(order)
    assert closed.status_code == 409


async def test_a_coupon_worth_the_whole_price_pays_at_once(till: Till) -> None:
    member = new_id()
    placed = await till.order(member, coupon_token=till.coupon(member, kind="percent", value=100))
    assert placed.status_code == 201
    order = placed.json()
    assert (order["status"], order["total"], order["checkout"]) == ("paid", 0, None)
    assert [type(event) for event in await till.api.emitted()] == [CouponReserved, CouponRedeemed, OrderPaid]
    assert await till.balanced() == {}
    refused = await till.refund(member, order["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing_refundable")


async def test_a_percentage_is_rounded_half_up_to_the_fen(till: Till) -> None:
    member = new_id()
    quoted = await till.client.post(
        "/v1/orders/preview",
        json={"plan_code": "black-card-1m", "coupon_token": till.coupon(member, kind="percent", value=33)},
        headers=till.api.member(member),
    )
    assert (quoted.json()["discount"], quoted.json()["total"]) == (657, 1333)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"member_id": new_id()}, 422, "coupon_foreign"),
        ({"ends_at": BEGINNING - timedelta(seconds=1)}, 409, "coupon_expired"),
        ({"starts_at": BEGINNING + timedelta(days=1)}, 409, "coupon_not_started"),
        ({"plan_codes": ("black-card-12m",)}, 422, "coupon_wrong_plan"),
        ({"min_amount": 1991}, 422, "coupon_below_minimum"),
    ],
)
async def test_a_coupon_that_does_not_apply_is_refused(
    till: Till, changes: dict[str, Any], status: int, code: str
) -> None:
    member = new_id()
    for path in ("/v1/orders/preview", "/v1/orders"):
        body = {"plan_code": "black-card-1m", "coupon_token": till.coupon(member, **changes)}
        if path == "/v1/orders":
            body["payment_method"] = "card"
        headers = till.api.member(member) | {"Idempotency-Key": str(new_id())}
        refused = await till.client.post(path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert await till.api.sql('SELECT count(*) FROM "order"') == [(0,)]
    assert await till.api.emitted() == []


@pytest.mark.parametrize("token", ["x", "a.b.c", "优惠券", "a" * 8000, "eyJhbGciOiJub25lIn0.e30."])
async def test_a_token_that_was_not_signed_by_us_is_refused(till: Till, token: str) -> None:
    refused = await till.order(new_id(), coupon_token=token)
    assert (refused.status_code, refused.json()["code"]) == (422, "coupon_invalid")


async def test_a_token_signed_with_another_key_is_refused(till: Till) -> None:
    member, now = new_id(), clock.now()
    claims = CouponClaims(
        id=new_id(),
        member_id=member,
        campaign_id=new_id(),
        title="x",
        kind="amount",
        value=500,
        min_amount=0,
        plan_codes=(),
        starts_at=now,
        ends_at=now + timedelta(days=1),
    )
    refused = await till.order(member, coupon_token=sign(claims, ["another key of thirty-two letters or more"]))
    assert (refused.status_code, refused.json()["code"]) == (422, "coupon_invalid")


async def test_a_revoked_coupon_takes_no_more_orders(till: Till) -> None:
    member, coupon = new_id(), new_id()
    revoked = CouponRevoked(coupon_id=coupon, member_id=member)
    await till.api.handle(revoked, revoked)
    refused = await till.order(member, coupon_token=till.coupon(member, id=coupon))
    assert (refused.status_code, refused.json()["code"]) == (422, "coupon_invalid")


async def test_a_late_payment_is_honoured_when_its_coupon_is_still_free(till: Till) -> None:
    member = new_id()
    token = till.coupon(member)
    order = (await till.order(member, coupon_token=token)).json()
    await till.cancel(member, order["id"])
    await till.tell("payment_intent.succeeded", _late(order))
    assert (await till.read(member, order["id"]))["status"] == "paid"
    told = [type(event) for event in await till.api.emitted()]
    assert told == [CouponReserved, CouponReleased, OrderClosed, CouponReserved, CouponRedeemed, OrderPaid]


async def test_a_late_payment_whose_coupon_is_gone_is_sent_back(till: Till) -> None:
    member = new_id()
    token = till.coupon(member)
    order = (await till.order(member, coupon_token=token)).json()
    await till.cancel(member, order["id"])
    await till.buy(member, plan_code="black-card-3m", coupon_token=token)
    await till.api.emitted()
    await till.tell("payment_intent.succeeded", _late(order))
    assert (await till.read(member, order["id"]))["status"] == "canceled"
    assert await till.api.emitted() == []
    seen = await till.client.get(f"/v1/admin/orders/{order['id']}", headers=till.api.admin("orders:read"))
    assert [payment["status"] for payment in seen.json()["payments"]] == ["surplus"]
    assert [refund["amount"] for refund in seen.json()["refunds"]] == [1490]
    await till.balanced()


def _late(order: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"pi_{new_id().hex}",
        "object": "payment_intent",
        "amount_received": order["total"],
        "currency": "cny",
        "metadata": {"order_id": order["id"]},
    }


async def test_a_coupon_can_be_spent_on_a_connection_that_has_spent_many(till: Till) -> None:
    for _ in range(12):
        member = new_id()
        assert (await till.order(member, coupon_token=till.coupon(member))).status_code == 201


async def test_a_coupon_of_fen_takes_nothing_off_a_price_in_another_currency(till: Till) -> None:
    member, admin = new_id(), till.api.admin("plans:write")
    plan = {"code": "dollar-card-1m", "name": "Black card", "months": 1, "amount": 999, "currency": "USD"}
    made = await till.client.post("/v1/admin/plans", json=plan | {"benefits": ["member_lessons"]}, headers=admin)
    assert made.status_code == 201, made.text
    coupons = (
        (till.coupon(member), 422, "coupon_wrong_plan"),
        (till.coupon(member, kind="percent", value=50, min_amount=1), 422, "coupon_wrong_plan"),
    )
    for token, status, code in coupons:
        wanted = {"plan_code": "dollar-card-1m", "coupon_token": token}
        quote = await till.client.post("/v1/orders/preview", json=wanted, headers=till.api.member(member))
        assert (quote.status_code, quote.json().get("code")) == (status, code), quote.text
    half = {"plan_code": "dollar-card-1m", "coupon_token": till.coupon(member, kind="percent", value=50)}
    quote = await till.client.post("/v1/orders/preview", json=half, headers=till.api.member(member))
    assert (quote.json()["discount"], quote.json()["total"], quote.json()["currency"]) == (500, 499, "USD")
    refused = await till.order(member, plan_code="dollar-card-1m", coupon_token=coupons[0][0])
    assert (refused.status_code, refused.json()["code"]) == (422, "coupon_wrong_plan")
