"""Idempotency keys of the provider, as Stripe keeps them."""

import asyncio
from datetime import timedelta

import httpx
import pytest
import stripe

from tests.services.billing.sandbox.conftest import KEY, Sandbox


async def post(sandbox: Sandbox, path: str, form: str, key: str) -> httpx.Response:
    return await sandbox.raw("POST", path, form, **{"idempotency-key": key})


async def fault(sandbox: Sandbox, **wanted: object) -> None:
    answer = await sandbox.api.client.put("/v1/sandbox/faults", json={"faults": [wanted]})
    assert answer.status_code == 200, answer.text


async def test_a_repeated_key_is_answered_the_same_and_does_nothing(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    form = f"payment_intent={intent.id}&amount=100"

    first, second = [await post(sandbox, "/v1/refunds", form, "key-1") for _ in range(2)]

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    assert await sandbox.count("sandbox_refund") == 1


async def test_a_key_with_other_parameters_or_another_path_is_refused(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    form = f"payment_intent={intent.id}&amount="
    await post(sandbox, "/v1/refunds", form + "100", "key-1")

    with pytest.raises(stripe.IdempotencyError) as refused:
        await sandbox.v1.refunds.create_async(
            {"payment_intent": intent.id, "amount": 101}, {"idempotency_key": "key-1"}
        )
    other = await post(sandbox, "/v1/customers", "", "key-1")

    assert refused.value.http_status == 400
    assert (other.status_code, other.json()["error"]["type"]) == (400, "idempotency_error")
    assert await sandbox.count("sandbox_refund") == 1


async def test_the_order_of_parameters_does_not_matter(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()

    first = await post(sandbox, "/v1/refunds", f"payment_intent={intent.id}&amount=100", "key-1")
    second = await post(sandbox, "/v1/refunds", f"amount=100&payment_intent={intent.id}", "key-1")

    assert first.json() == second.json()


async def test_a_key_in_flight_is_a_conflict(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    await fault(sandbox, target="calls", kind="delay", seconds=1.5, match="/v1/refunds")
    form = f"payment_intent={intent.id}&amount=100"

    first = asyncio.create_task(post(sandbox, "/v1/refunds", form, "key-1"))
    await asyncio.sleep(0.5)
    second = await post(sandbox, "/v1/refunds", form, "key-1")

    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert (await first).status_code == 200
    assert (await post(sandbox, "/v1/refunds", form, "key-1")).content == (await first).content
    assert await sandbox.count("sandbox_refund") == 1


async def test_a_refusal_of_the_rules_is_kept_but_a_wrong_form_is_not(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    too_much = f"payment_intent={intent.id}&amount=4401"

    refused = [await post(sandbox, "/v1/refunds", too_much, "key-1") for _ in range(2)]
    wrong = await post(sandbox, "/v1/refunds", "payment_intent=x&amount=much", "key-2")
    right = await post(sandbox, "/v1/refunds", f"payment_intent={intent.id}&amount=1", "key-2")

    assert [answer.status_code for answer in refused] == [400, 400]
    assert refused[1].headers["idempotent-replayed"] == "true"
    assert (wrong.status_code, right.status_code) == (400, 200)


async def test_a_refused_call_leaves_nothing_of_itself(sandbox: Sandbox) -> None:
    # The session is written before `expand` turns out to be wrong.
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await sandbox.open(expand=["invoice"])

    assert await sandbox.count("sandbox_session") == 0


async def test_a_key_is_forgotten_after_a_day(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    form = f"payment_intent={intent.id}&amount=100"
    await post(sandbox, "/v1/refunds", form, "key-1")

    sandbox.api.clock.advance(timedelta(hours=23, minutes=59))
    assert (await post(sandbox, "/v1/refunds", form, "key-1")).headers["idempotent-replayed"] == "true"
    sandbox.api.clock.advance(timedelta(minutes=2))
    await post(sandbox, "/v1/refunds", form, "key-1")

    assert await sandbox.count("sandbox_refund") == 2
    sandbox.api.clock.advance(timedelta(days=2))
    await sandbox.api.run_due()
    assert await sandbox.count("sandbox_idempotency") == 0


async def test_the_sdks_own_retry_after_a_lost_answer_refunds_once(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    await fault(sandbox, target="calls", kind="drop", match="/v1/refunds")
    patient = sandbox.client(max_network_retries=2)

    refund = await patient.v1.refunds.create_async({"payment_intent": intent.id, "amount": 100})

    assert refund.amount == 100
    assert await sandbox.count("sandbox_refund") == 1
    assert await sandbox.api.sql("SELECT amount_refunded FROM sandbox_charge") == [(100,)]


async def test_a_key_has_a_length(sandbox: Sandbox) -> None:
    for key in ("k" * 256, ""):
        answer = await post(sandbox, "/v1/customers", "", key)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "idempotency_error")
    assert KEY
