"""Touches: a link was opened; the first one within its window decides where a newcomer came from."""

from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

from fastapi import Request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import OptionalMemberDep
from kit.db import SessionDep
from kit.errors import NotFound, TooManyRequests, Unprocessable, problems
from kit.limits import limit, limit_address
from kit.shapes import CleanStr, In, Instant, Out
from services.referrals.models import Channel, Device, Touch
from services.referrals.rules import rule_at
from services.referrals.sources import name_source

routes = router(prefix="/v1/touches", tags=["invitations"])

PER_MINUTE: Final = 60
"""More links than that nobody opens; without a bound, anybody could fill the table or try out codes."""


class TouchEmpty(Unprocessable):
    """A touch names an invitation code, a channel, or both."""

    zh = "请至少提供邀请码或渠道中的一项。"


class InviteCodeUnknown(NotFound):
    """Nobody invites with this code; check it and try again."""

    zh = "没有这个邀请码，请核对后再试。"


class ChannelUnknown(NotFound):
    """There is no channel with this code."""

    zh = "没有这个渠道。"


class TouchIn(In):
    """An opened link; `visitor_id` is what the app keeps on the device and sends again at registration."""

    invite_code: Annotated[CleanStr, Field(min_length=1, max_length=64)] | None = None
    channel: Annotated[CleanStr, Field(min_length=1, max_length=64)] | None = None
    visitor_id: Annotated[CleanStr, Field(min_length=1, max_length=200)]


class TouchOut(Out):
    """What was noted, and until when a registration on this device counts."""

    id: UUID
    invite_code: str | None
    channel: str | None
    at: Instant
    expires_at: Instant


@routes.post("", status_code=201, responses=problems(InviteCodeUnknown, ChannelUnknown, TouchEmpty, TooManyRequests))
async def record_touch(request: Request, body: TouchIn, caller: OptionalMemberDep, session: SessionDep) -> TouchOut:
    """Note that a link was opened; somebody who is a member already stays where they came from."""
    if body.invite_code is None and body.channel is None:
        raise TouchEmpty
    await limit(request, "touch visitor", body.visitor_id, times=PER_MINUTE, seconds=60)
    await limit_address(request, "touch", times=PER_MINUTE, seconds=60)
    now = clock.now()
    noted = Touch(visitor_id=body.visitor_id, at=now)
    if body.invite_code is not None:
        await name_source(session, noted, body.invite_code)
        if noted.inviter_id is None and noted.link_id is None:
            raise InviteCodeUnknown
    if body.channel is not None:
        if not await channel_exists(session, body.channel):
            raise ChannelUnknown
        noted.channel_code = body.channel
    if caller is not None:
        noted.member_id, noted.outcome, noted.reason = caller.id, "lost", "member"
        await remember_device(session, caller.id, body.visitor_id)
    session.add(noted)
    return TouchOut(
        id=noted.id,
        invite_code=noted.invite_code,
        channel=noted.channel_code,
        at=now,
        expires_at=now + timedelta(days=(await rule_at(session, now)).window_days),
    )


async def channel_exists(session: AsyncSession, code: str) -> bool:
    """Whether this channel takes touches."""
    found = select(col(Channel.code)).where(col(Channel.code) == code, col(Channel.retired_at).is_(None))
    return (await session.execute(found)).scalar_one_or_none() is not None


async def remember_device(session: AsyncSession, member_id: UUID, visitor_id: str) -> None:
    """Note that the member was seen on this device."""
    row = {"member_id": member_id, "visitor_id": visitor_id}
    await session.execute(insert(Device).values(row).on_conflict_do_nothing())
