"""Stripe's objects as JSON, rendered from the provider's rows."""

from functools import cache
from types import NoneType
from typing import Any, get_args

import stripe

from kit import clock
from services.billing.sandbox.models import (
    SandboxCharge,
    SandboxCustomer,
    SandboxEvent,
    SandboxIntent,
    SandboxMethod,
    SandboxRefund,
    SandboxSession,
    SandboxSetup,
)
from services.billing.sandbox.wire import epoch

Json = dict[str, Any]
API_VERSION: str = stripe.api_version
DECLINES = {
    "card_declined": "Your card was declined.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "payment_declined": "The wallet declined the payment.",
}


@cache
def nulls(shape: type[stripe.StripeObject]) -> Json:
    """Every field that the SDK says may be null, except lists, which Stripe includes only when asked."""
    hints = shape.__annotations__.items()
    return {name: None for name, hint in hints if NoneType in get_args(hint) and "ListObject" not in str(hint)}


def session_json(row: SandboxSession) -> Json:
    """A Checkout Session; one past its time is expired, whether or not the clean-up has come by."""
    status = "expired" if row.status == "open" and row.expires_at <= clock.now() else row.status
    sells = row.mode == "payment"
    return nulls(stripe.checkout.Session) | {
        "id": row.id,
        "object": "checkout.session",
        "amount_subtotal": row.amount_total if sells else None,
        "amount_total": row.amount_total if sells else None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "cancel_url": row.cancel_url,
        "client_reference_id": row.client_reference_id,
        "created": epoch(row.created_at),
        "currency": row.currency or None,
        "custom_fields": [],
        "custom_text": {"after_submit": None, "submit": None},
        "customer": row.customer_id,
        "customer_creation": row.customer_creation,
        "customer_email": row.customer_email,
        "expires_at": epoch(row.expires_at),
        "livemode": False,
        "locale": row.locale,
        "metadata": row.labels,
        "mode": row.mode,
        "payment_intent": row.intent_id,
        "payment_method_collection": "if_required",
        "payment_method_options": row.payment_method_options,
        "payment_method_types": row.payment_method_types,
        "payment_status": row.payment_status,
        "setup_intent": row.setup_id,
        "shipping_options": [],
        "status": status,
        "success_url": row.success_url,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0} if sells else None,
        "ui_mode": "hosted_page",
        "url": row.url if status == "open" else None,
    }


def line_items_json(row: SandboxSession) -> Json:
    """What a session sells; Stripe includes it only when asked to."""
    items = [
        {
            "id": f"li_{row.id.removeprefix('cs_test_')[:24]}{position}",
            "object": "item",
            "amount_discount": 0,
            "amount_subtotal": item["amount"],
            "amount_tax": 0,
            "amount_total": item["amount"],
            "currency": row.currency,
            "description": item["name"],
            "price": None,
            "quantity": item["quantity"],
        }
        for position, item in enumerate(row.line_items)
    ]
    return list_json(f"/v1/checkout/sessions/{row.id}/line_items", items, more=False)


def intent_json(row: SandboxIntent) -> Json:
    """A PaymentIntent."""
    return nulls(stripe.PaymentIntent) | {
        "id": row.id,
        "object": "payment_intent",
        "amount": row.amount,
        "amount_capturable": 0,
        "amount_received": row.amount_received,
        "canceled_at": epoch(row.canceled_at) if row.canceled_at else None,
        "cancellation_reason": row.cancellation_reason,
        "capture_method": "automatic",
        "confirmation_method": "automatic",
        "created": epoch(row.created_at),
        "currency": row.currency,
        "customer": row.customer_id,
        "description": row.description,
        "last_payment_error": row.last_payment_error,
        "latest_charge": row.latest_charge_id,
        "livemode": False,
        "metadata": row.labels,
        "payment_method": row.method_id,
        "payment_method_options": {},
        "payment_method_types": row.payment_method_types,
        "setup_future_usage": row.setup_future_usage,
        "status": row.status,
    }


