"""One-time passwords of admins (RFC 6238): six digits of an authenticator app, beside the password, for whoever wants it."""

import base64
import hashlib
import hmac
import secrets
from typing import Annotated
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import AdminDep
from kit.db import SessionDep
from kit.errors import Conflict, NotAuthenticated, TooManyRequests, Unprocessable, problems
from kit.limits import limit
from kit.shapes import Out, StrictIn
from kit.vault import Vault, open_vault
from services.members import audit
from services.members.models import Admin
from services.members.settings import SettingsDep

api = router(prefix="/v1/auth/totp", tags=["admin sign-in"], idempotent=False)

STEP_S = 30
DIGITS = 6
SECRET_BYTES = 20
TRIES = 5
TRIES_WINDOW_S = 300
DRIFT = (0, -1, 1)
"""A phone's clock may be a step behind or ahead (RFC 6238 5.2)."""


class TotpEnabled(Conflict):
    """Your account asks for one-time passwords already; remove the present app first."""

    zh = "你的账号已启用动态口令，请先停用当前的验证器。"


class TotpNotBegun(Conflict):
    """There is nothing to confirm or to remove; begin by asking for a secret."""

    zh = "没有可确认或停用的动态口令，请先获取密钥。"


class InvalidTotp(Unprocessable):
    """This one-time password is wrong, was used, or is too old; enter the one the app shows now."""

    zh = "动态口令不正确、已用过或已过期，请输入验证器当前显示的口令。"
    loc = ("body", "code")


class TotpSecret(Out):
    """What an authenticator app is given; `uri` is what its QR code holds."""

    secret: str
    uri: str


class TotpIn(StrictIn):
    """What the app shows."""

    code: Annotated[str, Field(pattern=r"^[0-9]{6}$")]


def password_of(secret: bytes, step: int) -> str:
    """The one-time password of a step (RFC 4226 5.3, HMAC-SHA-1)."""
    mac = hmac.digest(secret, step.to_bytes(8), hashlib.sha1)
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4]) & 0x7FFFFFFF) % 10**DIGITS:0{DIGITS}}"


def use_password(admin: Admin, vault: Vault, code: str) -> bool:
    """Whether the code is good now; a good one, and every one before it, is used up. The admin's row is held."""
    if admin.totp_secret is None:
        return False
    secret = base64.b32decode(vault.unseal(admin.totp_secret))
    now = int(clock.now().timestamp()) // STEP_S
    for step in (now + drift for drift in DRIFT):
        if hmac.compare_digest(password_of(secret, step).encode(), code.encode()) and step > admin.totp_step:
            admin.totp_step = step
            return True
    return False


async def lock_admin(session: AsyncSession, admin_id: UUID) -> Admin | None:
    """The admin's row as it is now, for this transaction alone."""
    statement = select(Admin).where(col(Admin.id) == admin_id).with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()


@api.post("", status_code=201, responses=problems(NotAuthenticated, TotpEnabled))
async def begin_totp(caller: AdminDep, session: SessionDep, settings: SettingsDep, response: Response) -> TotpSecret:
    """A secret for the caller's authenticator app; it is asked for at logins once a first password confirms it."""
    admin = await lock_admin(session, caller.id)
    if admin is None:
        raise NotAuthenticated
    if admin.totp_enabled:
        raise TotpEnabled
    secret = base64.b32encode(secrets.token_bytes(SECRET_BYTES)).decode()
    admin.totp_secret, admin.totp_step = open_vault(settings.key).seal(secret), 0
    response.headers["Cache-Control"] = "no-store"
    query = urlencode({"secret": secret, "issuer": "Heika", "digits": DIGITS, "period": STEP_S})
    return TotpSecret(secret=secret, uri=f"otpauth://totp/Heika:{quote(admin.email)}?{query}")


@api.post("/confirmation", status_code=204, responses=problems(TotpNotBegun, TotpEnabled, InvalidTotp, TooManyRequests))
async def confirm_totp(
    body: TotpIn, caller: AdminDep, request: Request, session: SessionDep, settings: SettingsDep
) -> Response:
    """Confirm the app by its first password; from now on every login with the password asks for one."""
    await limit(request, "totp", str(caller.id), times=TRIES, seconds=TRIES_WINDOW_S)
    admin = await lock_admin(session, caller.id)
    if admin is None or admin.totp_secret is None:
        raise TotpNotBegun
    if admin.totp_enabled:
        raise TotpEnabled
    if not use_password(admin, open_vault(settings.key), body.code):
        raise InvalidTotp
    admin.totp_enabled = True
    audit.record(session, caller, "admin.totp_enabled", admin.id)
    return Response(status_code=204)


@api.post("/removal", status_code=204, responses=problems(TotpNotBegun, InvalidTotp, TooManyRequests))
async def remove_totp(
    body: TotpIn, caller: AdminDep, request: Request, session: SessionDep, settings: SettingsDep
) -> Response:
    """Ask for one-time passwords no longer, by a last one."""
    await limit(request, "totp", str(caller.id), times=TRIES, seconds=TRIES_WINDOW_S)
    admin = await lock_admin(session, caller.id)
    if admin is None or not admin.totp_enabled:
        raise TotpNotBegun
    if not use_password(admin, open_vault(settings.key), body.code):
        raise InvalidTotp
    admin.totp_secret, admin.totp_step, admin.totp_enabled = None, 0, False
    audit.record(session, caller, "admin.totp_removed", admin.id)
    return Response(status_code=204)
