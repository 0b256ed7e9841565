"""The OAuth2 token endpoint (RFC 6749): admins by password, partners by their client, people by refresh token."""

from datetime import timedelta
from typing import Annotated, ClassVar

from fastapi import Form, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.app import router
from kit.auth import SCOPES
from kit.db import SessionDep
from kit.errors import BadRequest, Problem, TooManyRequests, problems
from kit.limits import limit, limit_address
from kit.shapes import CleanStr
from kit.vault import open_vault
from services.members.admins import check_password, find_admin
from services.members.clients import ClientToken, InvalidClient, credentials, log_client_in
from services.members.models import Admin
from services.members.settings import Settings, SettingsDep
from services.members.sign_in import FAILURE_WINDOW_S, FAILURES
from services.members.signing import SignerDep
from services.members.tokens import RefreshTokenReused, TokenPair, device_of, rotate, start_session
from services.members.totp import DIGITS, lock_admin, use_password

api = router(prefix="/v1/auth/token", tags=["sign-in"], idempotent=False)

FAILURES_OF_ACCOUNT = 10
LOCKED_FOR = timedelta(minutes=15)


class OAuthRefusal(BadRequest):
    """This token request is refused."""

    zh = "这个令牌请求被拒绝。"
    error: ClassVar[str] = "invalid_request"

    def __init__(self) -> None:
        super().__init__(extra={"error": self.error})


class InvalidTokenRequest(OAuthRefusal):
    """A token request is a form with grant_type and that grant's fields."""

    zh = "令牌请求应为表单，含 grant_type 及对应字段。"


class UnsupportedGrantType(OAuthRefusal):
    """This grant_type is not offered; use password, refresh_token or client_credentials."""

    zh = "不支持这种 grant_type，请用 password、refresh_token 或 client_credentials。"
    error = "unsupported_grant_type"


class InvalidCredentials(OAuthRefusal):
    """Email or password is wrong."""

    zh = "邮箱或密码不正确。"
    error = "invalid_grant"


class TotpRequired(OAuthRefusal):
    """This account asks for a one-time password too; send it as totp, or type it right after the password."""

    zh = "这个账号还需要动态口令，请在 totp 字段里填写，或直接接在密码后面。"
    error = "invalid_grant"


class InvalidScope(OAuthRefusal):
    """None of the scopes asked for is yours."""

    zh = "所申请的权限都不属于这个账号。"
    error = "invalid_scope"


class AdminTokens(TokenPair):
    """The answer of RFC 6749 5.1."""

    scope: str


Field256 = Annotated[CleanStr | None, Form(max_length=256)]


def _granted(held: list[str], asked: str | None) -> str:
    """The scopes a token gets: those asked for that the admin holds, all they hold when none was asked for."""
    held = held or sorted(SCOPES)
    wanted = (asked or "").split()
    granted = [scope for scope in held if scope in wanted] if wanted else held
    if not granted:
        raise InvalidScope
    return " ".join(granted)


async def _recognise(
    session: AsyncSession, settings: Settings, username: str, password: str, totp: str | None
) -> Admin | None:
    """The admin with this email and password, and one-time password if they use one; None, and a failure counted."""
    admin = await find_admin(session, username)
    if admin is not None and admin.locked_until is not None and admin.locked_until > clock.now():
        raise TooManyRequests(retry_after=(admin.locked_until - clock.now()).total_seconds())
    good = await check_password(admin, password)
    if not totp and len(password) > DIGITS and (typed := password[-DIGITS:]).isdecimal():
        # A login dialog has no third field. Looked at for everybody, so that the time taken tells nothing of an account.
        attached = await check_password(admin, password[:-DIGITS])
        if attached and not good and admin is not None and admin.totp_enabled:
            good, totp = True, typed
    admin = await lock_admin(session, admin.id) if admin is not None else None
    if admin is None:
        return None
    if good and admin.totp_enabled:
        if not totp:
            raise TotpRequired
        good = use_password(admin, open_vault(settings.key), totp.strip())
    if not good:
        await _failed(session, admin)
        return None
    admin.failures, admin.locked_until = 0, None
    return admin


async def _failed(session: AsyncSession, admin: Admin) -> None:
    """Count a failure, kept although the answer is a refusal; too many in a row lock the account for a while."""
    admin.failures += 1
    if admin.failures % FAILURES_OF_ACCOUNT == 0:
        admin.locked_until = clock.now() + LOCKED_FOR
    await session.commit()


REFUSALS = (
    InvalidTokenRequest,
    UnsupportedGrantType,
    InvalidCredentials,
    TotpRequired,
    InvalidScope,
    RefreshTokenReused,
    InvalidClient,
)


@api.post("", responses=problems(*REFUSALS, TooManyRequests))
async def issue_tokens(  # noqa: PLR0913 - the form fields of RFC 6749
    *,
    request: Request,
    response: Response,
    session: SessionDep,
    signer: SignerDep,
    grant_type: Field256 = None,
    username: Field256 = None,
    password: Annotated[str | None, Form(max_length=256)] = None,
    scope: Annotated[CleanStr | None, Form(max_length=1000)] = None,
    refresh_token: Annotated[CleanStr | None, Form(max_length=512)] = None,
    totp: Annotated[
        str | None,
        Form(
            max_length=16,
            description="an admin's one-time password, if they use one; it may also stand right after the password",
        ),
    ] = None,
    client_id: Field256 = None,
    client_secret: Annotated[str | None, Form(max_length=256)] = None,
    settings: SettingsDep,
) -> AdminTokens | TokenPair | ClientToken:
    """Log an admin in by email and password, or a partner by their client; or exchange a refresh token for a new pair."""
    response.headers["Cache-Control"] = "no-store"
    if grant_type is None:
        raise InvalidTokenRequest
    if grant_type == "refresh_token":
        if not refresh_token:
            raise InvalidTokenRequest
        try:
            return await rotate(session, signer, refresh_token)
        except Problem as refusal:
            refusal.extra["error"] = "invalid_grant"
            raise
    if grant_type == "client_credentials":
        offered = credentials(request, client_id, client_secret)
        if offered is None:
            raise InvalidTokenRequest
        return await log_client_in(request, session, signer, *offered)
    if grant_type != "password":
        raise UnsupportedGrantType
    if not username or not password:
        raise InvalidTokenRequest
    failure = await limit_address(request, "failed", times=FAILURES, seconds=FAILURE_WINDOW_S)
    of_account = await limit(
        request, "failed:admin", username.lower(), times=FAILURES_OF_ACCOUNT, seconds=FAILURE_WINDOW_S
    )
    admin = await _recognise(session, settings, username, password, totp)
    if admin is None:
        raise InvalidCredentials
    await failure.give_back()
    await of_account.give_back()
    granted = _granted(admin.scopes, scope)
    pair = await start_session(session, signer, admin.id, "admin", scope=granted, device=device_of(request))
    return AdminTokens(**pair.model_dump(), scope=granted)