def setup_json(row: SandboxSetup) -> Json:
    """A SetupIntent."""
    return nulls(stripe.SetupIntent) | {
        "id": row.id,
        "object": "setup_intent",
        "created": epoch(row.created_at),
        "customer": row.customer_id,
        "description": row.description,
        "last_setup_error": row.last_setup_error,
        "livemode": False,
        "metadata": row.labels,
        "payment_method": row.method_id,
        "payment_method_types": ["card"],
        "status": row.status,
        "usage": "off_session",
    }


def method_json(row: SandboxMethod) -> Json:
    """A PaymentMethod; of a card what may be shown of it."""
    details = _card(row) | {"display_brand": "visa"} if row.kind == "card" else {}
    return {
        "id": row.id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "created": epoch(row.created_at),
        "customer": row.customer_id,
        "livemode": False,
        "metadata": {},
        "type": row.kind,
        row.kind: details,
    }


def charge_json(row: SandboxCharge) -> Json:
    """A Charge with what it was paid with."""
    succeeded = row.status == "succeeded"
    return nulls(stripe.Charge) | {
        "id": row.id,
        "object": "charge",
        "amount": row.amount,
        "amount_captured": row.amount if succeeded else 0,
        "amount_refunded": row.amount_refunded,
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "captured": succeeded,
        "created": epoch(row.created_at),
        "currency": row.currency,
        "customer": row.customer_id,
        "description": row.description,
        "disputed": row.disputed,
        "failure_code": row.failure_code,
        "failure_message": DECLINES.get(row.failure_code or ""),
        "fraud_details": {},
        "livemode": False,
        "metadata": row.labels,
        "paid": succeeded,
        "payment_intent": row.intent_id,
        "payment_method": row.method_id,
        "payment_method_details": _means(row),
        "receipt_number": row.receipt_number,
        "receipt_url": row.receipt_url,
        "refunded": row.amount_refunded == row.amount,
        "status": row.status,
    }


def _means(row: SandboxCharge) -> Json:
    if row.method != "card":
        wallet = {"fingerprint": row.fingerprint, "transaction_id": row.id.removeprefix("ch_")}
        return {"type": row.method, row.method: wallet}
    return {"type": "card", "card": _card(row) | {"network": "visa"}}


def _card(row: SandboxCharge | SandboxMethod) -> Json:
    known = {"brand": "visa", "country": "CN", "funding": "credit", "last4": "4242"}
    return known | {"exp_month": 12, "exp_year": row.created_at.year + 3, "fingerprint": row.fingerprint}


def refund_json(row: SandboxRefund) -> Json:
    """A Refund."""
    return nulls(stripe.Refund) | {
        "id": row.id,
        "object": "refund",
        "amount": row.amount,
        "charge": row.charge_id,
        "created": epoch(row.created_at),
        "currency": row.currency,
        "destination_details": {"type": row.method, row.method: {}},
        "metadata": row.labels,
        "payment_intent": row.intent_id,
        "pending_reason": "processing" if row.status == "pending" else None,
        "reason": row.reason,
        "status": row.status,
    }


def event_json(row: SandboxEvent) -> Json:
    """An Event, as it is listed and as it is delivered."""
    return {
        "id": row.id,
        "object": "event",
        "account": None,
        "api_version": API_VERSION,
        "context": None,
        "created": epoch(row.created_at),
        "data": {"object": row.object},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None} | row.request,
        "type": row.type,
    }


def customer_json(row: SandboxCustomer) -> Json:
    """A Customer, with no more than was told."""
    return {
        "id": row.id,
        "object": "customer",
        "created": epoch(row.created_at),
        "description": row.description,
        "email": row.email,
        "livemode": False,
        "metadata": row.labels,
        "name": row.name,
        "phone": row.phone,
    }


def list_json(url: str, items: list[Json], *, more: bool) -> Json:
    """A page of objects."""
    return {"object": "list", "url": url, "has_more": more, "data": items}
