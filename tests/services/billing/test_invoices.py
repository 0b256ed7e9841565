"""Invoices: asked for once, over what is left, worked off by accountants; refunds are never lost on the way."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.members import MemberErased, MemberMerged
from contracts.notices import BillingNoticeWanted
from kit.ids import new_id
from services.billing.tax_ids import is_doubtful, tidy_tax_id
from tests.services.billing.till import Till

# The example of GB 32100-2015 itself, and a company's published one.
TAX_ID = "91350100M000100Y43"
COMPANY = {"title": "福州烘焙有限公司", "tax_id": TAX_ID, "email": "billing@example.com"}


async def ask(till: Till, member: UUID, order_id: str, **changes: Any) -> httpx.Response:
    path = f"/v1/orders/{order_id}/invoice-requests"
    return await till.client.post(path, json=COMPANY | changes, headers=till.api.member(member))


async def mine(till: Till, member: UUID, order_id: str) -> list[dict[str, Any]]:
    answer = await till.client.get(f"/v1/orders/{order_id}/invoice-requests", headers=till.api.member(member))
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def admin_list(till: Till, **filters: Any) -> list[dict[str, Any]]:
    headers = till.api.admin("orders:read")
    answer = await till.client.get("/v1/admin/invoice-requests", params=filters, headers=headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def resolve(till: Till, request_id: str, **body: Any) -> httpx.Response:
    path = f"/v1/admin/invoice-requests/{request_id}/resolution"
    return await till.client.post(path, json=body, headers=till.api.admin("orders:write"))


async def issue(till: Till, request_id: str, number: str = "25312000000012345678") -> httpx.Response:
    return await resolve(till, request_id, decision="issue", number=number)


async def red_letter(till: Till, request_id: str, number: str = "25312000000087654321") -> httpx.Response:
    path = f"/v1/admin/invoice-requests/{request_id}/red-letter"
    return await till.client.post(path, json={"number": number}, headers=till.api.admin("orders:write"))


async def test_an_invoice_is_asked_for_issued_and_seen(till: Till) -> None:
    member = new_id()
    order = await till.buy(member, coupon_token=till.coupon(member))
    asked = await ask(till, member, order["id"], tax_id=" 91350100 m000100y43 ")
    assert asked.status_code == 201, asked.text
    request = asked.json()
    assert request.pop("created_at").endswith("Z")
    assert request == {
        "id": request["id"],
        "order_id": order["id"],
        "state": "requested",
        "title": "福州烘焙有限公司",
        "tax_id": TAX_ID,
        "email": "billing@example.com",
        "amount": 1490,
        "currency": "CNY",
        "number": None,
        "reason": None,
        "needs_red_letter": False,
        "resolved_at": None,
    }
    await till.api.emitted()
    [listed] = await admin_list(till, status="requested")
    assert (listed["order_number"], listed["member_id"], listed["item"]) == (order["number"], str(member), "黑卡月卡")
    issued = await issue(till, request["id"])
    assert (issued.status_code, issued.json()["state"]) == (200, "issued")
    assert issued.json()["number"] == "25312000000012345678"
    [notice] = await till.api.emitted()
    assert isinstance(notice, BillingNoticeWanted)
    assert (notice.member_id, notice.kind, order["number"] in notice.body_zh) == (member, "invoice_issued", True)
    [act] = await till.api.acted()
    assert (act.action, act.target) == ("invoice.resolved", request["id"])
    assert act.after is not None
    assert (act.after["state"], act.after["number"]) == ("issued", "25312000000012345678")
    [seen] = await mine(till, member, order["id"])
    assert (seen["state"], seen["number"], seen["resolved_at"] is not None) == ("issued", "25312000000012345678", True)
    for again in (await issue(till, request["id"]), await resolve(till, request["id"], decision="reject", reason="x")):
        assert (again.status_code, again.json()["code"]) == (409, "invoice_already_resolved")
    assert await admin_list(till, status="requested") == []
    assert await till.api.emitted() == []


async def test_one_order_has_one_live_request_however_many_ask(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    answers = await asyncio.gather(*(ask(till, member, order["id"]) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"invoice_already_requested"}
    [request] = await mine(till, member, order["id"])
    rejected = await resolve(till, request["id"], decision="reject", reason="抬头与税号不符")
    assert (rejected.status_code, rejected.json()["reason"]) == (200, "抬头与税号不符")
    assert (await ask(till, member, order["id"])).status_code == 201
    assert [item["state"] for item in await mine(till, member, order["id"])] == ["requested", "rejected"]


async def test_there_is_no_invoice_over_nothing(till: Till) -> None:
    member = new_id()
    unpaid = (await till.order(member)).json()
    free = (await till.order(member, plan_code="black-card-3m", coupon_token=till.coupon(member, value=4900))).json()
    assert (free["status"], free["total"]) == ("paid", 0)
    returned = await till.buy(member, plan_code="black-card-12m")
    assert (await till.refund(member, returned["id"])).status_code == 201
    for order in (unpaid, free, returned):
        refused = await ask(till, member, order["id"])
        assert (refused.status_code, refused.json()["code"]) == (409, "nothing_to_invoice")
        assert await mine(till, member, order["id"]) == []


async def test_a_request_follows_refunds_until_it_is_issued(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    assert (await ask(till, member, order["id"])).json()["amount"] == 1990
    await till.refund(member, order["id"], amount=490)
    [request] = await mine(till, member, order["id"])
    assert (request["amount"], request["state"], request["needs_red_letter"]) == (1500, "requested", False)
    await till.refund(member, order["id"], amount=1500)
    [request] = await mine(till, member, order["id"])
    assert (request["amount"], request["state"]) == (0, "rejected")
    assert "全额退款" in request["reason"]
    refused = await issue(till, request["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "invoice_already_resolved")


async def test_a_refund_after_the_invoice_needs_a_red_letter_and_then_a_new_invoice(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    request = (await ask(till, member, order["id"])).json()
    refused = await red_letter(till, request["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "red_letter_not_needed")
    await issue(till, request["id"])
    assert await admin_list(till, needs_red_letter=True) == []
    await till.refund(member, order["id"], amount=990)
    [flagged] = await admin_list(till, needs_red_letter=True)
    assert (flagged["id"], flagged["state"], flagged["amount"]) == (request["id"], "issued", 1990)
    assert (await ask(till, member, order["id"])).json()["code"] == "invoice_already_requested"
    taken_back = await red_letter(till, request["id"])
    assert (taken_back.status_code, taken_back.json()["red_letter_number"]) == (200, "25312000000087654321")
    assert (await red_letter(till, request["id"])).json()["code"] == "red_letter_not_needed"
    again = (await ask(till, member, order["id"])).json()
    assert (again["amount"], again["state"]) == (1000, "requested")
    # A number names one invoice; a second use of it is a slip, and nothing is changed by it.
    slip = await issue(till, again["id"])
    assert (slip.status_code, slip.json()["code"]) == (409, "invoice_number_taken")
    assert [item["state"] for item in await mine(till, member, order["id"])] == ["requested", "issued"]
    assert (await issue(till, again["id"], number="25312000000000000002")).status_code == 200


async def test_a_refund_and_an_issue_at_once_leave_no_invoice_over_too_much(till: Till) -> None:
    for turn in range(4):
        member = new_id()
        order = await till.buy(member)
        request = (await ask(till, member, order["id"])).json()
        issued, refunded = await asyncio.gather(
            issue(till, request["id"], number=f"N{turn}"),
            till.refund(member, order["id"], amount=990),
        )
        assert (issued.status_code, refunded.status_code) == (200, 201)
        [seen] = await mine(till, member, order["id"])
        assert (seen["amount"], seen["needs_red_letter"]) in ((1000, False), (1990, True))


async def test_only_the_buyer_asks_and_only_accountants_resolve(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    assert (await ask(till, new_id(), order["id"])).status_code == 404
    path = f"/v1/orders/{order['id']}/invoice-requests"
    assert (await till.client.post(path, json=COMPANY)).status_code == 401
    assert (await till.client.get(path, headers=till.api.member())).status_code == 404
    request = (await ask(till, member, order["id"])).json()
    admin_path = f"/v1/admin/invoice-requests/{request['id']}"
    body = {"decision": "issue", "number": "1"}
    for headers, status in (({}, 401), (till.api.member(member), 403), (till.api.admin("orders:read"), 403)):
        assert (await till.client.post(f"{admin_path}/resolution", json=body, headers=headers)).status_code == status
        red = await till.client.post(f"{admin_path}/red-letter", json={"number": "1"}, headers=headers)
        assert red.status_code == status
    for headers, status in (({}, 401), (till.api.member(member), 403), (till.api.admin("plans:read"), 403)):
        assert (await till.client.get(admin_path, headers=headers)).status_code == status
        assert (await till.client.get("/v1/admin/invoice-requests", headers=headers)).status_code == status
    assert (await issue(till, str(new_id()))).status_code == 404
    [seen] = await mine(till, member, order["id"])
    assert seen["state"] == "requested"


@pytest.mark.parametrize(
    "changes",
    [
        {"title": " "},
        {"title": "长" * 101},
        {"title": None},
        {"email": "nobody"},
        {"email": "a@b"},
        {"email": "a@b.c, d@e.f"},
        {"email": "a b@c.de"},
        {"email": "x" * 250 + "@b.cd"},
        {"tax_id": "91350100-000100Y43"},
        {"tax_id": "91350100M000100Y4"},
        {"tax_id": ""},
        {"tax_id": "9135\u0000"},
        {"phone": "1"},
    ],
)
async def test_a_bad_request_is_refused(till: Till, changes: dict[str, Any]) -> None:
    # No payment is needed for this: what is wrong with the body comes first.
    member = new_id()
    order = (await till.order(member)).json()
    answer = await ask(till, member, order["id"], **changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "issue"},
        {"decision": "reject"},
        {"decision": "issue", "number": "编号"},
        {"decision": "issue", "number": "1", "reason": "x"},
        {"decision": "reject", "reason": "x", "number": "1"},
        {"decision": "hold", "reason": "x"},
    ],
)
async def test_a_bad_resolution_is_refused(till: Till, body: dict[str, Any]) -> None:
    assert (await resolve(till, str(new_id()), **body)).status_code in (404, 422)
    member = new_id()
    order = await till.buy(member)
    request = (await ask(till, member, order["id"])).json()
    answer = await resolve(till, request["id"], **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


async def test_invoices_follow_a_merge_and_an_erasure_ends_wishes(till: Till) -> None:
    kept, merged = new_id(), new_id()
    first, second = await till.buy(merged), await till.buy(merged, plan_code="black-card-3m")
    issued = (await ask(till, merged, first["id"])).json()
    await issue(till, issued["id"])
    await ask(till, merged, second["id"])
    await till.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    assert [item["state"] for item in await mine(till, kept, first["id"])] == ["issued"]
    await till.api.handle(MemberErased(member_id=kept), MemberErased(member_id=kept))
    rows = await till.api.sql("SELECT state, title, tax_id, email FROM invoice_request ORDER BY created_at")
    assert rows == [("issued", COMPANY["title"], TAX_ID, ""), ("rejected", "", None, "")]


@pytest.mark.parametrize(
    "tax_id", ["91350100M000100Y43", "914403001922038216", "350100000123456", "35010019800101123X00"]
)
def test_good_taxpayer_numbers_pass(tax_id: str) -> None:
    assert tidy_tax_id(tax_id.lower()) == tax_id
    assert not is_doubtful(tax_id)


@given(st.integers(0, 17), st.sampled_from("0123456789ABCDEFGHJKLMNPQRTUWXY"))
def test_any_single_slip_in_a_unified_code_is_noticed(place: int, letter: str) -> None:
    slipped = TAX_ID[:place] + letter + TAX_ID[place + 1 :]
    assert is_doubtful(slipped) == (slipped != TAX_ID)


async def test_a_number_that_looks_mistyped_is_taken_and_marked_for_who_issues(till: Till) -> None:
    member = new_id()
    for tax_id, doubtful in (("91350100M000100Y44", True), (TAX_ID, False), (None, False)):
        order = await till.buy(member)
        asked = await ask(till, member, order["id"], tax_id=tax_id)
        assert (asked.status_code, asked.json()["tax_id"]) == (201, tax_id)
        listed = await till.client.get("/v1/admin/invoice-requests", headers=till.api.admin("orders:read"))
        assert (listed.json()["items"][0]["tax_id"], listed.json()["items"][0]["tax_id_doubtful"]) == (tax_id, doubtful)
