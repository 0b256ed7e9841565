"""Attributions: where a member came from, and every touch that won or lost them, for an admin who is asked why."""

from typing import Annotated, Literal
from uuid import UUID

from sqlalchemy import select
from sqlmodel import col

from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.shapes import Instant, Out
from services.referrals.models import Attribution, MemberCard, Touch

routes = router(prefix="/v1/admin/attributions", tags=["admin referrals"])

Reader = Annotated[Caller, admin_with("coupons:read")]
SHOWN = 100


class MemberUnknown(NotFound):
    """There is no such member here yet; check the id, or ask again in a moment if they have just registered."""

    zh = "这里还没有这位会员，请核对 id；刚注册的会员请稍后再查。"


class TouchRecord(Out):
    """A touch that could have brought the member; a lost one says why."""

    id: UUID
    at: Instant
    outcome: Literal["open", "won", "lost"]
    reason: str | None
    invite_code: str | None
    inviter_id: UUID | None
    channel: str | None
    at_registration: bool


class AttributionOut(Out):
    """Where a member came from, all null for one who came alone; fixed by the first payment."""

    member_id: UUID
    inviter_id: UUID | None = None
    partner_id: UUID | None = None
    channel: str | None = None
    rule_version: int | None = None
    bound_at: Instant | None = None
    fixed_at: Instant | None = None
    touches: list[TouchRecord]


@routes.get("/{member_id}", responses=problems(MemberUnknown))
async def read_attribution(_: Reader, member_id: UUID, session: SessionDep) -> AttributionOut:
    """Where a member came from, with the touches that were looked at, the first one first."""
    if await session.get(MemberCard, member_id) is None:
        raise MemberUnknown
    origin = await session.get(Attribution, member_id)
    found = select(Touch).where(col(Touch.newcomer_id) == member_id).order_by(col(Touch.at), col(Touch.id)).limit(SHOWN)
    touches = [
        TouchRecord.model_validate({**touch.model_dump(), "channel": touch.channel_code})
        for touch in (await session.execute(found)).scalars()
    ]
    if origin is None:
        return AttributionOut(member_id=member_id, touches=touches)
    came = {**origin.model_dump(), "channel": origin.channel_code, "touches": touches}
    return AttributionOut.model_validate(came)
