"""Unknown outcomes are chased: after 1 minute, 5 minutes, 1 hour and then daily, until the provider says."""

from datetime import UTC, datetime, timedelta

from contracts.billing import OrderClosed, OrderPaid, OrderRefunded
from kit.ids import new_id
from services.billing.chasing import next_chase
from tests.services.billing.till import Till

LOST = 3
"""A call and the two that are made after it by themselves."""


def test_the_moments_of_a_chase() -> None:
    since = datetime(2026, 3, 1, 12, tzinfo=UTC)
    moments, now = [], since
    for _ in range(6):
        now = next_chase(since, now)
        moments.append(now - since)
    days = [timedelta(days=day) for day in (1, 2, 3)]
    assert moments == [timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1), *days]
    assert next_chase(since, since + timedelta(days=400, seconds=1)) == since + timedelta(days=401)


async def test_an_order_whose_session_was_lost_gets_it_by_itself(till: Till) -> None:
    member = new_id()
    await till.break_calls("drop", times=LOST)
    assert (await till.order(member)).status_code == 503
    assert await till.api.sql('SELECT session_id, session_open FROM "order"') == [(None, True)]
    till.api.clock.advance(timedelta(minutes=1))
    await till.api.run_due()
    (order,) = (await till.client.get("/v1/orders", headers=till.api.member(member))).json()["items"]
    assert await till.api.sql("SELECT count(*) FROM sandbox_session") == [(1,)]
    assert (await till.pay(order)).status_code == 200
    assert (await till.read(member, order["id"]))["status"] == "paid"


async def test_refresh_brings_an_order_the_session_that_was_lost(till: Till) -> None:
    member = new_id()
    await till.break_calls("drop", times=LOST)
    assert (await till.order(member)).status_code == 503
    (order,) = (await till.client.get("/v1/orders", headers=till.api.member(member))).json()["items"]
    assert order["checkout"] is None
    assert (await till.read(member, order["id"], refresh=True))["checkout"]["url"]
    assert await till.api.sql("SELECT count(*) FROM sandbox_session") == [(1,)]


async def test_a_session_nobody_knows_is_closed_with_its_canceled_order(till: Till) -> None:
    member = new_id()
    await till.break_calls("drop", times=LOST)
    assert (await till.order(member)).status_code == 503
    (order,) = (await till.client.get("/v1/orders", headers=till.api.member(member))).json()["items"]
    assert (await till.cancel(member, order["id"])).json()["status"] == "canceled"
    assert await till.api.sql("SELECT status FROM sandbox_session") == [("open",)]
    await till.api.run_due()
    assert await till.api.sql("SELECT status FROM sandbox_session") == [("expired",)]
    assert await till.api.sql('SELECT session_open, next_check_at FROM "order"') == [(False, None)]
    assert [type(event) for event in await till.api.emitted()] == [OrderClosed]
    assert await till.api.run_due() == 0


async def test_a_session_nobody_knows_is_closed_with_its_expired_order(till: Till) -> None:
    await till.break_calls("drop")
    assert (await till.order(new_id())).status_code == 503
    till.api.clock.advance(timedelta(minutes=30))
    await till.api.run_due()
    assert await till.api.sql('SELECT status, session_open FROM "order"') == [("expired", True)]
    await till.break_calls("drop", times=0)
    till.api.clock.advance(timedelta(minutes=1))
    await till.api.run_due()
    assert await till.api.sql("SELECT status FROM sandbox_session") == [("expired",)]
    assert await till.api.sql('SELECT session_open, next_check_at FROM "order"') == [(False, None)]


async def test_a_session_that_is_over_by_itself_is_not_asked_about(till: Till) -> None:
    await till.break_calls("error")
    assert (await till.order(new_id())).status_code == 503
    till.api.clock.advance(timedelta(hours=2))
    await till.api.run_due()
    assert await till.api.sql('SELECT status, session_open, next_check_at FROM "order"') == [("expired", False, None)]
    assert await till.api.sql("SELECT count(*) FROM sandbox_session") == [(0,)]


async def test_a_refund_is_chased_on_its_days_until_the_provider_says(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    await till.api.emitted()
    await till.break_calls("error", match="/v1/refunds", times=10_000)
    assert (await till.refund(member, order["id"])).status_code == 503
    tried = []
    for moment in (50, 70, 290, 310, 3590, 3610, 86_390, 86_410, 172_790, 172_810):
        asked = await till.api.sql("SELECT created_at + make_interval(secs => :s) FROM refund", s=moment)
        till.api.clock.set(asked[0][0])
        await till.api.run_due()
        tried.append((await till.api.sql("SELECT attempts FROM refund"))[0][0])
    assert tried == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert await till.api.sql("SELECT status FROM refund") == [("pending",)]
    await till.break_calls("error", times=0)
    till.api.clock.advance(timedelta(days=1))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "refunded"
    assert [type(event) for event in await till.api.emitted()] == [OrderRefunded]
    assert await till.api.sql("SELECT count(*) FROM sandbox_refund") == [(1,)]
    assert await till.api.run_due() == 0


async def test_a_failure_kept_under_a_refund_s_key_does_not_hide_that_it_was_made(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    await till.break_calls("drop", times=LOST, match="/v1/refunds")
    assert (await till.refund(member, order["id"])).status_code == 503
    await till.api.sql("UPDATE sandbox_idempotency SET status = 500, body = '{}' WHERE key LIKE 'refund-%'")
    await till.lose_webhooks()
    till.api.clock.advance(timedelta(minutes=1))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "refunded"
    assert await till.balanced() == {"provider_receivable": 0, "deferred_revenue": 0}


async def test_money_that_takes_weeks_is_found_without_a_webhook(till: Till) -> None:
    member = new_id()
    order = (await till.order(member, payment_method="alipay")).json()
    await till.lose_webhooks()
    await till.pay(order, settles_in="P10D")
    till.api.clock.advance(timedelta(minutes=31))
    await till.api.run_due()
    for _ in range(11):
        till.api.clock.advance(timedelta(days=1))
        await till.lose_webhooks()
        await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert [type(event) for event in await till.api.emitted()] == [OrderClosed, OrderPaid]
    assert await till.api.run_due() == 0
