"""Text messages: an HTTP gateway in production, the sandbox's own notebook otherwise."""

from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit.errors import Unavailable
from kit.vault import open_vault
from services.members.models import SandboxSms
from services.members.settings import Settings

log = structlog.get_logger(__name__)

TIMEOUT_S = 5.0
LONGEST_ID = 200

# What the same request will be answered again however often it is sent.
_FINAL = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)

Proof = dict[str, Any]
"""By whom a text was taken, under which id, and its digest: what is shown when somebody says they were not told."""


class SmsUnavailable(Unavailable):
    """The code could not be sent just now; ask for another in a moment."""

    zh = "验证码暂时发不出去，请稍后重新获取。"


class SmsRefused(Exception):
    """The gateway will never take this text for this phone; the status is what it answered."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Sms(Protocol):
    """Sends codes and texts to phones; SmsUnavailable when it could not."""

    async def send(self, session: AsyncSession, phone: str, code: str) -> None:
        """Send the code; what is written through the session is not committed yet."""

    async def send_text(self, phone: str, text: str, key: str) -> Proof:
        """Send a text, once however often it is asked with the same key; SmsRefused when that will never be."""


class SandboxNotebook:
    """Writes the last code of each phone down, for `GET /v1/sandbox/otp`; texts are in `GET /v1/sandbox/notices`."""

    def __init__(self, settings: Settings) -> None:
        self._vault = open_vault(settings.key)

    async def send(self, session: AsyncSession, phone: str, code: str) -> None:
        """Write it down."""
        note = insert(SandboxSms).values(digest=self._vault.digest("phone", phone), code=code)
        await session.execute(note.on_conflict_do_update(index_elements=["digest"], set_={"code": note.excluded.code}))

    async def send_text(self, phone: str, text: str, key: str) -> Proof:  # noqa: ARG002 - the gateway's need
        """Take it; the notice itself is the note."""
        return {"provider": "sandbox", "message_id": key, "text_sha256": _digest(text)}


class HttpGateway:
    """Posts `{phone, code}` or `{phone, text}` as JSON to the configured address; any 2xx answer means it was taken."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def send(self, session: AsyncSession, phone: str, code: str) -> None:  # noqa: ARG002 - the notebook's need
        """Send it; the gateway's answer decides."""
        answer = await self._post({"phone": phone, "code": code}, {})
        if not answer.is_success:
            log.warning("SMS not sent", status=answer.status_code)
            raise SmsUnavailable

    async def send_text(self, phone: str, text: str, key: str) -> Proof:
        """Send it with the key as `Idempotency-Key`; the answer's `message_id` or `id` is part of the proof."""
        answer = await self._post({"phone": phone, "text": text}, {"Idempotency-Key": key})
        if answer.status_code in _FINAL:
            raise SmsRefused(answer.status_code)
        if not answer.is_success:
            log.warning("SMS not sent", status=answer.status_code)
            raise SmsUnavailable
        return {
            "provider": urlsplit(self._settings.sms_url).hostname,
            "status": answer.status_code,
            "message_id": _message_id(answer),
            "text_sha256": _digest(text),
        }

    async def _post(self, body: Mapping[str, str], headers: Mapping[str, str]) -> httpx.Response:
        if not self._settings.sms_url:
            log.error("no SMS gateway is configured", setting="MEMBERS_SMS_URL")
            raise SmsUnavailable
        token = {"Authorization": f"Bearer {self._settings.sms_token}"} if self._settings.sms_token else {}
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                return await client.post(self._settings.sms_url, json=body, headers={**headers, **token})
        except httpx.HTTPError as failure:
            log.warning("SMS not sent", error=type(failure).__name__)
            raise SmsUnavailable from failure


def _message_id(answer: httpx.Response) -> str | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    found = (body.get("message_id") or body.get("id")) if isinstance(body, dict) else None
    return str(found)[:LONGEST_ID] if isinstance(found, (str, int)) else None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def sms_of(settings: Settings) -> Sms:
    """How this process sends text messages: a configured gateway, else the sandbox's notebook."""
    if settings.sandbox and not settings.sms_url:
        return SandboxNotebook(settings)
    return HttpGateway(settings)
