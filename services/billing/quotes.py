"""Quotes: what a plan costs this member with this coupon, and until when they would then be in."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.coupon import CouponClaims, discount_of
from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, problems
from kit.shapes import CleanStr, Instant, Out, StrictIn
from services.billing import coupons
from services.billing.member_time import segments_of, span_of_purchase
from services.billing.plans import PlanNotFound, priced_plan
from services.billing.settings import Settings

router = new_router(prefix="/v1/orders", tags=["orders"])

PlanCode = Annotated[CleanStr, Field(min_length=1, max_length=64)]
CouponToken = Annotated[CleanStr, Field(min_length=1, max_length=9000)]


class PlanNotOnSale(Conflict):
    """This plan is not sold any more; choose another one."""

    zh = "这个套餐已下架，请选择其他套餐。"


@dataclass(frozen=True)
class Quote:
    """A price, all in fen."""

    plan: Row[Any]
    coupon: CouponClaims | None
    subtotal: int
    discount: int

    @property
    def total(self) -> int:
        """What is left to pay."""
        return self.subtotal - self.discount


class QuoteIn(StrictIn):
    """What would be bought."""

    plan_code: PlanCode
    coupon_token: CouponToken | None = None


class QuotedCoupon(Out):
    """The coupon in a quote, and what it takes off."""

    id: UUID
    title: str
    discount: int


class SpanOut(Out):
    """Membership time, half-open."""

    starts_at: Instant
    ends_at: Instant


class QuoteOut(Out):
    """A quote; `membership_after` is the time that is bought."""

    subtotal: int
    discount: int
    total: int
    currency: str
    coupon: QuotedCoupon | None
    membership_after: SpanOut


async def quote(
    session: AsyncSession, settings: Settings, *, member_id: UUID, plan_code: str, coupon_token: str | None
) -> Quote:
    """The price at this instant; refused like the order itself would be, save that no coupon is held for it."""
    plan = await priced_plan(session, plan_code)
    if not plan.active:
        raise PlanNotOnSale
    if coupon_token is None:
        return Quote(plan, None, plan.amount, 0)
    claims = coupons.claims_of(settings, coupon_token, member_id=member_id, plan_code=plan_code, subtotal=plan.amount)
    return Quote(plan, claims, plan.amount, discount_of(claims, plan.amount))


@router.post("/preview", responses=problems(PlanNotFound, PlanNotOnSale, *coupons.REFUSALS))
async def preview_order(body: QuoteIn, caller: MemberDep, session: SessionDep, rt: RuntimeDep) -> QuoteOut:
    """What an order would cost and bring; nothing is held."""
    priced = await quote(
        session,
        rt.settings,
        member_id=caller.id,
        plan_code=body.plan_code,
        coupon_token=body.coupon_token,
    )
    if priced.coupon:
        await coupons.check_free(session, priced.coupon.id)
    span = span_of_purchase(await segments_of(session, caller.id), priced.plan.months, clock.now())
    return QuoteOut(
        subtotal=priced.subtotal,
        discount=priced.discount,
        total=priced.total,
        currency=priced.plan.currency,
        coupon=QuotedCoupon(id=priced.coupon.id, title=priced.coupon.title, discount=priced.discount)
        if priced.coupon
        else None,
        membership_after=SpanOut(starts_at=span.starts_at, ends_at=span.ends_at),
    )
