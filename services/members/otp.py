"""One-time codes: six digits by text message, alive for five minutes and five tries, used once."""

import hmac
import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import Query, Request
from pydantic import BeforeValidator
from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime, router
from kit.db import SessionDep
from kit.errors import NotAuthenticated, NotFound, TooManyRequests, problems
from kit.limits import limit, limit_address
from kit.shapes import In, Out
from kit.vault import Vault, open_vault
from services.members.models import Otp, SandboxSms
from services.members.phones import Phone
from services.members.settings import SettingsDep
from services.members.sms import SmsUnavailable, sms_of

api = router(prefix="/v1/auth/otp", tags=["sign-in"], idempotent=False)
sandbox_api = router(prefix="/v1/sandbox/otp", tags=["sandbox"])

LIFE = timedelta(minutes=5)
RESEND = timedelta(seconds=60)
TRIES = 5
CODES_AN_HOUR = 10
CODES_AN_ADDRESS = 30
ADDRESS_WINDOW_S = 600
HOUR_S = 3600


class InvalidCode(NotAuthenticated):
    """This code is wrong, was used, or was tried too often; check it, or ask for another."""

    zh = "验证码不正确、已用过或尝试次数过多，请检查或重新获取。"
    action = ""


class CodeExpired(NotAuthenticated):
    """This code is older than five minutes; ask for another."""

    zh = "验证码已超过 5 分钟，请重新获取。"
    action = ""


class NoCodeSent(NotFound):
    """No code was sent to this phone."""

    zh = "还没有向这个手机号发过验证码。"


class OtpIn(In):
    """The phone to send a code to."""

    phone: Phone


class OtpOut(Out):
    """How long the code lives, and when another may be asked for; both in seconds."""

    expires_in: int
    retry_after: int


class SandboxCode(Out):
    """The code last sent."""

    code: str


def _code_hash(vault: Vault, digest: str, code: str) -> bytes:
    return bytes.fromhex(vault.digest("otp", f"{digest}:{code}"))


@api.post("", status_code=202, responses=problems(TooManyRequests, SmsUnavailable))
async def send_code(body: OtpIn, request: Request, session: SessionDep, settings: SettingsDep) -> OtpOut:
    """Send a six-digit code to a phone, whether anybody is registered with it or not; once a minute at most."""
    await limit_address(request, "otp", times=CODES_AN_ADDRESS, seconds=ADDRESS_WINDOW_S)
    vault, now = open_vault(settings.key), clock.now()
    digest = vault.digest("phone", body.phone)
    code = f"{secrets.randbelow(10**6):06}"
    fresh = {
        "code_hash": _code_hash(vault, digest, code),
        "tries": 0,
        "sent_at": now,
        "expires_at": now + LIFE,
        "used_at": None,
    }
    statement = insert(Otp).values(digest=digest, **fresh)
    written = await session.execute(
        statement.on_conflict_do_update(
            index_elements=["digest"],
            set_={name: statement.excluded[name] for name in fresh},
            where=or_(col(Otp.sent_at) <= now - RESEND, col(Otp.used_at).is_not(None)),
        ).returning(col(Otp.digest))
    )
    if written.one_or_none() is None:
        sent_at = (await session.execute(select(col(Otp.sent_at)).where(col(Otp.digest) == digest))).scalar_one()
        raise TooManyRequests(
            retry_after=(sent_at + RESEND - now).total_seconds(), policy=("resend", 1, RESEND.total_seconds())
        )
    await limit(request, "otp:phone", digest, times=CODES_AN_HOUR, seconds=HOUR_S)
    # Committed before it is sent: a person who holds the code must find it valid.
    await session.commit()
    try:
        await sms_of(settings).send(session, body.phone, code)
    except SmsUnavailable:
        await session.execute(delete(Otp).where(col(Otp.digest) == digest, col(Otp.sent_at) == now))
        await session.commit()
        raise
    return OtpOut(expires_in=int(LIFE.total_seconds()), retry_after=int(RESEND.total_seconds()))


async def use_code(session: AsyncSession, vault: Vault, digest: str, code: str) -> None:
    """Use the live code of a phone up; InvalidCode or CodeExpired otherwise, the try counted even then.

    The first statement takes the row's lock for the rest of the transaction: of many who come with the right code at
    once, one uses it and the others find it used.
    """
    now = clock.now()
    attempt = (
        update(Otp)
        .where(col(Otp.digest) == digest, col(Otp.used_at).is_(None), col(Otp.tries) < TRIES)
        .values(tries=Otp.tries + 1)
        .returning(col(Otp.code_hash), col(Otp.expires_at))
    )
    held = (await session.execute(attempt)).one_or_none()
    given = _code_hash(vault, digest, code)
    # Compared also when nothing was sent, so that the time taken tells nothing.
    right = hmac.compare_digest(given, held.code_hash if held else bytes(len(given)))
    if held is None or not right:
        await session.commit()
        raise InvalidCode
    if held.expires_at <= now:
        await session.commit()
        raise CodeExpired
    await session.execute(update(Otp).where(col(Otp.digest) == digest).values(used_at=now))


def _plus(value: object) -> object:
    # In a query string an unescaped "+" arrives as a space; no phone number begins with one.
    return f"+{value[1:]}" if isinstance(value, str) and value.startswith(" ") else value


@sandbox_api.get("", responses=problems(NoCodeSent))
async def read_sent_code(
    phone: Annotated[Phone, BeforeValidator(_plus), Query()], session: SessionDep, settings: SettingsDep
) -> SandboxCode:
    """The code last sent to a phone; in the sandbox only."""
    statement = select(col(SandboxSms.code)).where(
        col(SandboxSms.digest) == open_vault(settings.key).digest("phone", phone)
    )
    code = (await session.execute(statement)).scalar_one_or_none()
    if code is None:
        raise NoCodeSent
    return SandboxCode(code=code)


async def forget_old_codes(rt: Runtime) -> int:
    """Delete codes a day past their end; how many."""
    async with rt.db.session() as session, session.begin():
        old = (
            select(col(Otp.digest))
            .where(col(Otp.expires_at) < clock.now() - timedelta(days=1))
            .limit(1000)
            .with_for_update(skip_locked=True)
        )
        gone = delete(Otp).where(col(Otp.digest).in_(old)).returning(col(Otp.digest))
        return len((await session.execute(gone)).all())
