"""Impersonation: an admin looks at the product as a member sees it, for half an hour, and can change nothing."""

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response
from pydantic import Field

from kit import clock
from kit.app import router
from kit.auth import IMPERSONATION_SECONDS, READ_ONLY, Caller, admin_with
from kit.db import SessionDep
from kit.errors import problems
from kit.shapes import CleanStr, Instant, Out, StrictIn
from services.members import audit
from services.members.members import MemberNotFound
from services.members.models import LoginSession, Member
from services.members.signing import SignerDep

# The token must not lie in the store of answers.
api = router(prefix="/v1/admin/members/{member_id}/impersonation", tags=["admin members"], idempotent=False)

DEVICE = "客服只读查看 / support, read only"
"""What the member's own list of sessions shows; there they can end it."""


class ImpersonationIn(StrictIn):
    """Why; it stays in the audit."""

    reason: Annotated[CleanStr, Field(min_length=1, max_length=500)]


class ImpersonationOut(Out):
    """A member's access token that only reads; there is none to refresh it with."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind, not a secret
    expires_in: int = IMPERSONATION_SECONDS
    expires_at: Instant
    session_id: UUID


@api.post("", status_code=201, responses=problems(MemberNotFound))
async def impersonate_member(
    member_id: UUID,
    body: ImpersonationIn,
    caller: Annotated[Caller, admin_with("members:write")],
    session: SessionDep,
    signer: SignerDep,
    response: Response,
) -> ImpersonationOut:
    """See what a member sees, for 30 minutes, without changing anything; the member sees that somebody looked."""
    response.headers["Cache-Control"] = "no-store"
    member = await session.get(Member, member_id)
    if member is None or member.erased_at is not None:
        raise MemberNotFound
    now = clock.now()
    # A session like any other: the member, a freezing, an erasure or a merge ends it.
    login = LoginSession(
        subject_id=member_id,
        role="member",
        scope=READ_ONLY,
        device=DEVICE,
        created_at=now,
        last_seen_at=now,
        expires_at=now + timedelta(seconds=IMPERSONATION_SECONDS),
    )
    session.add(login)
    await session.flush()
    after = {"reason": body.reason, "session": str(login.id), "until": login.expires_at}
    audit.record(session, caller, "member.impersonated", member_id, after=after)
    return ImpersonationOut(
        access_token=signer.access_token(
            member_id, "member", READ_ONLY, login.id, actor=caller.id, seconds=IMPERSONATION_SECONDS
        ),
        expires_at=login.expires_at,
        session_id=login.id,
    )
