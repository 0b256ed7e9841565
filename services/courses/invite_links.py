"""Invite links: who registers through a member's link to a live lesson counts as one arrival."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberRegistered
from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, Forbidden, NotFound, problems
from kit.ids import new_id
from kit.shapes import In, Out
from services.courses.live import LiveLessonNotFound
from services.courses.room_models import Arrival, InviteLink
from services.courses.ways import ChannelQuery, ShownLiveLesson, shares_in

router = new_router(prefix="/v1/live-lessons/{lesson_id}/invite-links", tags=["live lessons"])
arrivals_router = new_router(prefix="/v1/arrivals", tags=["live lessons"])

NEW_FOR = timedelta(days=1)
"""So long after registering, a person may still say through which link they came."""


class SharingOff(Conflict):
    """Inviting is switched off in this channel; the lesson's other ways stay open to you."""

    zh = "当前渠道未开放邀请，可以用这节课的其他方式进入。"


class LinkUnknown(NotFound):
    """There is no such invite link; ask whoever sent it for a fresh one."""

    zh = "邀请链接不存在，请向邀请人索取新的链接。"


class OwnLink(Forbidden):
    """This is your own invite link; it counts others who register through it."""

    zh = "这是你自己的邀请链接，只统计通过它注册的新朋友。"


class InviteLinkOut(Out):
    """A link to share; `token` also works as the `invite_code` of a registration."""

    token: str
    url: str


class ArrivalIn(In):
    """The token of the link through which the caller came."""

    token: Annotated[str, Field(min_length=1, max_length=64)]


class ArrivalOut(Out):
    """Where the link leads, and whether the caller counts: only who registered through it does, once."""

    live_lesson_id: UUID
    counted: bool


@router.post("", status_code=201, responses=problems(LiveLessonNotFound, SharingOff))
async def make_invite_link(
    caller: MemberDep, lesson: ShownLiveLesson, session: SessionDep, runtime: RuntimeDep, channel: ChannelQuery = None
) -> InviteLinkOut:
    """The caller's link to this lesson; asking again answers the same one."""
    if not await shares_in(session, channel):
        raise SharingOff
    link = insert(InviteLink).values(
        id=new_id(),
        lesson_id=lesson.id,
        member_id=caller.id,
        token=secrets.token_urlsafe(12),
        created_at=clock.now(),
    )
    await session.execute(link.on_conflict_do_nothing(index_elements=["member_id", "lesson_id"]))
    held = select(col(InviteLink.token)).where(
        col(InviteLink.lesson_id) == lesson.id, col(InviteLink.member_id) == caller.id
    )
    token = (await session.execute(held)).scalar_one()
    return InviteLinkOut(token=token, url=f"{runtime.settings.public_url.rstrip('/')}/?invite={token}")


def born(identifier: UUID) -> datetime:
    """When a UUIDv7 was made (RFC 9562 5.7), by the machine's clock."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)


async def _arrive(session: AsyncSession, link: InviteLink, member_id: UUID) -> bool:
    """Count a person who registered through this link; whether this very link has them counted."""
    arrival = insert(Arrival).values(member_id=member_id, link_id=link.id, arrived_at=clock.now())
    await session.execute(arrival.on_conflict_do_nothing(index_elements=["member_id"]))
    return await _has_arrived(session, link, member_id)


async def _has_arrived(session: AsyncSession, link: InviteLink, member_id: UUID) -> bool:
    counted = await session.get(Arrival, member_id, populate_existing=True)
    return counted is not None and counted.link_id == link.id


async def _link(session: AsyncSession, token: str) -> InviteLink | None:
    return (await session.execute(select(InviteLink).where(col(InviteLink.token) == token))).scalar_one_or_none()


@arrivals_router.post("", status_code=201, responses=problems(LinkUnknown, OwnLink))
async def record_arrival(body: ArrivalIn, caller: MemberDep, session: SessionDep, response: Response) -> ArrivalOut:
    """Say through which link the caller came; 200 in place of 201 when that counts nothing."""
    link = await _link(session, body.token)
    if link is None:
        raise LinkUnknown
    if link.member_id == caller.id:
        raise OwnLink
    # The caller's id tells when they registered, sooner than members' own news of it can be here.
    is_new = born(caller.id) >= born(link.id) and born(new_id()) - born(caller.id) <= NEW_FOR
    counted = await _arrive(session, link, caller.id) if is_new else await _has_arrived(session, link, caller.id)
    if not counted:
        response.status_code = 200
    return ArrivalOut(live_lesson_id=link.lesson_id, counted=counted)


async def on_member_registered(session: AsyncSession, event: MemberRegistered) -> None:
    """Count who gave a link's token as their invite code."""
    if event.invite_code is None:
        return
    link = await _link(session, event.invite_code)
    if link is not None and link.member_id != event.member_id:
        await _arrive(session, link, event.member_id)
