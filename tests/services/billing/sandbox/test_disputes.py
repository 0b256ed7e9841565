"""The banks of the sandbox provider: they dispute a payment and decide, and the provider shows and tells it as Stripe does."""

from typing import Any
from uuid import UUID

import httpx
import pytest
import stripe

from kit.ids import new_id
from tests.harness import Run
from tests.services.billing.sandbox.conftest import Sandbox, service


async def paid_order(sandbox: Sandbox, **changes: Any) -> tuple[UUID, stripe.PaymentIntent]:
    """An order that was paid at the cashier."""
    order_id = new_id()
    intent = await sandbox.paid(payment_intent_data={"metadata": {"order_id": str(order_id)}}, **changes)
    await sandbox.api.run_due()
    sandbox.receiver.events.clear()
    return order_id, intent


async def dispute(sandbox: Sandbox, order_id: UUID, outcome: str) -> httpx.Response:
    return await sandbox.api.client.post("/v1/sandbox/disputes", json={"order_id": str(order_id), "outcome": outcome})


async def test_an_opened_dispute_takes_the_money_and_a_fee(sandbox: Sandbox) -> None:
    order_id, intent = await paid_order(sandbox)

    answer = await dispute(sandbox, order_id, "opened")

    assert answer.status_code == 200, answer.text
    found = await sandbox.v1.disputes.retrieve_async(answer.json()["id"], {"expand": ["charge.payment_intent"]})
    charge: Any = found.charge
    assert answer.json() == {
        "id": found.id,
        "order_id": str(order_id),
        "payment_intent": intent.id,
        "amount": 4400,
        "currency": "cny",
        "status": "needs_response",
    }
    assert (found.status, found.amount, found.payment_intent, found.is_charge_refundable) == (
        "needs_response", 4400, intent.id, False
    )  # fmt: skip
    [move] = found.balance_transactions
    assert (move.amount, move.fee, move.net) == (-4400, 1500, -5900)
    assert (charge.disputed, charge.payment_intent.metadata["order_id"]) == (True, str(order_id))
    await sandbox.api.run_due()
    assert sandbox.receiver.types == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    assert {event.data.object["id"] for event in sandbox.receiver.events} == {found.id}
    listed = await sandbox.v1.disputes.list_async({"payment_intent": intent.id})
    assert [each.id for each in listed.data] == [found.id]
    assert (await sandbox.v1.disputes.list_async({"charge": "ch_other"})).data == []


async def test_a_won_dispute_brings_the_money_back_but_not_the_fee(sandbox: Sandbox) -> None:
    order_id, _ = await paid_order(sandbox)
    opened = (await dispute(sandbox, order_id, "opened")).json()

    won = (await dispute(sandbox, order_id, "won")).json()

    assert (won["id"], won["status"]) == (opened["id"], "won")
    found = await sandbox.v1.disputes.retrieve_async(won["id"])
    assert [(move.amount, move.fee) for move in found.balance_transactions] == [(-4400, 1500), (4400, 0)]
    await sandbox.api.run_due()
    assert sandbox.receiver.types == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]
    assert [event.data.object["status"] for event in sandbox.receiver.events] == ["needs_response"] * 2 + ["won"] * 2


async def test_a_lost_dispute_keeps_the_money(sandbox: Sandbox) -> None:
    order_id, _ = await paid_order(sandbox)

    lost = (await dispute(sandbox, order_id, "lost")).json()

    assert lost["status"] == "lost"
    await sandbox.api.run_due()
    assert sandbox.receiver.types == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
    ]


@pytest.mark.parametrize(
    ("before", "then", "code"),
    [
        ("opened", "opened", "already_disputed"),
        ("won", "opened", "dispute_decided"),
        ("won", "lost", "dispute_decided"),
        ("lost", "won", "dispute_decided"),
    ],
)
async def test_a_bank_decides_once(sandbox: Sandbox, before: str, then: str, code: str) -> None:
    order_id, _ = await paid_order(sandbox)
    assert (await dispute(sandbox, order_id, before)).status_code == 200
    events = await sandbox.count("sandbox_event")

    again = await dispute(sandbox, order_id, then)

    assert (again.status_code, again.json()["code"]) == (409, code)
    assert await sandbox.count("sandbox_event") == events


async def test_a_disputed_charge_is_not_refunded_and_a_refunded_one_not_disputed(sandbox: Sandbox) -> None:
    disputed, of_disputed = await paid_order(sandbox)
    refunded, of_refunded = await paid_order(sandbox)
    partly, of_partly = await paid_order(sandbox)
    await dispute(sandbox, disputed, "opened")
    await sandbox.v1.refunds.create_async({"payment_intent": of_refunded.id})
    await sandbox.v1.refunds.create_async({"payment_intent": of_partly.id, "amount": 400})

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await sandbox.v1.refunds.create_async({"payment_intent": of_disputed.id})
    answer = await dispute(sandbox, refunded, "opened")
    rest = await dispute(sandbox, partly, "opened")

    assert refusal.value.code == "charge_disputed"
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_dispute")
    assert rest.json()["amount"] == 4000
    await dispute(sandbox, disputed, "won")
    assert (await sandbox.v1.refunds.create_async({"payment_intent": of_disputed.id})).amount == 4400


async def test_what_was_not_paid_cannot_be_disputed(sandbox: Sandbox) -> None:
    await sandbox.open(payment_intent_data={"metadata": {"order_id": str(new_id())}})

    answer = await dispute(sandbox, new_id(), "opened")

    assert (answer.status_code, answer.json()["code"]) == (404, "payment_not_found")
    for body in ({}, {"order_id": "x", "outcome": "opened"}, {"order_id": str(new_id()), "outcome": "maybe"}):
        assert (await sandbox.api.client.post("/v1/sandbox/disputes", json=body)).status_code == 422


async def test_production_has_no_banks_on_demand(run: Run) -> None:
    async with run(service, env="production", stripe_webhook_secrets=("whsec_x",), coupon_keys=("k" * 32,)) as api:
        body = {"order_id": str(new_id()), "outcome": "opened"}
        assert (await api.client.post("/v1/sandbox/disputes", json=body)).status_code == 404
