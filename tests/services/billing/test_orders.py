"""Orders: one open order a plan, prices kept, somebody else's not found."""

import asyncio
from typing import Any

import pytest

from contracts.billing import OrderClosed, OrderPaid
from kit.ids import new_id
from tests.services.billing.till import Till


async def test_an_order_is_placed_paid_and_told_once(till: Till) -> None:
    member = new_id()
    placed = await till.order(member)
    assert placed.status_code == 201, placed.text
    order = placed.json()
    assert (order["status"], order["subtotal"], order["discount"], order["total"]) == ("pending", 1990, 0, 1990)
    assert order["checkout"]["url"]
    assert (await till.pay(order)).status_code == 200
    paid = await till.read(member, order["id"])
    assert paid["status"] == "paid"
    assert paid["paid_at"] is not None
    assert paid["checkout"] is None
    (event,) = await till.api.emitted()
    assert isinstance(event, OrderPaid)
    assert (str(event.order_id), event.total, event.months, event.kind) == (order["id"], 1990, 1, "membership")
    assert event.fingerprint
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}
    assert await till.api.run_due() == 0


@pytest.mark.parametrize("method", ["card", "alipay", "wechat_pay"])
async def test_every_payment_method_pays(till: Till, method: str) -> None:
    order = await till.buy(new_id(), payment_method=method)
    assert order["payment_method"] == method


