"""Text messages: an HTTP gateway in production, the sandbox's own notebook otherwise."""

from typing import Protocol

import httpx
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit.errors import Unavailable
from services.members.models import SandboxSms
from services.members.settings import Settings
from services.members.vault import open_vault

log = structlog.get_logger(__name__)

TIMEOUT_S = 5.0


class SmsUnavailable(Unavailable):
    """The code could not be sent just now; ask for another in a moment."""

    zh = "验证码暂时发不出去，请稍后重新获取。"


class Sms(Protocol):
    """Sends a code to a phone; SmsUnavailable when it could not."""

    async def send(self, session: AsyncSession, phone: str, code: str) -> None:
        """Send the code; what is written through the session is not committed yet."""


class SandboxNotebook:
    """Writes the last code of each phone down, for `GET /v1/sandbox/otp`."""

    def __init__(self, settings: Settings) -> None:
        self._vault = open_vault(settings.key)

    async def send(self, session: AsyncSession, phone: str, code: str) -> None:
        """Write it down."""
        note = insert(SandboxSms).values(digest=self._vault.digest("phone", phone), code=code)
        await session.execute(note.on_conflict_do_update(index_elements=["digest"], set_={"code": note.excluded.code}))


class HttpGateway:
    """Posts `{phone, code}` as JSON to the configured address; any 2xx answer means it was taken."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def send(self, session: AsyncSession, phone: str, code: str) -> None:  # noqa: ARG002 - the notebook's need
        """Send it; the gateway's answer decides."""
        if not self._settings.sms_url:
            log.error("no SMS gateway is configured", setting="MEMBERS_SMS_URL")
            raise SmsUnavailable
        headers = {"Authorization": f"Bearer {self._settings.sms_token}"} if self._settings.sms_token else {}
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                answer = await client.post(self._settings.sms_url, json={"phone": phone, "code": code}, headers=headers)
                answer.raise_for_status()
        except httpx.HTTPError as failure:
            log.warning("SMS not sent", error=type(failure).__name__)
            raise SmsUnavailable from failure


def sms_of(settings: Settings) -> Sms:
    """How this process sends text messages: a configured gateway, else the sandbox's notebook."""
    if settings.sandbox and not settings.sms_url:
        return SandboxNotebook(settings)
    return HttpGateway(settings)
