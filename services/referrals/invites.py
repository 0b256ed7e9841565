"""Invitations: every member's own code and link, and how far the people they brought have come."""

import secrets
from typing import Final, Literal
from uuid import UUID

from fastapi import Response
from sqlalchemy import case, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.merging import kept_of
from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import problems
from kit.http import json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.referrals.models import Attribution, InviteCode, MemberCard
from services.referrals.share_switches import ShareChannelQuery, SharingOff, require_sharing

routes = router(prefix="/v1/me", tags=["invitations"])

ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""No 0 and O, 1 and I and L, U and V: codes are read aloud and typed."""
LENGTH: Final = 8


class Invite(Out):
    """The caller's invitation."""

    code: str
    url: str


class Invitee(Out):
    """Somebody the caller brought; `at` is when they reached the stage."""

    member_id: UUID
    nickname: str
    stage: Literal["registered", "tried", "purchased"]
    at: Instant


async def invite_code_of(session: AsyncSession, member_id: UUID) -> str:
    """The member's code, made on first use; two first uses at once get the same one."""
    held = select(col(InviteCode.code)).where(col(InviteCode.member_id) == member_id)
    while True:
        code = (await session.execute(held)).scalar_one_or_none()
        if code is not None:
            return code
        fresh = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        row = {"code": fresh, "member_id": member_id, "created_at": clock.now()}
        await session.execute(insert(InviteCode).values(row).on_conflict_do_nothing())


async def inviter_of(session: AsyncSession, code: str) -> UUID | None:
    """Whose code this is today; capitals do not matter."""
    found = select(col(InviteCode.member_id)).where(col(InviteCode.code) == code.strip().upper())
    owner_id = (await session.execute(found)).scalar_one_or_none()
    return None if owner_id is None else await kept_of(session, owner_id)


@routes.get("/invite", response_model=Invite, responses=problems(SharingOff))
async def read_own_invite(
    caller: MemberDep, session: SessionDep, rt: RuntimeDep, channel: ShareChannelQuery = None
) -> Response:
    """The caller's invitation code and the link that carries it."""
    await require_sharing(session, channel)
    code = await invite_code_of(session, caller.id)
    invite = {"code": code, "url": rt.settings.invite_link(code)}
    return json_response(invite, headers={"Cache-Control": "private, no-store"})


@routes.get("/invitees", response_model=Page[Invitee])
async def list_invitees(caller: MemberDep, session: SessionDep, page: PageDep) -> Response:
    """The people the caller brought, the latest first, each with the furthest stage they reached."""
    lesson_at, paid_at = col(MemberCard.lesson_at), col(MemberCard.paid_at)
    bound_at = col(Attribution.bound_at)
    found = (
        select(
            col(Attribution.member_id),
            col(MemberCard.nickname),
            bound_at,
            case((paid_at.is_not(None), "purchased"), (lesson_at.is_not(None), "tried"), else_="registered").label(
                "stage"
            ),
            case((paid_at.is_not(None), paid_at), (lesson_at.is_not(None), lesson_at), else_=bound_at).label("at"),
        )
        .join(MemberCard, col(MemberCard.member_id) == col(Attribution.member_id))
        .where(col(Attribution.inviter_id) == caller.id)
    )
    rows, next_cursor = await keyset(session, found, page, (bound_at.desc(), col(Attribution.member_id).desc()))
    items = [{"member_id": row.member_id, "nickname": row.nickname, "stage": row.stage, "at": row.at} for row in rows]
    return json_response({"items": items, "next_cursor": next_cursor}, headers={"Cache-Control": "private, no-store"})
