"""Devices: where the caller is logged in, and ending one of those sessions."""

from datetime import timedelta
from uuid import UUID

from fastapi import Response
from sqlalchemy import delete, select
from sqlmodel import col

from kit import clock
from kit.app import Runtime, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.members.models import LoginSession, RefreshToken
from services.members.tokens import end_sessions

api = router(prefix="/v1/me/sessions", tags=["sign-in"])

KEPT_FOR = timedelta(days=30)
TOKENS_AT_ONCE = 5000


class SessionNotFound(NotFound):
    """You have no such session; it may have ended already."""

    zh = "没有这个会话，它可能已经结束了。"


class SessionOut(Out):
    """A device the caller is logged in on."""

    id: UUID
    device: str
    created_at: Instant
    last_seen_at: Instant
    current: bool


async def forget_old_sessions(rt: Runtime) -> int:
    """Delete sessions a month past their end, with their refresh tokens; how many."""
    async with rt.db.session() as session, session.begin():
        old = (
            select(col(LoginSession.id))
            .where(col(LoginSession.expires_at) < clock.now() - KEPT_FOR)
            .limit(500)
            .with_for_update(skip_locked=True)
        )
        gone = delete(LoginSession).where(col(LoginSession.id).in_(old)).returning(col(LoginSession.id))
        return len((await session.execute(gone)).all())


async def forget_old_tokens(rt: Runtime) -> int:
    """Delete refresh tokens a month past their end, also those of sessions that go on for years; how many."""
    async with rt.db.session() as session, session.begin():
        old = (
            select(col(RefreshToken.token_hash))
            .where(col(RefreshToken.expires_at) < clock.now() - KEPT_FOR)
            .order_by(col(RefreshToken.expires_at))
            .limit(TOKENS_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        gone = delete(RefreshToken).where(col(RefreshToken.token_hash).in_(old))
        return len((await session.execute(gone.returning(col(RefreshToken.session_id)))).all())


@api.get("")
async def read_sessions(caller: MemberDep, session: SessionDep, page: PageDep) -> Page[SessionOut]:
    """The caller's live sessions, newest first."""
    statement = select(LoginSession).where(
        col(LoginSession.subject_id) == caller.id,
        col(LoginSession.revoked_at).is_(None),
        col(LoginSession.expires_at) > clock.now(),
    )
    order = (col(LoginSession.created_at).desc(), col(LoginSession.id).desc())
    logins, next_cursor = await keyset(session, statement, page, order)
    items = [
        SessionOut.model_validate(login.model_dump() | {"current": login.id == caller.session_id}) for login in logins
    ]
    return Page(items=items, next_cursor=next_cursor)


@api.delete("/{session_id}", status_code=204, responses=problems(SessionNotFound))
async def end_session(session_id: UUID, caller: MemberDep, session: SessionDep) -> Response:
    """End a session; its tokens stop working here at once, and everywhere within seconds."""
    if not await end_sessions(session, caller.id, only=session_id):
        raise SessionNotFound
    return Response(status_code=204)
