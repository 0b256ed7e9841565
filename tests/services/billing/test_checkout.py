"""Checkout when things break: the provider away, webhooks lost, orders that nobody pays."""

import time
from datetime import timedelta

import pytest

from contracts.billing import CouponReleased, CouponReserved, OrderClosed, OrderPaid
from kit.ids import new_id
from services.billing import line
from tests.services.billing.till import Till


async def test_the_order_waits_for_a_provider_that_is_away_and_the_retry_goes_on(till: Till) -> None:
    member, key = new_id(), str(new_id())
    await till.break_calls("error")
    away = await till.order(member, key=key)
    assert (away.status_code, away.json()["code"]) == (503, "payment_provider_unavailable")
    assert 1 <= int(away.headers["Retry-After"]) <= 10
    (kept,) = (await till.client.get("/v1/orders", headers=till.api.member(member))).json()["items"]
    assert (kept["status"], kept["checkout"]) == ("pending", None)
    await till.break_calls("error", times=0)
    retried = await till.order(member, key=key)
    assert (retried.status_code, retried.json()["id"]) == (201, kept["id"])
    assert (await till.pay(retried.json())).status_code == 200
    assert (await till.read(member, kept["id"]))["status"] == "paid"


async def test_an_answer_that_was_lost_is_the_same_session_at_the_retry(till: Till) -> None:
    member, key = new_id(), str(new_id())
    await till.break_calls("drop", times=3)
    assert (await till.order(member, key=key)).status_code == 503
    assert (await till.order(member, key=key)).status_code == 201
    assert await till.api.sql("SELECT count(*) FROM sandbox_session") == [(1,)]


async def test_a_provider_that_hangs_is_given_up_in_time(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    assert line.DEADLINE_S < 10
    monkeypatch.setattr(line, "DEADLINE_S", 1.0)
    await till.break_calls("hang", seconds=30.0)
    started = time.monotonic()
    answer = await till.order(new_id())
    assert (answer.status_code, answer.json()["code"]) == (503, "payment_provider_unavailable")
    assert time.monotonic() - started < line.CALL_S


async def test_an_unpaid_order_expires_with_its_session_and_frees_its_coupon(till: Till) -> None:
    member = new_id()
    order = (await till.order(member, coupon_token=till.coupon(member))).json()
    till.api.clock.advance(timedelta(minutes=29))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "pending"
    till.api.clock.advance(timedelta(minutes=2))
    await till.api.run_due()
    expired = await till.read(member, order["id"])
    assert (expired["status"], expired["checkout"]) == ("expired", None)
    told = await till.api.emitted()
    assert [type(event) for event in told] == [CouponReserved, CouponReleased, OrderClosed]
    assert await till.api.sql("SELECT status FROM sandbox_session") == [("expired",)]
    assert (await till.pay(order)).status_code == 409
    assert await till.api.run_due() == 0
    assert await till.api.emitted() == []


async def test_an_order_without_a_session_expires_too(till: Till) -> None:
    member = new_id()
    await till.break_calls("error")
    assert (await till.order(member)).status_code == 503
    till.api.clock.advance(timedelta(minutes=31))
    await till.api.run_due()
    (kept,) = (await till.client.get("/v1/orders", headers=till.api.member(member))).json()["items"]
    assert kept["status"] == "expired"
    assert [type(event) for event in await till.api.emitted()] == [OrderClosed]


async def test_an_order_does_not_expire_unseen_while_the_provider_is_away(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.break_calls("error")
    till.api.clock.advance(timedelta(minutes=30))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "pending"
    await till.break_calls("error", times=0)
    till.api.clock.advance(timedelta(minutes=1))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "expired"


async def test_a_payment_whose_webhook_is_lost_is_found_within_two_minutes(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.lose_webhooks()
    assert (await till.pay(order)).status_code == 200
    assert (await till.read(member, order["id"]))["status"] == "pending"
    till.api.clock.advance(timedelta(minutes=2))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "paid"
    (event,) = await till.api.emitted()
    assert isinstance(event, OrderPaid)
    assert event.fingerprint
    # The webhook that comes after all changes nothing.
    till.api.clock.advance(timedelta(days=1))
    await till.api.run_due()
    assert await till.api.emitted() == []
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}


async def test_refresh_asks_the_provider_now(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.lose_webhooks()
    await till.pay(order)
    assert (await till.read(member, order["id"]))["status"] == "pending"
    assert (await till.read(member, order["id"], refresh=True))["status"] == "paid"


async def test_refresh_while_the_provider_is_away_changes_nothing(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.break_calls("error")
    path = f"/v1/orders/{order['id']}?refresh=true"
    answer = await till.client.get(path, headers=till.api.member(member))
    assert (answer.status_code, answer.json()["code"]) == (503, "payment_provider_unavailable")
    assert (await till.read(member, order["id"])) == order


async def test_a_payment_that_came_before_the_cancel_wins(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.lose_webhooks()
    await till.pay(order)
    answer = await till.cancel(member, order["id"])
    assert (answer.status_code, answer.json()["status"]) == (200, "paid")
    assert [type(event) for event in await till.api.emitted()] == [OrderPaid]


async def test_a_webhook_that_comes_while_the_provider_is_away_is_handled_later(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.break_calls("error", match="/v1/payment_intents", times=3)
    await till.pay(order)
    assert (await till.read(member, order["id"]))["status"] == "pending"
    till.api.clock.advance(timedelta(seconds=50))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "paid"


async def test_a_due_order_makes_room_for_a_new_one_before_any_job_has_run(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    till.api.clock.advance(timedelta(minutes=31))
    again = await till.order(member)
    assert again.status_code == 201
    assert again.json()["id"] != order["id"]
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "expired"
    assert (await till.read(member, again.json()["id"]))["status"] == "pending"
    assert (await till.pay(order)).status_code == 409


async def test_an_order_with_a_parked_payment_expires_and_is_left_alone(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.lose_webhooks()
    await till.pay(order)
    await till.api.sql("UPDATE sandbox_session SET amount_total = 1")
    till.api.clock.advance(timedelta(minutes=2))
    await till.api.run_due()
    seen = await till.client.get(f"/v1/admin/orders/{order['id']}", headers=till.api.admin("orders:read"))
    assert [payment["status"] for payment in seen.json()["payments"]] == ["parked"]
    till.api.clock.advance(timedelta(minutes=30))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "expired"
    assert [type(event) for event in await till.api.emitted()] == [OrderClosed]
    assert await till.api.sql('SELECT next_check_at FROM "order"') == [(None,)]
    await till.balanced()


async def test_money_that_settles_after_the_order_expired_is_found_without_a_webhook(till: Till) -> None:
    member = new_id()
    order = (await till.order(member, payment_method="alipay")).json()
    await till.lose_webhooks()
    assert (await till.pay(order, settles_in="PT2H")).json()["payment_status"] == "unpaid"
    till.api.clock.advance(timedelta(minutes=31))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "expired"
    till.api.clock.advance(timedelta(hours=2))
    await till.api.run_due()
    till.api.clock.advance(timedelta(minutes=16))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert [type(event) for event in await till.api.emitted()] == [OrderClosed, OrderPaid]
    assert await till.api.sql('SELECT next_check_at FROM "order"') == [(None,)]
