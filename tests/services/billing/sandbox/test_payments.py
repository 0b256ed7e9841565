"""The money of the sandbox provider: paid once, failed, late, twice on demand; told to the webhook each time."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.services.billing.sandbox.conftest import WALLETS, Sandbox

PAID = ["payment_intent.succeeded", "checkout.session.completed"]


async def test_pay_answers_after_the_money_has_moved(sandbox: Sandbox) -> None:
    opened = await sandbox.open()

    answer = await sandbox.press(opened.id)

    assert answer.status_code == 200
    session = await sandbox.v1.checkout.sessions.retrieve_async(opened.id, {"expand": ["payment_intent.latest_charge"]})
    intent: Any = session.payment_intent
    assert answer.json() == {
        "session_id": opened.id,
        "status": "complete",
        "payment_status": "paid",
        "payment_intent": intent.id,
    }
    assert (session.status, session.payment_status, session.url) == ("complete", "paid", None)
    assert (intent.status, intent.amount, intent.amount_received, intent.currency) == ("succeeded", 4400, 4400, "cny")
    assert intent.metadata["order_id"] == "order-1"
    charge = intent.latest_charge
    assert (charge.status, charge.paid, charge.captured, charge.amount, charge.amount_refunded) == (
        "succeeded", True, True, 4400, 0
    )  # fmt: skip
    assert charge.payment_method_details.type == "card"
    assert len(charge.payment_method_details.card.fingerprint) == 16
    assert charge.receipt_url == opened.url
    assert charge.receipt_number


async def test_the_webhook_hears_of_a_payment_once_and_signed(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    payment = (await sandbox.press(opened.id)).json()["payment_intent"]

    assert await sandbox.api.run_due() == 2

    assert sandbox.receiver.types == PAID
    succeeded, completed = (event.data.object for event in sandbox.receiver.events)
    assert (succeeded["id"], succeeded["amount_received"]) == (payment, 4400)
    assert (completed["id"], completed["payment_intent"]) == (opened.id, payment)
    assert (completed["payment_status"], completed["amount_total"], completed["currency"]) == ("paid", 4400, "cny")
    assert completed["client_reference_id"] == "order-1"
    assert completed["metadata"].to_dict() == {"order_id": "order-1", "member_id": "member-1"}
    assert await sandbox.api.run_due() == 0
    assert sandbox.receiver.heard == 2


async def test_a_closed_session_cannot_be_paid_again(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    await sandbox.press(opened.id)

    again = await sandbox.press(opened.id)

    assert (again.status_code, again.json()["code"]) == (409, "session_closed")
    assert (await sandbox.press(opened.id, "fail")).status_code == 409
    assert await sandbox.count("sandbox_charge") == 1


async def test_of_many_payments_at_once_one_succeeds(sandbox: Sandbox) -> None:
    opened = await sandbox.open()

    answers = await asyncio.gather(*(sandbox.press(opened.id) for _ in range(12)))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 11
    assert await sandbox.count("sandbox_charge") == 1
    await sandbox.api.run_due()
    assert sandbox.receiver.types == PAID


async def test_an_unknown_session_is_not_found(sandbox: Sandbox) -> None:
    for unknown in ("cs_test_" + "0" * 64, "cs_live_1", "%00", "x" * 300):
        answer = await sandbox.press(unknown)
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found"), unknown
        assert (await sandbox.press(unknown, "fail")).status_code == 404


async def test_an_expired_session_cannot_be_paid_before_any_clean_up(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    sandbox.api.clock.advance(timedelta(hours=24))

    for duplicate in (False, True):
        assert (await sandbox.press(opened.id, duplicate=duplicate)).json()["code"] == "session_closed"

    assert await sandbox.count("sandbox_charge") == 0


@pytest.mark.parametrize("method", WALLETS)
async def test_a_wallet_pays_with_a_fingerprint_of_its_own(sandbox: Sandbox, method: dict[str, Any]) -> None:
    kind = method["allowed_payment_method_types"][0]
    intent = await sandbox.paid(**method)

    charge = await sandbox.v1.charges.retrieve_async(str(intent.latest_charge))

    details: Any = charge.payment_method_details
    assert (details["type"], len(details[kind]["fingerprint"])) == (kind, 16)
    assert intent.payment_method_types == [kind]
    await sandbox.api.run_due()
    assert sandbox.receiver.types == PAID


async def test_a_payer_keeps_one_fingerprint_unless_pay_names_another(sandbox: Sandbox) -> None:
    async def fingerprint(member: str, **body: Any) -> str:
        opened = await sandbox.open(metadata={"member_id": member})
        payment = (await sandbox.press(opened.id, **body)).json()["payment_intent"]
        intent: Any = await sandbox.v1.payment_intents.retrieve_async(payment, {"expand": ["latest_charge"]})
        return str(intent.latest_charge.payment_method_details.card.fingerprint)

    first, again, other = await fingerprint("a"), await fingerprint("a"), await fingerprint("b")
    assert first == again
    assert first != other
    assert await fingerprint("b", fingerprint="shared-card") == "shared-card"
    assert await fingerprint("b") == other


async def test_duplicate_pays_twice_and_tells_everything_twice(sandbox: Sandbox) -> None:
    opened = await sandbox.open()

    answer = await sandbox.press(opened.id, duplicate=True)

    assert answer.status_code == 200
    intents = (await sandbox.v1.payment_intents.list_async()).data
    assert [(intent.amount_received, intent.metadata["order_id"]) for intent in intents] == [(4400, "order-1")] * 2
    assert answer.json()["payment_intent"] == intents[1].id
    assert await sandbox.api.run_due() == 8
    assert sorted(sandbox.receiver.types) == sorted(PAID * 4)
    assert len({event.id for event in sandbox.receiver.events}) == 4
    told = [e.data.object["payment_intent"] for e in sandbox.receiver.events if e.type == "checkout.session.completed"]
    assert sorted(told) == sorted([intents[0].id, intents[1].id] * 2)
    assert (await sandbox.v1.checkout.sessions.retrieve_async(opened.id)).payment_intent == intents[1].id


async def test_duplicate_also_pays_what_was_paid_before(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    await sandbox.press(opened.id)
    await sandbox.api.run_due()

    answer = await sandbox.press(opened.id, duplicate=True)

    assert answer.status_code == 200
    assert await sandbox.count("sandbox_intent") == 2
    assert await sandbox.api.run_due() == 4


async def test_a_declined_payment_leaves_the_session_open_for_another_try(sandbox: Sandbox) -> None:
    opened = await sandbox.open()

    declined = (await sandbox.press(opened.id, "fail")).json()

    assert (declined["status"], declined["payment_status"]) == ("open", "unpaid")
    intent: Any = await sandbox.v1.payment_intents.retrieve_async(
        declined["payment_intent"], {"expand": ["latest_charge"]}
    )
    assert (intent.status, intent.amount_received) == ("requires_payment_method", 0)
    assert (intent.last_payment_error.code, intent.latest_charge.failure_code) == ("card_declined", "card_declined")
    assert intent.latest_charge.paid is False
    paid = (await sandbox.press(opened.id)).json()
    assert paid["payment_intent"] == declined["payment_intent"]
    assert await sandbox.count("sandbox_charge") == 2
    await sandbox.api.run_due()
    assert sandbox.receiver.types == ["payment_intent.payment_failed", *PAID]


async def test_money_paid_later_arrives_by_the_products_clock(sandbox: Sandbox) -> None:
    opened = await sandbox.open()

    answer = (await sandbox.press(opened.id, settles_in="P2D")).json()

    assert (answer["status"], answer["payment_status"]) == ("complete", "unpaid")
    assert await sandbox.api.run_due() == 1
    assert sandbox.receiver.events[0].data.object["payment_status"] == "unpaid"
    assert (await sandbox.press(opened.id)).status_code == 409
    assert (await sandbox.press(opened.id, duplicate=True)).status_code == 409
    intent = await sandbox.v1.payment_intents.retrieve_async(answer["payment_intent"])
    assert (intent.status, intent.amount_received) == ("processing", 0)

    sandbox.api.clock.advance(timedelta(days=2))
    assert await sandbox.api.run_due() == 3

    assert sandbox.receiver.types == [
        "checkout.session.completed",
        "payment_intent.succeeded",
        "checkout.session.async_payment_succeeded",
    ]
    assert sandbox.receiver.events[2].data.object["payment_status"] == "paid"
    intent = await sandbox.v1.payment_intents.retrieve_async(answer["payment_intent"])
    assert (intent.status, intent.amount_received) == ("succeeded", 4400)
    assert await sandbox.api.run_due() == 0


async def test_money_on_its_way_may_fail_to_arrive(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    await sandbox.press(opened.id, settles_in="PT10M")

    answer = (await sandbox.press(opened.id, "fail")).json()

    assert (answer["status"], answer["payment_status"]) == ("complete", "unpaid")
    sandbox.api.clock.advance(timedelta(days=1))
    await sandbox.api.run_due()
    assert sandbox.receiver.types == [
        "checkout.session.completed",
        "payment_intent.payment_failed",
        "checkout.session.async_payment_failed",
    ]
    assert (await sandbox.api.sql("SELECT status FROM sandbox_charge")) == [("failed",)]


async def test_a_wrong_body_pays_nothing(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    wrong: list[dict[str, Any]] = [
        {"duplicate": "yes"},
        {"fingerprint": ""},
        {"fingerprint": "x" * 65},
        {"settles_in": "P31D"},
        {"settles_in": "-PT1S"},
        {"settles_in": "soon"},
        {"amount": 1},
    ]
    for body in wrong:
        assert (await sandbox.press(opened.id, **body)).status_code == 422, body

    assert (await sandbox.v1.checkout.sessions.retrieve_async(opened.id)).status == "open"


async def test_pay_needs_no_body(sandbox: Sandbox) -> None:
    opened = await sandbox.open()

    answer = await sandbox.api.client.post(f"/v1/sandbox/checkout/{opened.id}/pay")

    assert (answer.status_code, answer.json()["status"]) == (200, "complete")
