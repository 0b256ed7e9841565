"""Course orders: the price courses told, bought once whatever happens at once, given back in full."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.billing import OrderClosed, OrderPaid, OrderRefunded
from contracts.courses import CourseChanged
from contracts.members import MemberErased, MemberMerged
from kit import clock
from kit.ids import new_id
from tests.services.billing.till import Till


async def sold(till: Till, *, amount: int | None = 9900, version: int = 1, **fields: Any) -> UUID:
    """A course that courses has told of."""
    usual: dict[str, Any] = {"course_id": new_id(), "title": "千层酥皮", "access": "paid", "published": True}
    event = CourseChanged.model_validate(usual | {"amount": amount, "version": version} | fields)
    await till.api.handle(event)
    return event.course_id


async def order(till: Till, member: UUID, course: UUID, **body: Any) -> Any:
    return await till.order(member, plan_code=None, course_id=str(course), **body)


async def bought(till: Till, member: UUID, course: UUID, **body: Any) -> dict[str, Any]:
    return await till.buy(member, plan_code=None, course_id=str(course), **body)


async def preview(till: Till, member: UUID, **body: Any) -> Any:
    return await till.client.post("/v1/orders/preview", json=body, headers=till.api.member(member))


async def test_a_course_is_quoted_ordered_and_paid_at_the_price_told(till: Till) -> None:
    member, course = new_id(), await sold(till)
    quoted = await preview(till, member, course_id=str(course))
    assert (quoted.status_code, quoted.json()) == (
        200,
        {"subtotal": 9900, "discount": 0, "total": 9900, "currency": "CNY", "coupon": None, "membership_after": None},
    )
    placed = await order(till, member, course, payment_method="wechat_pay")
    assert placed.status_code == 201, placed.text
    body = placed.json()
    assert (body["kind"], body["plan_code"], body["course_id"], body["total"]) == ("course", None, str(course), 9900)
    # The price rises while the order is open: it keeps the one it was quoted.
    await sold(till, course_id=course, amount=12900, version=2)
    await till.pay(body)
    assert (await till.read(member, body["id"]))["status"] == "paid"
    [paid] = await till.api.emitted()
    assert isinstance(paid, OrderPaid)
    assert (paid.kind, paid.course_id, paid.plan_code, paid.months, paid.benefits) == ("course", course, None, 0, ())
    assert (paid.subtotal, paid.total) == (9900, 9900)
    assert await till.balanced() == {"provider_receivable": 9900, "deferred_revenue": -9900}
    receipt = await till.client.get(f"/v1/orders/{body['id']}/receipt", headers=till.api.member(member))
    assert "千层酥皮" in receipt.text
    listed = await till.client.get("/v1/orders", headers=till.api.member(member))
    assert [item["course_id"] for item in listed.json()["items"]] == [str(course)]
    admin = till.api.admin("orders:read")
    shown = (await till.client.get(f"/v1/admin/orders/{body['id']}", headers=admin)).json()
    assert (shown["plan_version"], shown["plan_code"], len(shown["payments"])) == (None, None, 1)
    assert await till.api.run_due() == 0


async def test_exactly_one_thing_is_bought_and_only_what_is_on_sale(till: Till) -> None:
    member, course = new_id(), await sold(till)
    for body in ({}, {"plan_code": "black-card-1m", "course_id": str(course)}, {"course_id": "千层"}, {"course_id": 7}):
        assert (await preview(till, member, **body)).status_code == 422
        headers = till.api.member(member) | {"Idempotency-Key": str(new_id())}
        wanted = body | {"payment_method": "card"}
        assert (await till.client.post("/v1/orders", json=wanted, headers=headers)).status_code == 422
    cases = [
        (new_id(), 404, "course_not_found"),
        (await sold(till, published=False), 404, "course_not_found"),
        (await sold(till, access="free", amount=None), 409, "course_not_on_sale"),
        (await sold(till, access="member", amount=None), 409, "course_not_on_sale"),
    ]
    for unsold, status, code in cases:
        for refused in (await order(till, member, unsold), await preview(till, member, course_id=str(unsold))):
            assert (refused.status_code, refused.json()["code"]) == (status, code)
    for extra in ({"gift": True}, {"auto_renew": True}):
        refused = await order(till, member, course, **extra)
        assert (refused.status_code, refused.json()["code"]) == (422, "course_for_oneself")
    assert (await till.client.post("/v1/orders/preview", json={"course_id": str(course)})).status_code == 401
    assert await till.api.sql('SELECT 1 FROM "order"') == []


async def test_a_coupon_is_for_plans_and_stays_free(till: Till) -> None:
    member, course = new_id(), await sold(till)
    for codes in ((), ("black-card-1m",)):
        token = till.coupon(member, plan_codes=codes)
        refused = await order(till, member, course, coupon_token=token)
        assert (refused.status_code, refused.json()["code"]) == (422, "coupon_wrong_plan")
        assert (await preview(till, member, plan_code="black-card-1m", coupon_token=token)).status_code == 200
    assert await till.api.emitted() == []


async def test_news_of_a_course_counts_by_version_in_any_order(till: Till) -> None:
    member, course = new_id(), await sold(till, version=3, amount=300)
    await sold(till, course_id=course, version=2, amount=200)
    await sold(till, course_id=course, version=3, amount=999)
    assert (await preview(till, member, course_id=str(course))).json()["total"] == 300
    await sold(till, course_id=course, version=4, published=False)
    assert (await preview(till, member, course_id=str(course))).status_code == 404


async def test_a_second_open_order_is_the_first_and_a_bought_course_is_not_sold_again(till: Till) -> None:
    member, course = new_id(), await sold(till)
    answers = await asyncio.gather(*(order(till, member, course) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await order(till, member, await sold(till))
    assert (other.status_code, other.json()["id"] != answers[0].json()["id"]) == (201, True)
    await till.pay(answers[0].json())
    for refused in (await order(till, member, course), await preview(till, member, course_id=str(course))):
        assert (refused.status_code, refused.json()["code"]) == (409, "course_already_bought")
    assert (await order(till, new_id(), course)).status_code == 201


async def test_money_for_a_course_one_has_goes_back_by_itself(till: Till) -> None:
    member, course = new_id(), await sold(till)
    first = (await order(till, member, course)).json()
    # The first expires unseen, the second is paid; then the first one's payment turns out to have succeeded, too.
    await till.lose_webhooks()
    await till.pay(first)
    await till.api.sql(
        "UPDATE \"order\" SET status = 'expired', closed_at = :now, next_check_at = NULL", now=clock.now()
    )
    await till.client.put("/v1/sandbox/faults", json={"faults": []})
    second = await bought(till, member, course)
    await till.api.emitted()
    await till.api.sql('UPDATE "order" SET next_check_at = :now WHERE id = :id', now=clock.now(), id=UUID(first["id"]))
    await till.api.run_due()
    assert (await till.read(member, first["id"]))["status"] == "expired"
    assert (await till.read(member, second["id"]))["status"] == "paid"
    [(status, reason)] = await till.api.sql(
        "SELECT status, reason FROM payment WHERE order_id = :id", id=UUID(first["id"])
    )
    assert (status, reason) == ("surplus", "course_bought_before")
    assert await till.api.sql("SELECT amount, status FROM refund") == [(9900, "succeeded")]
    assert await till.balanced() == {"provider_receivable": 9900, "deferred_revenue": -9900, "refunds_payable": 0}
    assert await till.api.emitted() == []
    assert await till.api.run_due() == 0


async def test_an_open_order_for_a_course_bought_meanwhile_is_closed_with_its_money_returned(till: Till) -> None:
    member, course = new_id(), await sold(till)
    open_order = (await order(till, member, course)).json()
    # As when two accounts became one: the member has the course through an order of the other account.
    other = await bought(till, other_member := new_id(), course)
    await till.api.handle(MemberMerged(kept_id=member, merged_id=other_member))
    await till.api.emitted()
    await till.pay(open_order)
    await till.api.run_due()
    assert (await till.read(member, open_order["id"]))["status"] == "canceled"
    assert (await till.read(member, other["id"]))["status"] == "paid"
    assert await till.api.sql("SELECT amount, status, cause FROM refund") == [(9900, "succeeded", "surplus")]
    [closed] = await till.api.emitted()
    assert isinstance(closed, OrderClosed)
    assert await till.api.run_due() == 0


async def test_a_course_is_given_back_in_full_in_time_and_can_be_bought_again(till: Till) -> None:
    member, course = new_id(), await sold(till)
    first = await bought(till, member, course)
    await till.api.emitted()
    till.api.clock.advance(timedelta(days=6, hours=23))
    path = f"/v1/orders/{first['id']}/refund-preview"
    previewed = (await till.client.post(path, headers=till.api.member(member))).json()
    assert previewed == {"refundable": 9900, "days_used": 7, "membership_after": None}
    refunded = await till.refund(member, first["id"])
    assert (refunded.status_code, refunded.json()["amount"], refunded.json()["segment_id"]) == (201, 9900, None)
    [event] = await till.api.emitted()
    assert isinstance(event, OrderRefunded)
    assert (event.kind, event.full, event.removes_time) == ("course", True, True)
    assert await till.balanced() == {"provider_receivable": 0, "deferred_revenue": 0}
    await bought(till, member, course)


async def test_after_the_window_an_admin_gives_back_all_or_a_part(till: Till) -> None:
    member, course = new_id(), await sold(till)
    first = await bought(till, member, course)
    till.api.clock.advance(timedelta(days=40))
    refused = await till.refund(member, first["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "refund_window_over")
    path = f"/v1/admin/orders/{first['id']}/refund-preview"
    previewed = (await till.client.post(path, headers=till.api.admin("orders:read"))).json()
    assert previewed == {"refundable": 9900, "days_used": 41, "membership_after": None}
    assert (await till.admin_refund(first["id"], amount=1000)).json()["amount"] == 1000
    # A part keeps the course; so does all of it, where an admin lets the member keep it.
    assert (await order(till, member, course)).json()["code"] == "course_already_bought"
    assert (await till.admin_refund(first["id"], keep_time=True)).json()["amount"] == 8900
    assert (await till.read(member, first["id"]))["status"] == "refunded"
    assert (await order(till, member, course)).json()["code"] == "course_already_bought"


@pytest.mark.parametrize("refunds_kept", [True, False])
async def test_of_two_accounts_that_bought_one_course_either_order_keeps_it(till: Till, *, refunds_kept: bool) -> None:
    kept, merged, course = new_id(), new_id(), await sold(till)
    mine, theirs = await bought(till, kept, course), await bought(till, merged, course)
    await till.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    listed = (await till.client.get("/v1/orders", headers=till.api.member(kept))).json()["items"]
    assert {item["id"] for item in listed} == {mine["id"], theirs["id"]}
    first, second = (mine, theirs) if refunds_kept else (theirs, mine)
    assert (await till.refund(kept, first["id"])).status_code == 201
    assert (await order(till, kept, course)).json()["code"] == "course_already_bought"
    assert (await till.refund(kept, second["id"])).status_code == 201
    assert (await order(till, kept, course)).status_code == 201


async def test_two_open_orders_for_one_course_survive_a_merge(till: Till) -> None:
    kept, merged, course = new_id(), new_id(), await sold(till)
    mine, theirs = (await order(till, kept, course)).json(), (await order(till, merged, course)).json()
    await till.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    await till.pay(mine)
    assert (await till.read(kept, mine["id"]))["status"] == "paid"
    # The other account's page was still open: its money is the same person's, and goes back.
    await till.pay(theirs)
    await till.api.run_due()
    assert (await till.read(kept, mine["id"]))["status"] == "paid"
    assert await till.api.sql("SELECT amount, status, cause FROM refund") == [(9900, "succeeded", "surplus")]
    await till.api.handle(MemberErased(member_id=kept))
    held = await till.api.sql("SELECT member_id, order_id FROM course_holding")
    assert held == [(kept, UUID(mine["id"]))]


@pytest.mark.parametrize(("outcome", "again"), [("won", 409), ("lost", 201)])
async def test_a_disputed_course_is_not_sold_twice_until_the_dispute_is_lost(
    till: Till, outcome: str, again: int
) -> None:
    member, course = new_id(), await sold(till)
    first = await bought(till, member, course)
    invoice = {"title": "福州烘焙有限公司", "email": "finance@example.com"}
    path = f"/v1/orders/{first['id']}/invoice-requests"
    request = (await till.client.post(path, json=invoice, headers=till.api.member(member))).json()
    await till.client.post(
        f"/v1/admin/invoice-requests/{request['id']}/resolution",
        json={"decision": "issue", "number": "1"},
        headers=till.api.admin("orders:write"),
    )
    for step in ("opened", outcome):
        body = {"order_id": first["id"], "outcome": step}
        assert (await till.client.post("/v1/sandbox/disputes", json=body)).status_code == 200
        await till.api.run_due()
        if step == "opened":
            assert (await order(till, member, course)).json()["code"] == "course_already_bought"
    assert (await order(till, member, course)).status_code == again
    [seen] = (await till.client.get(path, headers=till.api.member(member))).json()["items"]
    assert seen["needs_red_letter"] is (outcome == "lost")
