"""Faults on demand in the provider's calls, and the address that asks for them."""

import time
from typing import Any

import pytest
import stripe

from tests.services.billing.sandbox.conftest import Sandbox


async def put(sandbox: Sandbox, *wanted: dict[str, Any]) -> Any:
    answer = await sandbox.api.client.put("/v1/sandbox/faults", json={"faults": list(wanted)})
    return answer.json() | {"status_code": answer.status_code}


async def test_faults_are_counted_down_and_replaced(sandbox: Sandbox) -> None:
    asked = await put(sandbox, {"target": "calls", "kind": "error", "times": 2})
    assert asked["faults"] == [{"target": "calls", "kind": "error", "remaining": 2, "seconds": 1.0, "match": ""}]

    with pytest.raises(stripe.APIError) as failed:
        await sandbox.open()
    assert failed.value.http_status == 500
    left = (await sandbox.api.client.get("/v1/sandbox/faults")).json()["faults"]
    assert [fault["remaining"] for fault in left] == [1]
    assert (await put(sandbox))["faults"] == []

    await sandbox.open()
    assert await sandbox.count("sandbox_session") == 1


async def test_a_fault_meets_only_what_it_matches(sandbox: Sandbox) -> None:
    await put(sandbox, {"target": "calls", "kind": "error", "match": "/v1/refunds"})

    intent = await sandbox.paid()

    with pytest.raises(stripe.APIError):
        await sandbox.v1.refunds.create_async({"payment_intent": intent.id})
    assert (await sandbox.v1.refunds.create_async({"payment_intent": intent.id})).amount == 4400


async def test_a_dropped_answer_has_done_its_work(sandbox: Sandbox) -> None:
    await put(sandbox, {"target": "calls", "kind": "drop"})

    with pytest.raises(stripe.APIConnectionError):
        await sandbox.open()

    assert await sandbox.count("sandbox_session") == 1


async def test_a_hanging_call_does_nothing_and_is_cut(sandbox: Sandbox) -> None:
    await put(sandbox, {"target": "calls", "kind": "hang", "seconds": 0.3})
    started = time.perf_counter()

    with pytest.raises(stripe.APIConnectionError):
        await sandbox.open()

    assert time.perf_counter() - started >= 0.3
    assert await sandbox.count("sandbox_session") == 0


async def test_a_delayed_call_answers_late(sandbox: Sandbox) -> None:
    await put(sandbox, {"target": "calls", "kind": "delay", "seconds": 0.3})
    started = time.perf_counter()

    assert (await sandbox.open()).status == "open"

    assert time.perf_counter() - started >= 0.3


async def test_a_fault_that_cannot_be_is_refused(sandbox: Sandbox) -> None:
    for fault in (
        {"target": "calls", "kind": "reorder"},
        {"target": "calls", "kind": "duplicate"},
        {"target": "deliveries", "kind": "hang"},
        {"target": "clouds", "kind": "delay"},
        {"target": "calls", "kind": "delay", "times": 0},
        {"target": "calls", "kind": "delay", "times": True},
        {"target": "calls", "kind": "delay", "seconds": -1.0},
        {"target": "calls", "kind": "delay", "match": "\x00"},
        {"target": "calls", "kind": "delay", "who": "me"},
    ):
        assert (await put(sandbox, fault))["status_code"] == 422, fault
    assert await sandbox.count("sandbox_fault") == 0


async def test_whole_seconds_are_seconds(sandbox: Sandbox) -> None:
    assert (await put(sandbox, {"target": "calls", "kind": "delay", "seconds": 2}))["faults"][0]["seconds"] == 2.0
