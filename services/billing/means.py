"""Means of payment: what paid, and the card that may be charged again."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KeptCard:
    """A card the provider keeps for one of its customers, by the provider's ids; brand and digits are for showing."""

    customer: str
    payment_method: str
    brand: str | None = None
    last4: str | None = None


@dataclass(frozen=True)
class Means:
    """What a payment was made with: the fingerprint tells one card or wallet from another; `card` if it was kept."""

    fingerprint: str | None = None
    card: KeptCard | None = None


def means_of(intent: dict[str, Any]) -> Means:
    """The means of a payment, from the provider's PaymentIntent with `latest_charge` expanded."""
    charge = intent.get("latest_charge")
    details: dict[str, Any] = (charge.get("payment_method_details") or {}) if isinstance(charge, dict) else {}
    means = details.get(details.get("type", "")) or {}
    return Means(means.get("fingerprint"), kept_card(intent.get("customer"), intent.get("payment_method"), means))


def kept_card(customer: Any, payment_method: Any, card: dict[str, Any]) -> KeptCard | None:
    """A card that can be charged again; None unless both its owner and the card itself are known."""
    customer_id, method_id = _id(customer), _id(payment_method)
    if customer_id is None or method_id is None:
        return None
    return KeptCard(customer_id, method_id, card.get("brand"), card.get("last4"))


def _id(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) and value else None
