"""Sessions and their tokens: a family of refresh tokens a device, each used once, and short access tokens."""

import hashlib
import secrets
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import SCOPES, TOKEN_SECONDS, AccountFrozen, AnyCallerDep
from kit.db import SessionDep
from kit.errors import NotAuthenticated, problems
from kit.shapes import CleanStr, In, Out
from services.members.models import Admin, LoginSession, Member, RefreshToken
from services.members.revocations import tell_ended
from services.members.rotating import REFRESH_FOR, Exchange, rotate_together
from services.members.signing import Signer, SignerDep

api = router(prefix="/v1/auth", tags=["sign-in"], idempotent=False)

DEVICE_LENGTH = 200


class RefreshTokenReused(NotAuthenticated):
    """This refresh token was used before, so the whole session has been ended; log in again."""

    zh = "这个刷新令牌已经用过，为安全起见会话已全部结束，请重新登录。"


class TokenPair(Out):
    """What a client keeps: the access token for calls, the refresh token for the next pair."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind, not a secret
    expires_in: int = TOKEN_SECONDS


class RefreshIn(In):
    """The refresh token of the latest pair."""

    refresh_token: Annotated[CleanStr, Field(min_length=1, max_length=512)]


def _hash(token: str) -> bytes:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(token.encode()).digest()


def device_of(request: Request) -> str:
    """What the session list shows of the device: its User-Agent, as far as it is text."""
    agent = request.headers.get("user-agent", "")
    return "".join(letter for letter in agent if letter.isprintable())[:DEVICE_LENGTH]


async def start_session(
    session: AsyncSession, signer: Signer, subject_id: UUID, role: str, *, scope: str = "", device: str = ""
) -> TokenPair:
    """Log somebody in on a device."""
    now = clock.now()
    login = LoginSession(
        subject_id=subject_id,
        role=role,
        scope=scope,
        device=device,
        created_at=now,
        last_seen_at=now,
        expires_at=now + REFRESH_FOR,
    )
    session.add(login)
    await session.flush()
    return await _pair(session, signer, login)


async def _pair(session: AsyncSession, signer: Signer, login: LoginSession) -> TokenPair:
    refresh_token = secrets.token_urlsafe(32)
    session.add(
        RefreshToken(token_hash=_hash(refresh_token), session_id=login.id, expires_at=clock.now() + REFRESH_FOR)
    )
    await session.flush()
    access_token = signer.access_token(login.subject_id, login.role, login.scope, login.id)
    return TokenPair(access_token=access_token, refresh_token=refresh_token)


async def end_sessions(
    session: AsyncSession, subject_id: UUID, *, only: UUID | None = None, but: UUID | None = None
) -> int:
    """Revoke a person's sessions, or `only` one, or all `but` one; how many were alive."""
    statement = (
        update(LoginSession)
        .where(col(LoginSession.subject_id) == subject_id, col(LoginSession.revoked_at).is_(None))
        .values(revoked_at=clock.now())
        .returning(col(LoginSession.id))
    )
    if only is not None:
        statement = statement.where(col(LoginSession.id) == only)
    if but is not None:
        statement = statement.where(col(LoginSession.id) != but)
    ended = (await session.scalars(statement)).all()
    tell_ended(session, ended)
    return len(ended)


async def rotate(session: AsyncSession, signer: Signer, refresh_token: str, role: str | None = None) -> TokenPair:
    """A new pair for an unused refresh token; the second use of one ends its whole family, and that is kept."""
    now = clock.now()
    token_hash = _hash(refresh_token)
    take = (
        update(RefreshToken)
        .where(col(RefreshToken.token_hash) == token_hash, col(RefreshToken.used_at).is_(None))
        .values(used_at=now)
        .returning(col(RefreshToken.session_id), col(RefreshToken.expires_at))
    )
    taken = (await session.execute(take)).one_or_none()
    if taken is None:
        family = select(col(RefreshToken.session_id)).where(col(RefreshToken.token_hash) == token_hash)
        revoke = update(LoginSession).where(col(LoginSession.id).in_(family))
        revoked_at = func.coalesce(col(LoginSession.revoked_at), now)
        found = await session.scalars(revoke.values(revoked_at=revoked_at).returning(col(LoginSession.id)))
        ended = found.all()
        if not ended:
            raise NotAuthenticated
        tell_ended(session, ended)
        # Kept although the answer is a refusal: whoever holds the other copy must lose it too.
        await session.commit()
        raise RefreshTokenReused
    held = select(LoginSession).where(col(LoginSession.id) == taken.session_id).with_for_update()
    login = (await session.execute(held)).scalar_one()
    if login.revoked_at is not None or taken.expires_at <= now or role not in (None, login.role):
        raise NotAuthenticated
    await _renew(session, login)
    login.last_seen_at = now
    login.expires_at = now + REFRESH_FOR
    return await _pair(session, signer, login)


async def _renew(session: AsyncSession, login: LoginSession) -> None:
    """Judge the account anew, as at a login."""
    if login.role == "member":
        member = await session.get(Member, login.subject_id)
        if member is None or member.erased_at is not None:
            raise NotAuthenticated
        if member.frozen:
            raise AccountFrozen
    else:
        admin = await session.get(Admin, login.subject_id)
        if admin is None:
            raise NotAuthenticated
        login.scope = " ".join(scope for scope in login.scope.split() if scope in (admin.scopes or SCOPES))


@api.post("/refresh", responses=problems(NotAuthenticated, RefreshTokenReused, AccountFrozen))
async def refresh_tokens(body: RefreshIn, rt: RuntimeDep, signer: SignerDep, response: Response) -> TokenPair:
    """Exchange a refresh token for a new pair; using one twice ends the session."""
    response.headers["Cache-Control"] = "no-store"
    fresh = secrets.token_urlsafe(32)
    kept = await rotate_together(rt, Exchange(_hash(body.refresh_token), _hash(fresh)))
    if kept is not None:
        access_token = signer.access_token(kept.member_id, "member", kept.scope, kept.session_id)
        return TokenPair(access_token=access_token, refresh_token=fresh)
    async with rt.db.session() as session:
        await rt.db.connect(session)
        pair = await rotate(session, signer, body.refresh_token)
        await session.commit()
        return pair


@api.post("/logout", status_code=204)
async def log_out(caller: AnyCallerDep, session: SessionDep) -> Response:
    """End this session; its tokens stop working here at once, and everywhere within seconds."""
    if caller.session_id is not None:
        await end_sessions(session, caller.id, only=caller.session_id)
    return Response(status_code=204)
