"""Payments as the provider's API shows and makes them: a kept card is charged while its owner is away."""

import re
from typing import Any

from stripe.params import (
    PaymentIntentCancelParams,
    PaymentIntentCreateParams,
    PaymentIntentListParams,
    PaymentIntentRetrieveParams,
)

from kit import clock
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.events import tell
from services.billing.sandbox.models import SandboxIntent
from services.billing.sandbox.objects import find, page
from services.billing.sandbox.payers import next_answer
from services.billing.sandbox.payments import charged, follow
from services.billing.sandbox.shapes import Json, intent_json, method_json
from services.billing.sandbox.wire import Declined, Refusal, new_key

MAX_AMOUNT = 99_999_999
FAILURES = {"fail": "card_declined", "require_action": "authentication_required"}
CANCELABLE = ("requires_payment_method", "requires_confirmation", "requires_action", "processing")


async def create(call: Call) -> Json:
    """Charge a customer's kept card at once; Declined when their bank says no, or asks for them.

    A charge that needs its owner's confirmation fails as Stripe's does while the owner is away: the payment requires a
    payment method again, and the error's code is `authentication_required`.
    """
    wanted = call.values
    for name in ("confirm", "off_session"):
        if not wanted.get(name):
            raise Refusal(
                "The sandbox provider charges kept cards only, off session.", "parameter_not_in_sandbox", name
            )
    for name in ("customer", "payment_method"):
        if name not in wanted:
            raise Refusal(f"Missing required param: {name}.", "parameter_missing", name)
    amount, currency = wanted["amount"], wanted["currency"]
    if not 1 <= amount <= MAX_AMOUNT:
        code = "amount_too_large" if amount > MAX_AMOUNT else "amount_too_small"
        raise Refusal(f"The amount must be between 1 and {MAX_AMOUNT}.", code, "amount")
    if not re.fullmatch("[a-z]{3}", currency):
        raise Refusal(f"Invalid currency: {currency[:10]}", "currency_not_supported", "currency")
    if wanted.get("allowed_payment_method_types", ["card"]) != ["card"]:
        name = "allowed_payment_method_types"
        raise Refusal("The sandbox provider charges cards only, off session.", "parameter_not_in_sandbox", name)
    customer = await find(call.session, "cus", wanted["customer"], "customer")
    card = await find(call.session, "pm", wanted["payment_method"], "payment_method")
    if card.customer_id != customer.id:
        message = f"The customer does not have a payment method with the ID {card.id}. It must be attached to them."
        raise Refusal(message, "resource_missing", "payment_method")
    intent = SandboxIntent(
        id=new_key("pi"),
        currency=currency,
        amount=amount,
        payment_method_types=["card"],
        customer_id=customer.id,
        description=wanted.get("description"),
        labels=wanted.get("metadata") or {},
        created_at=clock.now(),
    )
    call.session.add(intent)
    await call.session.flush()
    payers = [intent.labels.get("member_id"), customer.labels.get("member_id"), customer.id]
    failure = FAILURES.get(await next_answer(call.session, [key for key in payers if key]))
    charge = charged(call.session, intent, card, "failed" if failure else "succeeded")
    follow(intent, charge, failure)
    await call.session.flush()
    if intent.last_payment_error:
        shape = intent_json(intent)
        await tell(call.session, "payment_intent.payment_failed", intent.id, shape)
        error = dict(intent.last_payment_error)
        del error["type"]
        raise Declined(
            error.pop("message"), error.pop("code"), **error, payment_intent=shape, payment_method=method_json(card)
        )
    await tell(call.session, "payment_intent.succeeded", intent.id, intent_json(intent))
    return intent_json(intent)


async def cancel(call: Call) -> Json:
    """End a payment that has not succeeded; those of checkout sessions end with their session."""
    intent = await find(call.session, "pi", call.key, "intent")
    await call.session.refresh(intent, with_for_update=True)
    if intent.session_id is not None:
        raise Refusal(
            "This PaymentIntent was created by Checkout: expire its session.", "payment_intent_unexpected_state"
        )
    if intent.status not in CANCELABLE:
        message = f"You cannot cancel this PaymentIntent because it has a status of {intent.status}."
        raise Refusal(message, "payment_intent_unexpected_state", payment_intent=intent_json(intent))
    intent.status, intent.canceled_at = "canceled", clock.now()
    intent.cancellation_reason = call.values.get("cancellation_reason")
    await call.session.flush()
    await tell(call.session, "payment_intent.canceled", intent.id, intent_json(intent))
    return intent_json(intent)


async def retrieve(call: Call) -> Json:
    """One payment."""
    return intent_json(await find(call.session, "pi", call.key, "intent"))


async def list_all(call: Call) -> Json:
    """Payments, newest first."""
    row: Any = SandboxIntent
    conditions = [row.customer_id == call.values["customer"]] if "customer" in call.values else []
    return await page(call.session, "pi", call.path, call.values, *conditions)


_CREATE = """
    amount currency customer payment_method confirm off_session description metadata allowed_payment_method_types
"""
_PAGE = "limit starting_after ending_before created created.*"

OPERATIONS = [
    operation("POST", "/v1/payment_intents", PaymentIntentCreateParams, _CREATE, create),
    operation("GET", "/v1/payment_intents", PaymentIntentListParams, f"{_PAGE} customer", list_all),
    operation("GET", "/v1/payment_intents/{key}", PaymentIntentRetrieveParams, "", retrieve),
    operation("POST", "/v1/payment_intents/{key}/cancel", PaymentIntentCancelParams, "cancellation_reason", cancel),
]
