"""Heika's client for partners: what they may ask and say, and a verifier of what they are told."""

from heika_partner.calls import Refused
from heika_partner.client import Heika
from heika_partner.shapes import (
    Attempt,
    Commission,
    Delivery,
    Endpoint,
    EndpointWithSecret,
    EventType,
    Notice,
    Partner,
    PartnerLink,
    Payout,
    PayoutItem,
    Referral,
    Statement,
    Terms,
)
from heika_partner.webhooks import Event, Webhook, WebhookRefused

__all__ = [
    "Attempt",
    "Commission",
    "Delivery",
    "Endpoint",
    "EndpointWithSecret",
    "Event",
    "EventType",
    "Heika",
    "Notice",
    "Partner",
    "PartnerLink",
    "Payout",
    "PayoutItem",
    "Referral",
    "Refused",
    "Statement",
    "Terms",
    "Webhook",
    "WebhookRefused",
]
