"""Coupons in admins' hands: given to members, counted, taken back."""

from typing import Annotated
from uuid import UUID

from pydantic import Field
from sqlalchemy import func, select
from sqlmodel import col

from kit import audit, clock
from kit.app import router
from kit.db import SessionDep
from kit.errors import Conflict, problems
from kit.shapes import Out, StrictIn
from services.referrals.admin_campaigns import CampaignNotFound, Editor, Reader, campaign_of
from services.referrals.coupons import revoke, status_at
from services.referrals.issue import CouponUnknown, Issued, Want, issue
from services.referrals.models import Campaign, Coupon
from services.referrals.newcomers import living_soon

routes = router(prefix="/v1/admin/coupon-campaigns/{campaign_id}", tags=["admin coupons"])


class CouponSpent(Conflict):
    """This coupon was spent or taken back already."""

    zh = "这张优惠券已经使用或已被收回。"


class Stats(Out):
    """What became of a campaign's coupons; `claimed` counts all that were given."""

    total: int
    claimed: int
    issued: int
    reserved: int
    redeemed: int
    expired: int
    revoked: int


class GrantsIn(StrictIn):
    """Members who are given a coupon each."""

    member_ids: Annotated[list[UUID], Field(min_length=1, max_length=1000)]


class Grant(Out):
    """A coupon given to a member."""

    member_id: UUID
    coupon_id: UUID


class Refusal(Out):
    """A member who got none, with the code of the reason."""

    member_id: UUID
    code: str


class GrantsOut(Out):
    """Who got a coupon and who did not."""

    granted: list[Grant]
    refused: list[Refusal]


@routes.post("/grants", status_code=201, responses=problems(CampaignNotFound))
async def grant_coupons(_: Editor, campaign_id: UUID, body: GrantsIn, session: SessionDep) -> GrantsOut:
    """Give members a coupon each, whoever may claim it; the campaign's total and its limit for each member hold."""
    members = list(dict.fromkeys(body.member_ids))
    known = await living_soon(session, members)
    campaign, now = await campaign_of(campaign_id, session), clock.now()
    wants = [Want(campaign.id, member_id, now, "grant") for member_id in members if member_id in known]
    given_or_not = await issue(await session.connection(), wants) if wants else []
    answers = dict(zip((want.member_id for want in wants), given_or_not, strict=True))
    given = [member_id for member_id, answer in answers.items() if isinstance(answer, Issued)]
    await audit.record(session, "coupons.granted", campaign.id, after={"members": given})
    return GrantsOut(
        granted=[
            Grant(member_id=member_id, coupon_id=answer.id)
            for member_id, answer in answers.items()
            if isinstance(answer, Issued)
        ],
        refused=[
            Refusal(member_id=member_id, code=answer.code)
            for member_id, answer in answers.items()
            if not isinstance(answer, Issued)
        ]
        + [Refusal(member_id=member_id, code="member_unknown") for member_id in members if member_id not in known],
    )


@routes.get("/stats", responses=problems(CampaignNotFound))
async def read_campaign_stats(_: Reader, campaign_id: UUID, session: SessionDep) -> Stats:
    """How many coupons were given, and what became of them by now."""
    found = await session.get(Campaign, campaign_id)
    if found is None:
        raise CampaignNotFound
    current = status_at(clock.now())
    counted = select(current, func.count()).where(col(Coupon.campaign_id) == campaign_id).group_by(current)
    counts = {str(status): int(number) for status, number in (await session.execute(counted)).all()}
    states = ("issued", "reserved", "redeemed", "expired", "revoked")
    return Stats(total=found.total, claimed=found.claimed, **{state: counts.get(state, 0) for state in states})


@routes.delete("/coupons/{coupon_id}", status_code=204, responses=problems(CouponUnknown, CouponSpent))
async def revoke_coupon(_: Editor, campaign_id: UUID, coupon_id: UUID, session: SessionDep) -> None:
    """Revoke one coupon that was not spent; its place in the campaign stays taken."""
    if await revoke(session, campaign_id, coupon_id):
        await audit.record(session, "coupon.revoked", coupon_id, before={"campaign": campaign_id})
        return
    found = await session.get(Coupon, coupon_id)
    raise CouponUnknown if found is None or found.campaign_id != campaign_id else CouponSpent
