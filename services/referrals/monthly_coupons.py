"""The coupon of the month: who holds a black card with this benefit takes one each calendar month of the business zone."""

from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import BigInteger, Column, text
from sqlalchemy.dialects.postgresql import TSTZMULTIRANGE, Range, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Forbidden, problems
from kit.idempotency import answers_in_group
from kit.shapes import Out
from services.referrals.claims import refuse, take
from services.referrals.coupons import CouponOut
from services.referrals.fixed_ids import fixed_id
from services.referrals.issue import CouponAlreadyClaimed, CouponUnknown
from services.referrals.models import Campaign, Model
from services.referrals.rewards import month_of
from services.referrals.rules import STOCK
from services.referrals.settings import Settings

routes = router(prefix="/v1/me/coupons/monthly", tags=["coupons"])

BENEFIT: Final = "monthly_coupon"
VALID_DAYS: Final = 30


class CouponBenefit(Model, table=True):
    """When a member's time opens the coupon of the month, as of the membership's `version`."""

    __tablename__ = "coupon_benefit"

    member_id: UUID = Field(primary_key=True)
    version: int = Field(sa_column=Column(BigInteger, nullable=False))
    spans: Any = Field(sa_column=Column(TSTZMULTIRANGE, nullable=False))


class MonthlyCouponNotIncluded(Forbidden):
    """A coupon each month comes with the black card: buy or renew a membership to take it."""

    zh = "每月优惠券是黑卡会员的权益，开通或续费会员后即可领取。"
    action = "buy_membership"


class MonthlyCouponOut(Out):
    """This month's coupon: whether the caller's membership includes it now, and whether they took it already."""

    month: str
    amount: int
    min_amount: int
    included: bool
    claimed: bool


_STANDING: Final = text("""
SELECT
    coalesce((SELECT spans @> CAST(:now AS timestamptz) FROM coupon_benefit WHERE member_id = :member), false) AS included,
    EXISTS (SELECT FROM coupon WHERE campaign_id = :campaign AND member_id = :member) AS claimed
""")


@routes.get("")
async def read_monthly_coupon(
    caller: MemberDep, session: SessionDep, rt: RuntimeDep, response: Response
) -> MonthlyCouponOut:
    """What the coupon of this month is worth, and whether the caller may take it or has."""
    response.headers["Cache-Control"] = "private, no-store"
    now = clock.now()
    month, settings = month_of(now), rt.settings
    standing = (await session.execute(_STANDING, _asked(caller.id, now))).one()
    return MonthlyCouponOut(
        month=f"{month:%Y-%m}",
        amount=settings.monthly_coupon_amount,
        min_amount=settings.monthly_coupon_minimum,
        included=standing.included and settings.monthly_coupon_amount > 0,
        claimed=standing.claimed,
    )


@routes.post(
    "",
    status_code=201,
    response_model=CouponOut,
    responses=problems(MonthlyCouponNotIncluded, CouponAlreadyClaimed, CouponUnknown),
)
@answers_in_group
async def take_monthly_coupon(request: Request, caller: MemberDep, rt: RuntimeDep) -> Response:
    """Take the coupon of this month, once; it can be spent for 30 days."""
    now, settings = clock.now(), rt.settings
    asked = _asked(caller.id, now)
    async with rt.db.session() as session, session.begin():
        await rt.db.connect(session)
        standing = (await session.execute(_STANDING, asked)).one()
        included = standing.included and settings.monthly_coupon_amount > 0
        if included:
            await _open_month(session, asked["campaign"], now, settings)
    if not included:
        return await refuse(MonthlyCouponNotIncluded(), request, rt)
    return await take(asked["campaign"], caller.id, request, rt, source="monthly")


def _asked(member_id: UUID, now: datetime) -> dict[str, Any]:
    return {"member": member_id, "now": now, "campaign": _id_of(month_of(now))}


def _id_of(month: date) -> UUID:
    began = int(datetime(month.year, month.month, 1, tzinfo=clock.ZONE).timestamp() * 1000)
    return fixed_id(began.to_bytes(6, "big"), f"coupon of {month:%Y-%m}".encode())


async def _open_month(session: AsyncSession, campaign_id: UUID, now: datetime, settings: Settings) -> None:
    """Make the month's campaign, whoever comes first; an admin may change it, or end it by deleting it."""
    month = month_of(now)
    row = {
        "id": campaign_id,
        "title": f"黑卡会员 {month.month} 月券",
        "kind": "amount",
        "value": settings.monthly_coupon_amount,
        "min_amount": settings.monthly_coupon_minimum,
        "plan_codes": [],
        "total": STOCK,
        "claimed": 0,
        "per_member": 1,
        "starts_at": datetime(month.year, month.month, 1, tzinfo=clock.ZONE),
        "valid_days": VALID_DAYS,
        "audience": "everyone",
        "claimable": False,
        "version": 1,
        "created_at": now,
    }
    await session.execute(insert(Campaign).values(row).on_conflict_do_nothing(index_elements=["id"]))


async def on_membership_changed(session: AsyncSession, event: MembershipChanged) -> None:
    """Keep when the benefit is open; an older picture than the one held is ignored."""
    picture = {"version": event.version, "spans": _open(event)}
    row = insert(CouponBenefit).values({"member_id": event.member_id} | picture)
    newer = col(CouponBenefit.version) < event.version
    await session.execute(row.on_conflict_do_update(index_elements=["member_id"], set_=picture, where=newer))


def _open(event: MembershipChanged) -> list[Range[datetime]]:
    spans = [Range(item.starts_at, item.ends_at) for item in event.segments if BENEFIT in item.benefits]
    last: SegmentPicture | None = max(event.segments, key=lambda item: item.ends_at, default=None)
    # Within grace access goes on past the last segment, with that segment's benefits.
    if last and BENEFIT in last.benefits and event.access_until and event.access_until > last.ends_at:
        spans.append(Range(last.ends_at, event.access_until))
    return spans
