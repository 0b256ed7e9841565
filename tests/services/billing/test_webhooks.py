"""Webhooks: only what was signed just now, stored once, the same result in any order and any number."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from contracts.billing import OrderClosed, OrderPaid
from kit import clock
from kit.ids import new_id
from services.billing import provider_letters
from services.billing.settings import Settings
from services.billing.webhooks import AT_ONCE
from tests.services.billing.till import Till, signed


def _paid_session(order: dict[str, object], *, intent: str, **changes: object) -> dict[str, object]:
    return {
        "id": f"cs_{new_id().hex}",
        "object": "checkout.session",
        "payment_status": "paid",
        "payment_intent": intent,
        "amount_total": order["total"],
        "currency": "cny",
        "client_reference_id": order["id"],
        "metadata": {"order_id": order["id"]},
    } | changes


async def test_what_the_provider_said_is_forgotten_and_that_it_said_so_is_not(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_letters, "AT_ONCE", 1)
    order = (await till.order(new_id())).json()
    session = _paid_session(order, intent="pi_kept")
    for number in range(3):
        told = await till.tell("checkout.session.completed", session, event_id=f"evt_{number}")
        assert told.status_code == 200
    await till.api.run_due()
    left = "SELECT count(*) FILTER (WHERE payload = ''), count(*) FROM provider_event WHERE id LIKE 'evt\\__'"
    till.api.clock.advance(timedelta(days=89))
    await till.api.run_due()
    assert await till.api.sql(left) == [(0, 3)]
    till.api.clock.advance(timedelta(days=2))
    assert await till.api.run_due() >= 3
    assert await till.api.run_due() == 0
    assert await till.api.sql(left) == [(3, 3)]
    paid = (await till.api.sql("SELECT count(*) FROM payment"))[0][0]
    again = await till.tell("checkout.session.completed", session, event_id="evt_0")
    assert again.status_code == 200
    assert await till.api.run_due() == 0
    assert (await till.api.sql("SELECT count(*) FROM payment"))[0][0] == paid == 1


async def test_one_event_delivered_ten_times_at_once_pays_once(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    event = {
        "id": "evt_ten_times",
        "object": "event",
        "type": "checkout.session.completed",
        "data": {"object": _paid_session(order, intent="pi_ten_times")},
    }
    body = json.dumps(event).encode()
    answers = await asyncio.gather(*(till.post_webhook(body) for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert [type(told) for told in await till.api.emitted()] == [OrderPaid]
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}
    assert await till.api.run_due() == 0


async def test_ten_different_events_about_one_payment_pay_once(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    session = _paid_session(order, intent="pi_same")
    intent = {
        "id": "pi_same",
        "object": "payment_intent",
        "amount_received": 1990,
        "currency": "cny",
        "metadata": {"order_id": order["id"]},
    }
    told = [till.tell("checkout.session.completed", session) for _ in range(5)]
    told += [till.tell("payment_intent.succeeded", intent) for _ in range(5)]
    answers = await asyncio.gather(*told)
    assert {answer.status_code for answer in answers} == {200}
    assert [type(event) for event in await till.api.emitted()] == [OrderPaid]
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}


async def test_completed_is_not_paid(till: Till) -> None:
    member = new_id()
    order = (await till.order(member, payment_method="alipay")).json()
    session = _paid_session(order, intent="pi_later", payment_status="unpaid")
    await till.tell("checkout.session.completed", session)
    assert (await till.read(member, order["id"]))["status"] == "pending"
    assert await till.api.emitted() == []
    await till.tell("checkout.session.async_payment_succeeded", session | {"payment_status": "paid"})
    assert (await till.read(member, order["id"]))["status"] == "paid"


@pytest.mark.parametrize("changes", [{"amount_total": 1}, {"amount_total": 199000}, {"currency": "usd"}])
async def test_a_payment_of_another_amount_or_currency_is_parked(till: Till, changes: dict[str, object]) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.tell("checkout.session.completed", _paid_session(order, intent="pi_wrong", **changes))
    assert (await till.read(member, order["id"]))["status"] == "pending"
    assert await till.api.emitted() == []
    seen = await till.client.get(f"/v1/admin/orders/{order['id']}", headers=till.api.admin("orders:read"))
    assert [payment["status"] for payment in seen.json()["payments"]] == ["parked"]
    assert seen.json()["refunds"] == []
    await till.balanced()
    # The right payment still pays.
    assert (await till.pay(order)).status_code == 200
    assert (await till.read(member, order["id"]))["status"] == "paid"


GOOD = json.dumps(
    {"id": "evt_x", "object": "event", "type": "payment_intent.succeeded", "data": {"object": {"id": "pi_x"}}}
).encode()


# Made when the test runs: a signature has its time in it.
FORGERIES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "nonsense": lambda: b"nonsense",
    "no values": lambda: b"t=,v1=",
    "no signature": lambda: b"t=12",
    "no time": lambda: b"v1=abc",
    "digits that are not ASCII": "t=\u0661\u0662,v1=abc".encode,
    "a signature that is not ASCII": lambda: bytes(f"t={int(time.time())},v1=\u7b7e\u540d", "utf-8"),
    "bytes that are not UTF-8": lambda: f"t={int(time.time())},v1=".encode() + b"\xff\xfe",
    "a time too long": lambda: b"t=99999999999999999999,v1=00",
    "two times": lambda: b"t=1," + signed(GOOD).encode(),
    "another secret": lambda: signed(GOOD, secret="whsec_of_somebody_else").encode(),
    "too old": lambda: signed(GOOD, at=time.time() - 400).encode(),
    "from the future": lambda: signed(GOOD, at=time.time() + 400).encode(),
    "another body": lambda: signed(GOOD + b" ").encode(),
    "another scheme": lambda: signed(GOOD).replace("v1=", "v0=").encode(),
    "cut short": lambda: bytes(signed(GOOD)[:-1], "ascii"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_is_not_well_signed_is_refused_and_not_stored(till: Till, forgery: str) -> None:
    header = FORGERIES[forgery]()
    answer = await till.client.post("/v1/webhooks/stripe", content=GOOD, headers={b"Stripe-Signature": header})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")
    assert await till.api.sql("SELECT count(*) FROM provider_event") == [(0,)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"id": 5}',
        b'{"id":"evt_a\\u0000b","type":"x","data":{"object":{}}}',
        b'{"id":"evt_a","type":"x","data":{"object":[]}}',
        b'{"id":"evt_a","type":"x","data":[]}',
        b'{"id":"evt_\\ud800","type":"x","data":{"object":{}}}',
        b"[" * 100_000,
    ],
)
async def test_signed_bytes_that_are_no_event_are_refused(till: Till, body: bytes) -> None:
    answer = await till.post_webhook(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")


async def test_a_missing_signature_is_refused(till: Till) -> None:
    answer = await till.client.post("/v1/webhooks/stripe", content=GOOD)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")


async def test_several_signatures_are_taken_when_one_is_good(till: Till) -> None:
    stamp, good = signed(GOOD).split(",")
    answer = await till.post_webhook(GOOD, f"{stamp},v1=00,{good},v0=11")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "subject",
    [
        {},
        {"payment_status": "paid"},
        {"payment_status": "paid", "payment_intent": ["x"], "amount_total": "12", "currency": 5, "metadata": []},
        {"payment_status": "paid", "payment_intent": "pi_1", "amount_total": True, "currency": "cny"},
        {"payment_status": "paid", "payment_intent": "pi_1", "amount_total": 2**80, "currency": "cny"},
        {"payment_status": "paid", "payment_intent": "pi_1", "amount_total": 1, "currency": "cny"},
        {
            "payment_status": "paid",
            "payment_intent": "pi_1",
            "amount_total": 1,
            "currency": "cny",
            "metadata": {"order_id": str(new_id())},
        },
        {"id": "pi_\u0000", "amount_received": 1, "currency": "cny", "metadata": {"refund_id": 7}},
    ],
)
async def test_signed_events_about_nothing_of_ours_change_nothing(till: Till, subject: dict[str, object]) -> None:
    kinds = (
        "checkout.session.completed",
        "payment_intent.succeeded",
        "checkout.session.expired",
        "refund.updated",
        "x",
    )
    for kind in kinds:
        assert (await till.tell(kind, subject)).status_code == 200
    assert await till.api.sql("SELECT count(*) FROM payment") == [(0,)]
    assert await till.api.sql("SELECT count(*) FROM provider_event WHERE handled_at IS NULL") == [(0,)]


async def test_a_session_that_ends_before_its_time_was_canceled_and_one_at_its_time_expired(till: Till) -> None:
    for kind, after in (("canceled", timedelta(minutes=5)), ("expired", timedelta(minutes=30))):
        member = new_id()
        order = (await till.order(member)).json()
        await till.api.emitted()
        till.api.clock.advance(after)
        # The provider's word may be here before the request that canceled has come to its end.
        ((session_id,),) = await till.api.sql('SELECT session_id FROM "order" WHERE id = :id', id=order["id"])
        assert (await till.tell("checkout.session.expired", {"id": session_id})).status_code == 200
        await till.api.run_due()
        assert (await till.read(member, order["id"]))["status"] == kind
        (told,) = await till.api.emitted()
        assert isinstance(told, OrderClosed)
        assert told.reason == kind


async def test_an_event_left_by_a_dead_process_is_handled_later(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    body = json.dumps(
        {
            "id": "evt_left",
            "type": "checkout.session.completed",
            "data": {"object": _paid_session(order, intent="pi_left")},
        }
    )
    await till.api.sql(
        "INSERT INTO provider_event (id, type, payload, received_at, attempts, next_attempt_at) "
        "VALUES ('evt_left', 'checkout.session.completed', convert_to(:body, 'UTF8'), :now, 0, :now)",
        body=body,
        now=clock.now(),
    )
    assert await till.api.run_due() >= 1
    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert await till.api.run_due() == 0


async def test_an_event_that_the_database_refuses_is_put_off_and_holds_up_no_other(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    await till.api.sql("ALTER TABLE payment ADD CONSTRAINT refused CHECK (provider_ref <> 'pi_refused')")
    refused = _paid_session(order, intent="pi_refused")
    assert (await till.tell("checkout.session.completed", refused, event_id="evt_refused")).status_code == 200
    assert await till.api.sql("SELECT attempts, outcome, handled_at FROM provider_event WHERE id = 'evt_refused'") == [
        (1, "IntegrityError", None)
    ]
    await till.tell("checkout.session.completed", _paid_session(order, intent="pi_taken"))
    assert (await till.read(member, order["id"]))["status"] == "paid"
    await till.api.sql("ALTER TABLE payment DROP CONSTRAINT refused")
    till.api.clock.advance(timedelta(seconds=2))
    await till.api.run_due()
    assert await till.api.sql("SELECT handled_at IS NOT NULL FROM provider_event") == [(True,)] * 2
    assert await till.api.run_due() == 0


async def test_a_payment_of_nothing_beside_a_free_order_has_nothing_to_send_back(till: Till) -> None:
    member = new_id()
    order = (await till.order(member, coupon_token=till.coupon(member, kind="percent", value=100))).json()
    assert (order["status"], order["total"]) == ("paid", 0)
    await till.tell("checkout.session.completed", _paid_session(order, intent="pi_nothing"))
    assert await till.api.sql("SELECT status, amount FROM payment") == [("surplus", 0)]
    assert await till.api.sql("SELECT count(*) FROM refund") == [(0,)]
    assert await till.api.sql("SELECT count(*) FROM provider_event WHERE handled_at IS NULL") == [(0,)]
    assert await till.api.run_due() == 0


async def test_while_the_secret_is_rotated_both_are_good_and_afterwards_only_the_new_one(till: Till) -> None:
    settings = till.api.rt.settings
    settings.stripe_webhook_secrets = ("whsec_new", "whsec_old")
    good = [await till.post_webhook(GOOD, signed(GOOD, secret=secret)) for secret in ("whsec_new", "whsec_old")]
    # During a rotation Stripe itself signs with both.
    stamp, old = signed(GOOD, secret="whsec_old").split(",")
    both = await till.post_webhook(GOOD, f"{stamp},{old},{signed(GOOD, secret='whsec_new').split(',')[1]}")
    assert [answer.status_code for answer in (*good, both)] == [200, 200, 200]
    settings.stripe_webhook_secrets = ("whsec_new",)
    refused = await till.post_webhook(GOOD, signed(GOOD, secret="whsec_old"))
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_signature")
    assert await till.api.sql("SELECT count(*) FROM provider_event") == [(1,)]


def test_the_setting_takes_several_secrets_with_commas() -> None:
    settings = Settings.model_validate({"env": "sandbox", "stripe_webhook_secrets": " whsec_new , whsec_old,"})
    assert settings.webhook_secrets == ("whsec_new", "whsec_old")


async def test_an_event_told_again_months_later_changes_nothing(till: Till) -> None:
    member = new_id()
    order = await till.buy(member)
    told = await till.api.sql("SELECT type, convert_from(payload, 'UTF8') AS body FROM provider_event")
    assert (await till.refund(member, order["id"])).status_code == 201
    await till.api.run_due()
    await till.api.emitted()
    till.api.clock.advance(timedelta(days=100))
    for kind, body in told:
        event = json.loads(body)
        # Once as it was, and once as an event that somebody created anew.
        await till.tell(kind, event["data"]["object"], event_id=event["id"])
        await till.tell(kind, event["data"]["object"])
    assert {kind for kind, _ in told} >= {"payment_intent.succeeded", "checkout.session.completed"}
    assert (await till.read(member, order["id"]))["status"] == "refunded"
    assert await till.api.emitted() == []
    assert (await till.balanced())["provider_receivable"] == 0


async def test_a_burst_is_stored_with_few_commits_and_handled_a_few_at_a_time(till: Till) -> None:
    bodies = [
        json.dumps({"id": f"evt_{n % 400}", "type": "x", "data": {"object": {"id": n}}}).encode() for n in range(600)
    ]
    before = (await till.api.sql("SELECT pg_current_xact_id()::text::bigint"))[0][0]
    answers = await asyncio.gather(*(till.post_webhook(body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    after = (await till.api.sql("SELECT pg_current_xact_id()::text::bigint"))[0][0]
    assert after - before < 100
    assert await till.api.sql("SELECT count(*), count(handled_at) FROM provider_event") == [(400, 0)]
    assert await till.api.rt.state["webhook_inbox"].handle_some() == AT_ONCE
    assert await till.api.sql("SELECT count(handled_at) FROM provider_event") == [(AT_ONCE,)]
    await till.api.run_due()
    assert await till.api.sql("SELECT count(*) FROM provider_event WHERE handled_at IS NULL") == [(0,)]
    assert await till.api.run_due() == 0
