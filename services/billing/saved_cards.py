"""Kept cards at the provider: charged while their owner is away, replaced on a page of the provider's."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import stripe

from services.billing.means import KeptCard, Means, kept_card, means_of
from services.billing.models import Order
from services.billing.provider import Provider, ProviderRefusal, ProviderSession, line_item, session_of
from services.billing.subscription_models import RenewalAttempt, SubscriptionPage

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams
    from stripe.params.checkout import SessionCreateParams

PAGE = 100
CLOCKS_DIFFER_S = 3600
SHORTEST = timedelta(minutes=35)
LONGEST = timedelta(hours=23)


@dataclass(frozen=True)
class Charge:
    """What came of a charge: `pending` is not known yet, `action` means that the bank asks for the card's owner."""

    status: Literal["succeeded", "failed", "action", "pending"]
    ref: str | None = None
    amount: int = 0
    currency: str = ""
    means: Means = field(default_factory=Means)
    failure: str | None = None


async def charge(provider: Provider, attempt: RenewalAttempt, order: Order) -> Charge:
    """Charge the attempt's card; asking again for the same attempt answers the same charge.

    PaymentProviderUnavailable when nobody knows whether it was charged.
    """
    params: PaymentIntentCreateParams = {
        "amount": attempt.amount,
        "currency": attempt.currency.lower(),
        "customer": attempt.customer_ref,
        "payment_method": attempt.payment_method_ref,
        "allowed_payment_method_types": ["card"],
        "off_session": True,
        "confirm": True,
        "description": order.title,
        "metadata": {
            "order_id": str(order.id),
            "member_id": str(order.member_id),
            "attempt_id": str(attempt.id),
        },
        "expand": ["latest_charge"],
    }
    intents = provider.client.v1.payment_intents
    try:
        made = await provider.ask(intents.create_async(params, {"idempotency_key": f"renewal-{attempt.id}"}))
    except ProviderRefusal as refusal:
        return _refused(refusal)
    return _charge(made)


async def charge_made(provider: Provider, attempt: RenewalAttempt) -> Charge | None:
    """The charge that an earlier call for this attempt made after all; None when none did."""
    intents = provider.client.v1.payment_intents
    oldest = provider.epoch(attempt.created_at) - CLOCKS_DIFFER_S
    cursor: str | None = None
    while True:
        wanted: Any = {"customer": attempt.customer_ref, "limit": PAGE, "expand": ["data.latest_charge"]}
        found = await provider.ask(intents.list_async(wanted | ({"starting_after": cursor} if cursor else {})))
        for intent in found.data:
            if intent.to_dict().get("metadata", {}).get("attempt_id") == str(attempt.id):
                return _charge(intent)
        # Newest first: what is older than the attempt cannot be its charge.
        if not found.has_more or found.data[-1].created < oldest:
            return None
        cursor = found.data[-1].id


async def charge_state(provider: Provider, ref: str) -> Charge:
    """How a charge stands now."""
    intents = provider.client.v1.payment_intents
    return _charge(await provider.ask(intents.retrieve_async(ref, {"expand": ["latest_charge"]})))


def _charge(intent: stripe.PaymentIntent) -> Charge:
    failure = intent.last_payment_error.code if intent.last_payment_error else None
    if intent.status == "succeeded":
        means = means_of(intent.to_dict())
        return Charge("succeeded", intent.id, intent.amount_received, intent.currency.upper(), means)
    if intent.status in ("processing", "requires_capture", "requires_confirmation"):
        return Charge("pending", intent.id)
    asks = intent.status == "requires_action" or failure == "authentication_required"
    return Charge("action" if asks else "failed", intent.id, failure=failure or intent.status)


def _refused(refusal: ProviderRefusal) -> Charge:
    """A declined card, or a call that the provider will never take: either way nothing was charged."""
    error = refusal.__cause__
    intent = error.error.payment_intent if isinstance(error, stripe.CardError) and error.error else None
    asks = refusal.code == "authentication_required"
    return Charge("action" if asks else "failed", intent.id if intent else None, failure=refusal.code)


async def open_page(provider: Provider, page: SubscriptionPage, order: Order | None) -> ProviderSession:
    """The page on which the order is paid by a card that is kept, or without one a card is kept for nothing.

    Asking again for the same page answers the same session.
    """
    names = {"subscription_id": str(page.subscription_id), "member_id": str(page.member_id)}
    params: SessionCreateParams = {
        "allowed_payment_method_types": ["card"],
        "customer": page.customer_ref,
        "expires_at": provider.epoch(page.expires_at),
    }
    if order is None:
        params |= {"mode": "setup", "client_reference_id": str(page.subscription_id), "metadata": names}
        params |= {"currency": "cny", "setup_intent_data": {"metadata": names}}
    else:
        names |= {"order_id": str(order.id)}
        params |= {"mode": "payment", "client_reference_id": str(order.id), "metadata": names}
        params |= {"payment_intent_data": {"metadata": names, "setup_future_usage": "off_session"}}
        params |= {"line_items": [line_item(order)]}
    provider.way_back(params, page.success_url, page.cancel_url)
    sessions = provider.client.v1.checkout.sessions
    return session_of(await provider.ask(sessions.create_async(params, {"idempotency_key": f"page-{page.id}"})))


async def card_kept_on(provider: Provider, session_id: str) -> KeptCard | None:
    """The card that was kept on a finished page; None when there is none."""
    sessions = provider.client.v1.checkout.sessions
    wanted = {"expand": ["setup_intent.payment_method"]}
    found = (await provider.ask(sessions.retrieve_async(session_id, wanted))).to_dict()  # type: ignore[arg-type]
    setup = found.get("setup_intent")
    if not isinstance(setup, dict) or setup.get("status") != "succeeded":
        return None
    method = setup.get("payment_method")
    card: dict[str, Any] = (method.get("card") or {}) if isinstance(method, dict) else {}
    return kept_card(setup.get("customer") or found.get("customer"), method, card)


def page_life(now: datetime, until: datetime | None) -> datetime:
    """Until when a page opened now is good: Stripe allows half an hour to a day."""
    longest = now + LONGEST
    return longest if until is None else max(now + SHORTEST, min(longest, until))
