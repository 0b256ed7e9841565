"""Kept cards: saved at the cashier, charged while their owner is away, with what the bank is told to answer."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
import stripe

from kit.ids import new_id
from tests.harness import Run
from tests.services.billing.sandbox.conftest import Sandbox, service


async def answers(sandbox: Sandbox, member_id: UUID, *wanted: str) -> httpx.Response:
    """Choose what the bank will say."""
    return await sandbox.api.client.put(f"/v1/sandbox/payers/{member_id}", json={"next_charges": list(wanted)})


async def declined(sandbox: Sandbox, customer: str, card: str, **options: Any) -> stripe.CardError:
    """The refusal of a charge that must be refused."""
    with pytest.raises(stripe.CardError) as refusal:
        await sandbox.charge(customer, card, **options)
    return refusal.value


async def test_a_session_keeps_the_card_it_was_paid_with(sandbox: Sandbox) -> None:
    customer, card = await sandbox.keep_card(str(new_id()), fingerprint="the card of Lin")

    kept = await sandbox.v1.payment_methods.retrieve_async(card)

    assert (kept.customer, kept.type) == (customer, "card")
    assert kept.card is not None
    assert (kept.card.brand, kept.card.last4, kept.card.fingerprint) == ("visa", "4242", "the card of Lin")
    listed = await sandbox.v1.customers.payment_methods.list_async(customer)
    assert [each.id for each in listed.data] == [card]
    assert [each.id for each in (await sandbox.v1.payment_methods.list_async({"customer": customer})).data] == [card]
    [intent] = (await sandbox.v1.payment_intents.list_async({"customer": customer})).data
    assert (intent.payment_method, intent.setup_future_usage, intent.status) == (card, "off_session", "succeeded")


async def test_an_ordinary_payment_keeps_no_card(sandbox: Sandbox) -> None:
    customer = await sandbox.v1.customers.create_async()

    intent = await sandbox.paid(customer=customer.id)

    used = await sandbox.v1.payment_methods.retrieve_async(str(intent.payment_method))
    assert (used.customer, intent.setup_future_usage) == (None, None)
    assert (await sandbox.v1.payment_methods.list_async({"customer": customer.id})).data == []
    with pytest.raises(stripe.InvalidRequestError, match="does not have a payment method"):
        await sandbox.charge(customer.id, used.id)
    assert await sandbox.count("sandbox_intent") == 1


async def test_a_session_may_make_its_customer(sandbox: Sandbox) -> None:
    opened = await sandbox.open(
        customer_creation="always", payment_intent_data={"setup_future_usage": "off_session"}, customer_email="a@b.test"
    )
    assert (opened.customer, opened.customer_creation) == (None, "always")

    await sandbox.press(opened.id)

    session: Any = await sandbox.v1.checkout.sessions.retrieve_async(
        opened.id, {"expand": ["customer", "payment_intent.payment_method"]}
    )
    assert session.customer.email == "a@b.test"
    assert session.payment_intent.customer == session.customer.id
    assert session.payment_intent.payment_method.customer == session.customer.id


@pytest.mark.parametrize(
    "changes",
    [
        {"customer_creation": "always", "customer": True},
        {"setup_intent_data": {"description": "x"}},
        {"allowed_payment_method_types": ["alipay"], "payment_intent_data": {"setup_future_usage": "off_session"}},
        {"mode": "setup"},
        {"mode": "subscription"},
    ],
)
async def test_a_session_that_contradicts_itself_is_refused(sandbox: Sandbox, changes: dict[str, Any]) -> None:
    if changes.get("customer"):
        changes = changes | {"customer": (await sandbox.v1.customers.create_async()).id}

    with pytest.raises(stripe.InvalidRequestError):
        await sandbox.open(**changes)

    assert await sandbox.count("sandbox_session") == 0


async def test_a_kept_card_is_charged_without_its_owner(sandbox: Sandbox) -> None:
    customer, card = await sandbox.keep_card("m", fingerprint="the card of Lin")
    await sandbox.api.run_due()
    sandbox.receiver.events.clear()

    intent = await sandbox.charge(customer, card)

    assert (intent.status, intent.amount, intent.amount_received) == ("succeeded", 1990, 1990)
    assert (intent.customer, intent.payment_method) == (customer, card)
    assert intent.metadata["order_id"] == "order-2"
    charge: Any = await sandbox.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.status, charge.payment_method) == ("succeeded", card)
    assert charge.payment_method_details.card.fingerprint == "the card of Lin"
    assert await sandbox.api.run_due() == 1
    assert sandbox.receiver.types == ["payment_intent.succeeded"]
    assert sandbox.receiver.events[0].data.object["id"] == intent.id
    assert await sandbox.api.run_due() == 0
    refund = await sandbox.v1.refunds.create_async({"payment_intent": intent.id})
    assert (refund.status, refund.amount) == ("succeeded", 1990)


async def test_the_bank_answers_in_the_order_chosen_and_then_always_yes(sandbox: Sandbox) -> None:
    member = new_id()
    customer, card = await sandbox.keep_card(str(member))
    chosen = await answers(sandbox, member, "fail", "require_action", "succeed", "fail")
    assert (chosen.status_code, chosen.json()) == (
        200,
        {"member_id": str(member), "next_charges": ["fail", "require_action", "succeed", "fail"]},
    )
    named: Any = {"metadata": {"member_id": str(member)}}

    first = await declined(sandbox, customer, card, **named)
    second = await declined(sandbox, customer, card, **named)
    third = await sandbox.charge(customer, card, **named)

    assert (first.http_status, first.code) == (402, "card_declined")
    assert (second.http_status, second.code) == (402, "authentication_required")
    assert third.status == "succeeded"
    left = await sandbox.api.client.get(f"/v1/sandbox/payers/{member}")
    assert left.json()["next_charges"] == ["fail"]
    assert (await declined(sandbox, customer, card)).code == "card_declined"
    assert [(await sandbox.charge(customer, card)).status for _ in range(2)] == ["succeeded"] * 2


@pytest.mark.parametrize(
    ("answer", "code", "decline"),
    [
        ("fail", "card_declined", "generic_decline"),
        ("require_action", "authentication_required", "authentication_required"),
    ],
)
async def test_a_declined_charge_leaves_its_payment_behind(
    sandbox: Sandbox, answer: str, code: str, decline: str
) -> None:
    member = new_id()
    customer, card = await sandbox.keep_card(str(member))
    await sandbox.api.run_due()
    sandbox.receiver.events.clear()
    await answers(sandbox, member, answer)

    error = (await declined(sandbox, customer, card)).error

    assert error is not None
    assert (error.type, error.code, error.decline_code) == ("card_error", code, decline)
    assert error.payment_method is not None
    assert error.payment_method.id == card
    assert error.payment_intent is not None
    intent: Any = await sandbox.v1.payment_intents.retrieve_async(
        error.payment_intent.id, {"expand": ["latest_charge"]}
    )
    # As Stripe has it while the owner is away: there is nothing to act on, the payment needs a means of payment again.
    assert (intent.status, intent.payment_method, intent.amount_received) == ("requires_payment_method", None, 0)
    assert (intent.last_payment_error.code, intent.latest_charge.status) == (code, "failed")
    assert intent.metadata["order_id"] == "order-2"
    assert await sandbox.api.run_due() == 1
    assert sandbox.receiver.types == ["payment_intent.payment_failed"]
    assert sandbox.receiver.events[0].data.object["last_payment_error"]["code"] == code


async def test_a_repeated_charge_gets_the_first_answer_be_it_yes_or_no(sandbox: Sandbox) -> None:
    member = new_id()
    customer, card = await sandbox.keep_card(str(member))
    await answers(sandbox, member, "fail")

    refusals = [await declined(sandbox, customer, card, key="attempt-1") for _ in range(3)]
    paid = [await sandbox.charge(customer, card, key="attempt-2") for _ in range(3)]

    assert len({refusal.error.payment_intent.id for refusal in refusals}) == 1  # type: ignore[union-attr]
    assert refusals[2].headers is not None
    assert refusals[2].headers["Idempotent-Replayed"] == "true"
    assert len({intent.id for intent in paid}) == 1
    assert await sandbox.count("sandbox_intent") == 3
    with pytest.raises(stripe.IdempotencyError):
        await sandbox.charge(customer, card, key="attempt-2", amount=1991)


async def test_charges_at_once_use_each_answer_once(sandbox: Sandbox) -> None:
    member = new_id()
    customer, card = await sandbox.keep_card(str(member))
    await answers(sandbox, member, *(["fail"] * 3))

    outcomes = await asyncio.gather(*(sandbox.charge(customer, card) for _ in range(6)), return_exceptions=True)

    assert sum(isinstance(outcome, stripe.CardError) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, stripe.PaymentIntent) for outcome in outcomes) == 3


async def test_a_charge_whose_answer_was_lost_is_found_by_its_key(sandbox: Sandbox) -> None:
    customer, card = await sandbox.keep_card("m")
    fault = {"target": "calls", "kind": "drop", "match": "/v1/payment_intents"}
    await sandbox.api.client.put("/v1/sandbox/faults", json={"faults": [fault]})

    with pytest.raises(stripe.APIConnectionError):
        await sandbox.charge(customer, card, key="attempt-1")
    again = await sandbox.charge(customer, card, key="attempt-1")

    assert again.status == "succeeded"
    assert await sandbox.count("sandbox_intent") == 2


@pytest.mark.parametrize("kind", ["error", "hang"])
async def test_a_charge_that_failed_on_their_side_was_not_made(sandbox: Sandbox, kind: str) -> None:
    customer, card = await sandbox.keep_card("m")
    fault = {"target": "calls", "kind": kind, "seconds": 0.1, "match": "/v1/payment_intents"}
    await sandbox.api.client.put("/v1/sandbox/faults", json={"faults": [fault]})

    with pytest.raises((stripe.APIError, stripe.APIConnectionError)):
        await sandbox.charge(customer, card, key="attempt-1")

    assert await sandbox.count("sandbox_intent") == 1
    assert (await sandbox.charge(customer, card, key="attempt-1")).status == "succeeded"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"confirm": False}, "confirm"),
        ({"off_session": False}, "off_session"),
        ({"amount": 0}, "amount"),
        ({"amount": 10**9}, "amount"),
        ({"currency": "yuan"}, "currency"),
        ({"customer": "cus_none"}, "customer"),
        ({"payment_method": "pm_none"}, "payment_method"),
        ({"allowed_payment_method_types": ["alipay"]}, "allowed_payment_method_types"),
        ({"capture_method": "manual"}, "capture_method"),
    ],
)
async def test_a_wrong_charge_is_refused_by_name(sandbox: Sandbox, changes: dict[str, Any], param: str) -> None:
    customer, card = await sandbox.keep_card("m")

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        await sandbox.charge(customer, card, **changes)

    assert refusal.value.param == param
    assert await sandbox.count("sandbox_intent") == 1


async def test_nobody_charges_the_card_of_another_customer(sandbox: Sandbox) -> None:
    _, card = await sandbox.keep_card("m")
    other = await sandbox.v1.customers.create_async()

    with pytest.raises(stripe.InvalidRequestError):
        await sandbox.charge(other.id, card)


async def test_a_detached_card_is_charged_no_more(sandbox: Sandbox) -> None:
    customer, card = await sandbox.keep_card("m")

    detached = await sandbox.v1.payment_methods.detach_async(card)

    assert detached.customer is None
    with pytest.raises(stripe.InvalidRequestError):
        await sandbox.charge(customer, card)
    with pytest.raises(stripe.InvalidRequestError, match="not attached"):
        await sandbox.v1.payment_methods.detach_async(card)


async def test_a_failed_charge_can_be_canceled_and_a_paid_one_cannot(sandbox: Sandbox) -> None:
    member = new_id()
    customer, card = await sandbox.keep_card(str(member))
    await answers(sandbox, member, "fail")
    failed = (await declined(sandbox, customer, card)).error.payment_intent.id  # type: ignore[union-attr]

    canceled = await sandbox.v1.payment_intents.cancel_async(failed, {"cancellation_reason": "abandoned"})

    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    paid = await sandbox.charge(customer, card)
    of_session = (await sandbox.paid()).id
    for intent in (failed, paid.id, of_session):
        with pytest.raises(stripe.InvalidRequestError):
            await sandbox.v1.payment_intents.cancel_async(intent)
    await sandbox.api.run_due()
    assert sandbox.receiver.types.count("payment_intent.canceled") == 1


async def test_a_setup_session_keeps_a_card_without_a_payment(sandbox: Sandbox) -> None:
    customer = await sandbox.v1.customers.create_async({"metadata": {"member_id": "m"}})
    opened = await sandbox.v1.checkout.sessions.create_async(
        {
            "mode": "setup",
            "allowed_payment_method_types": ["card"],
            "customer": customer.id,
            "metadata": {"member_id": "m"},
            "setup_intent_data": {"metadata": {"subscription_id": "s"}},
        }
    )
    assert (opened.mode, opened.status, opened.payment_status) == ("setup", "open", "no_payment_required")
    assert (opened.amount_total, opened.payment_intent) == (None, None)

    refused = await sandbox.press(opened.id, "fail")
    pressed = await sandbox.press(opened.id)

    assert (refused.json()["status"], pressed.json()["status"]) == ("open", "complete")
    session: Any = await sandbox.v1.checkout.sessions.retrieve_async(
        opened.id, {"expand": ["setup_intent.payment_method"]}
    )
    setup = session.setup_intent
    assert (setup.status, setup.customer, setup.usage) == ("succeeded", customer.id, "off_session")
    assert setup.metadata["subscription_id"] == "s"
    assert (setup.payment_method.customer, setup.payment_method.card.last4) == (customer.id, "4242")
    assert await sandbox.count("sandbox_charge") == 0
    await sandbox.api.run_due()
    assert sandbox.receiver.types == [
        "setup_intent.setup_failed",
        "setup_intent.succeeded",
        "checkout.session.completed",
    ]
    assert sandbox.receiver.events[2].data.object["setup_intent"] == setup.id
    assert (await sandbox.press(opened.id)).status_code == 409
    charge = await sandbox.charge(customer.id, setup.payment_method.id)
    assert charge.status == "succeeded"


async def test_a_setup_session_that_expires_keeps_nothing(sandbox: Sandbox) -> None:
    opened = await sandbox.v1.checkout.sessions.create_async({"mode": "setup", "currency": "cny"})

    await sandbox.v1.checkout.sessions.expire_async(opened.id)

    setup = await sandbox.v1.setup_intents.retrieve_async(str(opened.setup_intent))
    assert (setup.status, setup.payment_method) == ("canceled", None)
    await sandbox.api.run_due()
    assert sandbox.receiver.types == ["setup_intent.canceled", "checkout.session.expired"]
    assert await sandbox.count("sandbox_method") == 0


async def test_the_cashier_shows_a_setup_session(sandbox: Sandbox) -> None:
    opened = await sandbox.v1.checkout.sessions.create_async({"mode": "setup"})

    page = await sandbox.api.client.get(f"/v1/sandbox/checkout/{opened.id}")

    assert page.status_code == 200
    assert "保存银行卡" in page.text
    assert "Save card" in page.text
    assert "¥" not in page.text
    assert 'id="later"' not in page.text


async def test_a_wrong_choice_of_answers_is_refused(sandbox: Sandbox) -> None:
    member = new_id()
    await answers(sandbox, member, "fail")
    wrong: list[dict[str, Any]] = [
        {},
        {"next_charges": ["explode"]},
        {"next_charges": "fail"},
        {"next_charges": ["fail"] * 1001},
        {"next_charges": [], "more": 1},
    ]
    for body in wrong:
        assert (await sandbox.api.client.put(f"/v1/sandbox/payers/{member}", json=body)).status_code == 422, body
    assert (await sandbox.api.client.put("/v1/sandbox/payers/nobody", json={"next_charges": []})).status_code == 422
    assert (await sandbox.api.client.get(f"/v1/sandbox/payers/{member}")).json()["next_charges"] == ["fail"]
    unknown = await sandbox.api.client.get(f"/v1/sandbox/payers/{new_id()}")
    assert (unknown.status_code, unknown.json()["next_charges"]) == (200, [])


async def test_production_knows_no_payers(run: Run) -> None:
    async with run(service, env="production", stripe_webhook_secrets=("whsec_x",), coupon_keys=("k" * 32,)) as api:
        path = f"/v1/sandbox/payers/{new_id()}"
        assert (await api.client.put(path, json={"next_charges": []})).status_code == 404
        assert (await api.client.get(path)).status_code == 404
