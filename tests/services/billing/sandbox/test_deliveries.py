"""Webhooks over real HTTP: signed, at once, again until they are taken, and out of order on demand."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import pytest
import stripe

from services.billing.sandbox.courier import drain, running_courier
from services.billing.sandbox.deliveries import signature, webhook_url
from services.billing.settings import Settings
from tests.services.billing.sandbox.conftest import SECRET, Sandbox

PAID = ["payment_intent.succeeded", "checkout.session.completed"]


async def faults(sandbox: Sandbox, *wanted: dict[str, Any]) -> None:
    answer = await sandbox.api.client.put("/v1/sandbox/faults", json={"faults": list(wanted)})
    assert answer.status_code == 200, answer.text


def test_a_signature_is_the_sdks_own() -> None:
    body = '{"id": "evt_1", "object": "event", "name": "黑卡"}'.encode()
    header = signature(body, SECRET)

    assert stripe.Webhook.construct_event(body, header, SECRET).id == "evt_1"
    for wrong_body, wrong_secret in ((body + b" ", SECRET), (body, "whsec_other")):
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(wrong_body, header, wrong_secret)


async def test_signatures_use_the_real_clock_whatever_the_products_says(sandbox: Sandbox) -> None:
    sandbox.api.clock.set(datetime.now(UTC) + timedelta(days=400))
    await sandbox.paid()

    await sandbox.api.run_due()

    # The receiver refuses what is more than five minutes off.
    assert sandbox.receiver.types == PAID
    assert sandbox.receiver.events[0].created > time.time() + 390 * 86400


async def test_a_refused_delivery_is_tried_again_later_and_later(sandbox: Sandbox) -> None:
    await sandbox.paid()
    sandbox.receiver.refusals = [500, 500, 302, 404]

    assert await sandbox.api.run_due() == 0
    assert sandbox.receiver.heard == 2
    assert await sandbox.api.run_due() == 0
    assert sandbox.receiver.heard == 2
    sandbox.api.clock.advance(timedelta(seconds=1))
    assert await sandbox.api.run_due() == 0
    sandbox.api.clock.advance(timedelta(seconds=1))
    assert await sandbox.api.run_due() == 0
    assert sandbox.receiver.heard == 4
    sandbox.api.clock.advance(timedelta(seconds=1))
    assert await sandbox.api.run_due() == 2

    assert sandbox.receiver.types == PAID
    assert await sandbox.api.sql("SELECT attempts, last_error FROM sandbox_delivery ORDER BY id") == [(3, None)] * 2


async def test_deliveries_survive_a_receiver_that_was_away(sandbox: Sandbox) -> None:
    settings = sandbox.api.rt.settings
    settings.sandbox_webhook_url = "http://127.0.0.1:9/hook"
    await sandbox.paid()
    assert await sandbox.api.run_due() == 0
    assert (await sandbox.api.sql("SELECT DISTINCT last_error FROM sandbox_delivery")) == [("ConnectError",)]

    settings.sandbox_webhook_url = sandbox.receiver.url
    sandbox.api.clock.advance(timedelta(days=31))
    assert await sandbox.api.run_due() == 2

    assert sandbox.receiver.types == PAID


async def test_what_was_committed_before_a_start_is_delivered_after_it(sandbox: Sandbox) -> None:
    await sandbox.paid()
    sandbox.api.rt.settings.background = True

    async with running_courier(sandbox.api.rt):
        await _until(lambda: len(sandbox.receiver.events) == 2)

    assert sandbox.receiver.types == PAID


async def test_the_courier_delivers_at_once_after_pay(sandbox: Sandbox) -> None:
    sandbox.api.rt.settings.background = True
    waits = []
    async with running_courier(sandbox.api.rt):
        for _ in range(11):
            opened = await sandbox.open()
            taken = len(sandbox.receiver.events) + 2
            await sandbox.press(opened.id)
            started = time.perf_counter()
            await _until(lambda taken=taken: len(sandbox.receiver.events) >= taken)
            waits.append(time.perf_counter() - started)

    assert median(waits) < 0.1, waits
    assert sandbox.receiver.heard == 22
    assert await sandbox.api.run_due() == 0


async def test_a_wallets_refund_settles_without_waiting_for_periodic_work(sandbox: Sandbox) -> None:
    intent = await sandbox.paid(allowed_payment_method_types=["alipay"])
    await sandbox.api.run_due()
    sandbox.api.rt.settings.background = True

    async with running_courier(sandbox.api.rt):
        await sandbox.v1.refunds.create_async({"payment_intent": intent.id})
        await _until(lambda: "refund.updated" in sandbox.receiver.types)

    assert sandbox.receiver.types == [*PAID, "refund.created", "charge.refunded", "refund.updated"]


async def test_two_couriers_and_due_work_deliver_everything_once(sandbox: Sandbox) -> None:
    rt = sandbox.api.rt
    rt.settings.background = True
    async with running_courier(rt), running_courier(rt):
        opened = [await sandbox.open() for _ in range(12)]
        await asyncio.gather(*(sandbox.press(each.id) for each in opened), drain(rt), drain(rt))
        await drain(rt)

    assert sorted(sandbox.receiver.types) == sorted(PAID * 12)
    assert sandbox.receiver.heard == 24


async def test_the_sandboxs_work_rests_where_stripe_is_the_provider(sandbox: Sandbox) -> None:
    await sandbox.paid()
    sandbox.api.rt.settings.stripe_secret_key = "sk_test_real"

    assert await drain(sandbox.api.rt) == 0

    assert sandbox.receiver.heard == 0


def test_webhooks_go_through_the_gateway_unless_told_otherwise() -> None:
    settings = Settings(public_url="https://heika.test/", database_url="postgresql+asyncpg://")
    assert webhook_url(settings) == "https://heika.test/v1/webhooks/stripe"
    settings.sandbox_webhook_url = "http://127.0.0.1:1/hook"
    assert webhook_url(settings) == "http://127.0.0.1:1/hook"


async def test_a_duplicated_delivery_is_the_same_event_twice(sandbox: Sandbox) -> None:
    await faults(sandbox, {"target": "deliveries", "kind": "duplicate", "match": "checkout."})
    await sandbox.paid()

    assert await sandbox.api.run_due() == 2

    assert sandbox.receiver.types == [*PAID, PAID[1]]
    assert sandbox.receiver.events[1].id == sandbox.receiver.events[2].id


async def test_a_reordered_delivery_comes_after_the_others(sandbox: Sandbox) -> None:
    await faults(sandbox, {"target": "deliveries", "kind": "reorder", "times": 1})
    await sandbox.paid()

    await sandbox.api.run_due()

    assert sandbox.receiver.types == PAID[::-1]


async def test_a_delivery_whose_answer_was_lost_is_sent_again(sandbox: Sandbox) -> None:
    await faults(sandbox, {"target": "deliveries", "kind": "drop", "match": "payment_intent"})
    await sandbox.paid()

    assert await sandbox.api.run_due() == 1
    sandbox.api.clock.advance(timedelta(seconds=2))
    assert await sandbox.api.run_due() == 1

    assert sandbox.receiver.types == [*PAID, PAID[0]]
    assert sandbox.receiver.events[0].id == sandbox.receiver.events[2].id


async def test_a_delayed_or_failed_delivery_comes_later(sandbox: Sandbox) -> None:
    await faults(
        sandbox,
        {"target": "deliveries", "kind": "delay", "seconds": 3600.0, "match": "payment_intent"},
        {"target": "deliveries", "kind": "error", "match": "checkout"},
    )
    await sandbox.paid()

    assert await sandbox.api.run_due() == 0
    assert sandbox.receiver.heard == 0
    sandbox.api.clock.advance(timedelta(seconds=2))
    assert await sandbox.api.run_due() == 1
    sandbox.api.clock.advance(timedelta(hours=1))
    assert await sandbox.api.run_due() == 1

    assert sandbox.receiver.types == PAID[::-1]


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the receiver is a real server, it sets no event
            await asyncio.sleep(0.002)