async def test_twenty_orders_at_once_are_one(till: Till) -> None:
    member = new_id()
    answers = await asyncio.gather(*(till.order(member) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({answer.json()["checkout"]["url"] for answer in answers}) == 1
    assert await till.api.sql('SELECT count(*) FROM "order"') == [(1,)]
    assert await till.api.sql("SELECT count(*) FROM sandbox_session") == [(1,)]


async def test_the_same_key_replays_the_same_order(till: Till) -> None:
    member, key = new_id(), str(new_id())
    first = await till.order(member, key=key)
    again = await till.order(member, key=key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await till.order(member, key=key, plan_code="black-card-3m")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_after_payment_the_plan_can_be_bought_again(till: Till) -> None:
    member = new_id()
    first = await till.buy(member)
    second = await till.buy(member)
    assert first["id"] != second["id"]
    assert first["number"] != second["number"]


async def test_an_order_keeps_the_price_it_was_quoted(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    changed = await till.client.patch(
        "/v1/admin/plans/black-card-1m", json={"amount": 2490}, headers=till.api.admin("plans:write")
    )
    assert (changed.status_code, changed.json()["amount"], changed.json()["version"]) == (200, 2490, 2)
    assert (await till.pay(order)).status_code == 200
    assert (await till.read(member, order["id"]))["total"] == 1990
    assert (await till.order(member)).json()["total"] == 2490


async def test_somebody_elses_order_is_not_found(till: Till) -> None:
    order = (await till.order(new_id())).json()
    stranger = till.api.member()
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/refund-preview")):
        answer = await till.client.request(method, f"/v1/orders/{order['id']}{path}", headers=stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found")
        nobody = await till.client.request(method, f"/v1/orders/{order['id']}{path}")
        assert nobody.status_code == 401
    assert (await till.client.get("/v1/orders", headers=stranger)).json() == {"items": [], "next_cursor": None}


async def test_the_list_goes_on_by_cursor_newest_first(till: Till) -> None:
    member = new_id()
    for plan in ("black-card-1m", "black-card-3m", "black-card-12m"):
        assert (await till.order(member, plan_code=plan)).status_code == 201
    headers = till.api.member(member)
    first = (await till.client.get("/v1/orders", params={"limit": 2}, headers=headers)).json()
    rest = (await till.client.get("/v1/orders", params={"cursor": first["next_cursor"]}, headers=headers)).json()
    codes = [order["plan_code"] for order in first["items"] + rest["items"]]
    assert codes == ["black-card-12m", "black-card-3m", "black-card-1m"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"plan_code": "no-such-plan"}, 404, "plan_not_found"),
        ({"auto_renew": True, "payment_method": "alipay"}, 422, "auto_renew_needs_card"),
        ({"auto_renew": True, "gift": True}, 422, "gift_not_renewed"),
        ({"payment_method": "cash"}, 422, "validation_failed"),
        ({"amount": 1}, 422, "validation_failed"),
        ({"auto_renew": "yes"}, 422, "validation_failed"),
        ({"plan_code": "a\u0000b"}, 422, "validation_failed"),
        ({"plan_code": ["black-card-1m"]}, 422, "validation_failed"),
        ({"success_url": "https://evil.test/"}, 422, "url_not_allowed"),
        ({"success_url": "https://h5.heika.test.evil.test/"}, 422, "url_not_allowed"),
        ({"success_url": "https://h5.heika.test@evil.test/"}, 422, "url_not_allowed"),
        ({"success_url": "https://evil.test\\@h5.heika.test/"}, 422, "url_not_allowed"),
        ({"success_url": "javascript:alert(1)"}, 422, "url_not_allowed"),
        ({"success_url": "//h5.heika.test/x"}, 422, "url_not_allowed"),
        ({"cancel_url": "http://h5.heika.test/"}, 422, "url_not_allowed"),
        ({"cancel_url": "https://[::1"}, 422, "url_not_allowed"),
        ({"cancel_url": "https://h5.heika.test:99999/"}, 422, "url_not_allowed"),
    ],
)
async def test_a_bad_order_is_refused_and_leaves_nothing(
    till: Till, body: dict[str, Any], status: int, code: str
) -> None:
    refused = await till.order(new_id(), **body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert await till.api.sql('SELECT count(*) FROM "order"') == [(0,)]
    assert await till.api.emitted() == []


async def test_checkout_returns_to_our_own_pages(till: Till) -> None:
    urls = {"success_url": "https://h5.heika.test/paid?x=1#y", "cancel_url": "https://h5.heika.test"}
    assert (await till.order(new_id(), **urls)).status_code == 201


async def test_an_order_needs_a_key(till: Till) -> None:
    body = {"plan_code": "black-card-1m", "payment_method": "card"}
    refused = await till.client.post("/v1/orders", json=body, headers=till.api.member())
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_required")
    nobody = await till.client.post("/v1/orders", json=body, headers={"Idempotency-Key": "k"})
    assert (nobody.status_code, nobody.json()["code"]) == (401, "not_authenticated")
    admin = till.api.admin() | {"Idempotency-Key": "k"}
    assert (await till.client.post("/v1/orders", json=body, headers=admin)).status_code == 403


async def test_a_paid_order_cannot_be_canceled(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    refused = await till.cancel(member, order["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "order_already_paid")


async def test_canceling_and_paying_at_once_ends_in_one_of_the_two(till: Till) -> None:
    for _ in range(5):
        member = new_id()
        order = (await till.order(member)).json()
        await till.api.emitted()
        _, paid = await asyncio.gather(till.cancel(member, order["id"]), till.pay(order))
        await till.api.run_due()
        after = await till.read(member, order["id"])
        told = [type(event) for event in await till.api.emitted()]
        if paid.status_code == 200:
            assert (after["status"], told) == ("paid", [OrderPaid])
        else:
            assert (after["status"], told) == ("canceled", [OrderClosed])


async def test_a_page_that_waits_hears_of_the_payment(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    headers = till.api.member(member)
    waiting = asyncio.create_task(till.client.get(f"/v1/orders/{order['id']}/events", headers=headers))
    await asyncio.sleep(0.1)
    await till.pay(order)
    answer = await asyncio.wait_for(waiting, 10)
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [frame for frame in answer.text.split("\n\n") if frame]
    assert [frame.splitlines()[1] for frame in frames] == ["event: status", "event: status"]
    assert '"status":"pending"' in frames[0]
    assert '"status":"paid"' in frames[1]
