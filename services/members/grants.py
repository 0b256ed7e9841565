"""Membership grants: an admin gives time, and may take back exactly what was given."""

from typing import Annotated, Self
from uuid import UUID

from fastapi import Response
from pydantic import Field, model_validator

from kit import clock
from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import NotFound, Unprocessable, problems
from kit.ids import new_id
from kit.shapes import LAST_YEAR, CleanStr, StrictIn
from kit.wording import Wrong
from services.members import audit
from services.members.benefits import BLACK_CARD, benefits_of
from services.members.ledger import add_segment, find_segment, lock_ledger, revoke_segment
from services.members.ledger_models import Segment
from services.members.members import MemberNotFound
from services.members.membership import SegmentOut, segment_out
from services.members.models import Member

api = router(prefix="/v1/admin/members/{member_id}/membership-grants", tags=["admin members"])

Writer = Annotated[Caller, admin_with("members:write")]


class GrantNotFound(NotFound):
    """This member has no such grant."""

    zh = "这位会员没有这笔赠送。"


class PlanUnknown(Unprocessable):
    """There is no plan with this code."""

    zh = "没有这个套餐代码。"
    loc = ("body", "plan_code")


class MembershipTooLong(Unprocessable):
    """This would carry the membership past the end of the calendar."""

    zh = "这样会员期会超出日历的范围。"


class GrantIn(StrictIn):
    """Exactly one of months and days, with the benefits of a plan."""

    months: Annotated[int, Field(strict=True, ge=1, le=120)] | None = None
    days: Annotated[int, Field(strict=True, ge=1, le=3660)] | None = None
    plan_code: Annotated[CleanStr, Field(min_length=1, max_length=64)] = BLACK_CARD
    reason: Annotated[CleanStr, Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.months is None) == (self.days is None):
            raise Wrong("give exactly one of months and days", "months 和 days 请只填一个")
        return self


@api.post("", status_code=201, responses=problems(MemberNotFound, PlanUnknown, MembershipTooLong))
async def grant_membership(member_id: UUID, grant: GrantIn, caller: Writer, session: SessionDep) -> SegmentOut:
    """Give a member time as a comp; it is added at the end of what they have."""
    member = await session.get(Member, member_id)
    if member is None or member.erased_at is not None:
        raise MemberNotFound
    benefits = await benefits_of(session, grant.plan_code)
    if benefits is None:
        raise PlanUnknown
    await lock_ledger(session, member_id)
    segment = Segment(
        member_id=member_id,
        source="comp",
        source_id=new_id(),
        plan_code=grant.plan_code,
        months=grant.months or 0,
        days=grant.days or 0,
        benefits=benefits,
        # Taken under the lock: grants made at once are in the ledger in the order in which they were made.
        added_at=clock.now(),
    )
    try:
        await add_segment(session, segment)
    except (OverflowError, ValueError) as failure:
        raise MembershipTooLong from failure
    if segment.ends_at is not None and segment.ends_at.year > LAST_YEAR:
        raise MembershipTooLong
    given = segment_out(segment, clock.now())
    after = given.model_dump(mode="json") | {"reason": grant.reason}
    audit.record(session, caller, "membership_grant.created", member_id, after=after)
    return given


@api.delete("/{grant_id}", status_code=204, responses=problems(GrantNotFound))
async def revoke_grant(member_id: UUID, grant_id: UUID, caller: Writer, session: SessionDep) -> Response:
    """Take back exactly this grant; what is queued behind it moves forward. Asking again changes nothing."""
    await lock_ledger(session, member_id)
    segment = await find_segment(session, "comp", grant_id)
    if segment is None or segment.member_id != member_id:
        raise GrantNotFound
    if segment.revoked_at is None:
        before = segment_out(segment, clock.now()).model_dump(mode="json")
        await revoke_segment(session, member_id, "comp", grant_id, clock.now())
        after = segment_out(segment, clock.now()).model_dump(mode="json")
        audit.record(session, caller, "membership_grant.revoked", member_id, before=before, after=after)
    return Response(status_code=204)
