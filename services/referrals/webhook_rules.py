"""The rules of Standard Webhooks: how a message is signed, what an answer means, and when to try again."""

import base64
import hashlib
import hmac
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from kit.outbound import Reply

# The rules' own schedule; each waits since the try before it.
SCHEDULE: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
)
EARLIER: Final = 0.1
"""A wait is up to this part shorter, so that what failed together does not come back together."""
GIVE_UP_AFTER: Final = timedelta(days=5)


def sign(secrets: Sequence[str], message_id: str, stamp: int, body: bytes) -> str:
    """The `webhook-signature` (Standard Webhooks, "Signature scheme"): v1, HMAC-SHA256 over id.timestamp.body."""
    signed = f"{message_id}.{stamp}.".encode() + body
    keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}" for key in keys)


def judge(reply: Reply | None, tries: int) -> tuple[str, timedelta | None]:
    """What a try makes of its delivery, and how long the next one waits."""
    if reply is not None and reply.status // 100 == 2:  # noqa: PLR2004 - any 2xx
        return "succeeded", None
    if (reply is not None and reply.status == HTTPStatus.GONE) or tries >= len(SCHEDULE):
        return "failed", None
    wait = SCHEDULE[tries] * (1 - random.random() * EARLIER)  # noqa: S311 - no secret
    asked = _retry_after(reply.headers.get("retry-after", "")) if reply is not None else None
    return "pending", max(wait, asked) if asked is not None else wait


def _retry_after(value: str) -> timedelta | None:
    """RFC 9110 10.2.3: seconds or a date, at most a day."""
    if value.isascii() and value.isdigit():
        return min(timedelta(seconds=int(value[:9])), timedelta(days=1))
    with suppress(ValueError, TypeError):
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
        return timedelta(seconds=min(max(seconds, 0), 86400))
    return None
