"""Share switches: in which of the app's channels members are offered to invite others at all."""

from typing import Annotated, Literal

from fastapi import Query
from sqlalchemy import CheckConstraint, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from kit import audit
from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Conflict
from kit.shapes import StrictIn
from services.referrals.models import Model

routes = router(prefix="/v1/admin/referral-rules/share-switches", tags=["admin referrals"])

Reader = Annotated[Caller, admin_with("coupons:read")]
Editor = Annotated[Caller, admin_with("coupons:write")]

ShareChannel = Literal["mini_program", "h5", "app"]
ShareChannelQuery = Annotated[
    ShareChannel | None, Query(description="where the caller is; some channels offer no inviting")
]


class SharingOff(Conflict):
    """Inviting is switched off in this channel; everything else is open to you without it."""

    zh = "当前渠道未开放邀请，不邀请也可以使用其他所有功能。"


class ShareSwitch(Model, table=True):
    """Whether members of one channel are offered to invite others; a channel without a row is."""

    __tablename__ = "share_switch"
    __table_args__ = (CheckConstraint("channel IN ('mini_program', 'h5', 'app')", name="channel"),)

    channel: str = Field(primary_key=True)
    invites: bool


class InviteSwitches(StrictIn):
    """In which channels members get their invitation code, link and poster."""

    mini_program: bool
    h5: bool
    app: bool


async def require_sharing(session: AsyncSession, channel: ShareChannel | None) -> None:
    """Refuse with SharingOff where this is switched off; who names no channel may be in any that is not."""
    switches = await _switches(session)
    if not (any(switches.values()) if channel is None else switches[channel]):
        raise SharingOff


async def _switches(session: AsyncSession) -> dict[str, bool]:
    rows = (await session.execute(select(col(ShareSwitch.channel), col(ShareSwitch.invites)))).all()
    return {"mini_program": True, "h5": True, "app": True} | {row.channel: row.invites for row in rows}


@routes.get("")
async def read_invite_switches(_: Reader, session: SessionDep) -> InviteSwitches:
    """In which channels members are offered to invite others."""
    return InviteSwitches(**await _switches(session))


@routes.put("")
async def set_invite_switches(_: Editor, body: InviteSwitches, session: SessionDep) -> InviteSwitches:
    """Switch inviting on or off in each channel; links that are out there work on, and what was earned stays."""
    before = await _switches(session)
    for channel, invites in body.model_dump().items():
        row = insert(ShareSwitch).values(channel=channel, invites=invites)
        await session.execute(row.on_conflict_do_update(index_elements=["channel"], set_={"invites": invites}))
    await audit.record(
        session, "referral_rule.share_switches", "share-switches", before=before, after=body.model_dump()
    )
    return body
