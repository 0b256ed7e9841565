"""One try at a webhook: a signed request, and what its answer makes of the delivery."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row

from kit import clock
from kit.outbound import AddressRefused, Outbound, Reply
from kit.text import instant
from services.referrals.webhook_log import webhook_id
from services.referrals.webhook_rules import judge, sign

ANSWER_S: Final = 15.0
SHOWN: Final = 1000
"""So much of an answer is kept in the log."""


@dataclass(frozen=True)
class Try:
    """One try: what is written of it."""

    delivery_id: UUID
    status: str
    tries: int
    next_attempt_at: datetime | None
    attempt: dict[str, Any]
    seconds: float
    gone: bool


async def try_once(outbound: Outbound, url: str, secrets: Sequence[str], delivery: Row[Any]) -> Try:
    """Send a delivery's body to this address, signed by all of these secrets."""
    body, stamp, message_id = delivery.body.encode(), int(time.time()), webhook_id(delivery.message_id)
    headers = {
        "content-type": "application/json",
        "user-agent": "heika-webhooks/1",
        "webhook-id": message_id,
        # The real clock's: who verifies it knows no other.
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(secrets, message_id, stamp, body),
    }
    at, started = clock.now(), time.monotonic()
    reply, error = await _post(outbound, url, headers, body)
    seconds = time.monotonic() - started
    attempt = {
        "at": instant(at),
        "url": url,
        "request_headers": headers,
        "response_status": reply.status if reply else None,
        "duration_ms": int(seconds * 1000),
        "error": error,
        "response_body": reply.body[:SHOWN].decode("utf-8", "replace").replace("\x00", "") if reply else None,
    }
    status, wait = judge(reply, delivery.tries)
    return Try(
        delivery_id=delivery.id,
        status=status,
        tries=delivery.tries + 1,
        next_attempt_at=at + wait if wait is not None else None,
        attempt=attempt,
        seconds=seconds,
        gone=reply is not None and reply.status == HTTPStatus.GONE,
    )


async def _post(outbound: Outbound, url: str, headers: dict[str, str], body: bytes) -> tuple[Reply | None, str | None]:
    try:
        return await outbound.post(url, headers, body, seconds=ANSWER_S), None
    except AddressRefused:
        return None, "address_refused"
    except TimeoutError:
        return None, "timeout"
    except (OSError, ValueError) as failure:
        return None, str(failure)[:200] or type(failure).__name__
