"""Refunds over the real SDK: whole, partial, never more than was paid, and late for wallets."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import stripe

from tests.services.billing.sandbox.conftest import WALLETS, Sandbox


async def test_a_refund_gives_everything_back_and_tells_it(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    await sandbox.api.run_due()
    sandbox.receiver.events.clear()

    refund = await sandbox.v1.refunds.create_async(
        {"payment_intent": intent.id, "reason": "requested_by_customer", "metadata": {"refund_id": "r1"}},
        {"idempotency_key": "refund-r1"},
    )

    assert (refund.amount, refund.status, refund.currency) == (4400, "succeeded", "cny")
    assert (refund.charge, refund.payment_intent) == (intent.latest_charge, intent.id)
    assert refund.metadata is not None
    assert refund.metadata.to_dict() == {"refund_id": "r1"}
    charge = await sandbox.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (4400, True)
    await sandbox.api.run_due()
    assert sandbox.receiver.types == ["refund.created", "charge.refunded"]
    created, refunded = sandbox.receiver.events
    assert (created.data.object["id"], refunded.data.object["amount_refunded"]) == (refund.id, 4400)
    assert created.request is not None
    assert created.request.idempotency_key == "refund-r1"
    assert (await sandbox.v1.refunds.retrieve_async(refund.id)).to_dict() == refund.to_dict()


async def test_partial_refunds_add_up_to_the_charge_and_no_further(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    charge = str(intent.latest_charge)
    refunds = sandbox.v1.refunds
    first = await refunds.create_async({"charge": charge, "amount": 1000})

    with pytest.raises(stripe.InvalidRequestError) as refused:
        await refunds.create_async({"charge": charge, "amount": 3401})
    assert (refused.value.code, refused.value.param) == ("amount_too_large", "amount")
    rest = await refunds.create_async({"payment_intent": intent.id})

    assert (first.amount, rest.amount) == (1000, 3400)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await refunds.create_async({"payment_intent": intent.id, "amount": 1})
    assert (refused.value.code, refused.value.http_status) == ("charge_already_refunded", 400)
    listed = await refunds.list_async({"payment_intent": intent.id})
    assert [refund.id for refund in listed.data] == [rest.id, first.id]
    assert (await refunds.list_async({"charge": "ch_other"})).data == []


async def test_refunds_at_once_never_exceed_the_charge(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()

    async def refund() -> str | None:
        try:
            await sandbox.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1500})
        except stripe.InvalidRequestError as refused:
            return refused.code
        return None

    answers = await asyncio.gather(*(refund() for _ in range(8)))

    assert (answers.count(None), answers.count("amount_too_large")) == (2, 6)
    charge = await sandbox.v1.charges.retrieve_async(str(intent.latest_charge))
    assert charge.amount_refunded == 3000


@pytest.mark.parametrize("method", WALLETS)
async def test_a_wallets_refund_is_pending_until_it_settles(sandbox: Sandbox, method: dict[str, Any]) -> None:
    intent = await sandbox.paid(**method)
    await sandbox.api.run_due()
    sandbox.receiver.events.clear()

    refund = await sandbox.v1.refunds.create_async({"payment_intent": intent.id, "amount": 400})

    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    assert await sandbox.api.run_due() == 4
    assert sandbox.receiver.types == ["refund.created", "charge.refunded", "refund.updated"]
    assert sandbox.receiver.events[2].data.object["status"] == "succeeded"
    assert (await sandbox.v1.refunds.retrieve_async(refund.id)).status == "succeeded"
    assert await sandbox.api.run_due() == 0


async def test_alipay_takes_no_refund_after_ninety_days(sandbox: Sandbox) -> None:
    wallet, card = await sandbox.paid(**WALLETS[0]), await sandbox.paid()
    sandbox.api.clock.advance(timedelta(days=89, hours=23))
    await sandbox.v1.refunds.create_async({"payment_intent": wallet.id, "amount": 1})

    sandbox.api.clock.advance(timedelta(hours=2))
    with pytest.raises(stripe.InvalidRequestError, match="90 days"):
        await sandbox.v1.refunds.create_async({"payment_intent": wallet.id, "amount": 1})

    assert (await sandbox.v1.refunds.create_async({"payment_intent": card.id})).status == "succeeded"
    assert await sandbox.count("sandbox_refund") == 2


async def test_what_was_not_paid_is_not_refunded(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    failed = (await sandbox.press(opened.id, "fail")).json()["payment_intent"]
    later = (await sandbox.press((await sandbox.open()).id, settles_in="P1D")).json()["payment_intent"]
    intent = await sandbox.paid()
    wrong: list[tuple[Any, str]] = [
        ({"payment_intent": failed}, "charge_not_refundable"),
        ({"payment_intent": later}, "charge_not_refundable"),
        ({"payment_intent": "pi_none"}, "resource_missing"),
        ({"charge": "ch_none"}, "resource_missing"),
        ({}, "parameter_missing"),
        ({"charge": intent.latest_charge, "payment_intent": intent.id}, "parameter_missing"),
        ({"payment_intent": intent.id, "amount": 0}, "parameter_invalid_integer"),
        ({"payment_intent": intent.id, "amount": -1}, "parameter_invalid_integer"),
        ({"payment_intent": intent.id, "reason": "regret"}, "parameter_invalid"),
        ({"payment_intent": intent.id, "reverse_transfer": True}, "parameter_not_in_sandbox"),
    ]
    for params, code in wrong:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await sandbox.v1.refunds.create_async(params)
        assert refused.value.code == code, params
    assert await sandbox.count("sandbox_refund") == 0
