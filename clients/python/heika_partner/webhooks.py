"""Webhooks as they arrive: proof that Heika sent exactly these bytes, and sent them just now."""

import base64
import binascii
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

TOLERANCE_S: Final = 300
"""How far a message's time may lie from now (Standard Webhooks, "Verifying webhook authenticity")."""
_LONGEST: Final = 15


class WebhookRefused(Exception):
    """This is no message from Heika, or an old one sent again by somebody else: answer 400 and do nothing."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened; `id` stays the same however often it is sent, so whoever has heard it once can leave it."""

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]


class Webhook:
    """Verifies messages to one endpoint by its secret; during a rotation, by any of several."""

    def __init__(self, *secrets: str, tolerance_s: float = TOLERANCE_S) -> None:
        """Secrets as they were shown, `whsec_…`; ValueError for what is none."""
        self._keys = [_key(secret) for secret in secrets]
        if not self._keys:
            raise ValueError("a secret is needed")
        self._tolerance_s = tolerance_s

    def verify(self, body: bytes, headers: Mapping[str, str], *, now: float | None = None) -> Event:
        """The event in a request: `body` as it came, not parsed and written anew; WebhookRefused for anything else.

        `now` is the time in seconds since 1970, the clock's own when left out.
        """
        told = {name.lower(): value for name, value in headers.items()}
        message_id, stamp = told.get("webhook-id", ""), told.get("webhook-timestamp", "")
        if not message_id or not (stamp.isascii() and stamp.isdigit() and len(stamp) <= _LONGEST):
            raise WebhookRefused("webhook-id or webhook-timestamp is missing or malformed")
        if abs((time.time() if now is None else now) - int(stamp)) > self._tolerance_s:
            raise WebhookRefused("the message is too old, or one of the clocks is wrong")
        signed = f"{message_id}.{stamp}.".encode() + body
        expected = [hmac.digest(key, signed, "sha256") for key in self._keys]
        offered = list(_signatures(told.get("webhook-signature", "")))
        # All are compared: how long it takes tells nothing of which came near.
        if not sum(hmac.compare_digest(one, other) for one in expected for other in offered):
            raise WebhookRefused("no signature fits")
        return _event(message_id, body)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("a secret is whsec_ and base64, as it was shown when the endpoint was made")
    return key


def _signatures(header: str) -> list[bytes]:
    found = []
    for item in header.split(" "):
        version, _, encoded = item.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(encoded, validate=True))
            except (binascii.Error, ValueError):
                continue
    return found


def _event(message_id: str, body: bytes) -> Event:
    try:
        told = json.loads(body)
        return Event(message_id, str(told["type"]), datetime.fromisoformat(told["timestamp"]), dict(told["data"]))
    except (ValueError, TypeError, KeyError) as failure:
        raise WebhookRefused("the message is signed, but no event") from failure
