"""Quotes: what a plan or course costs this member with this coupon, and until when they would then be in."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.coupon import CouponClaims, discount_of
from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import problems
from kit.shapes import CleanStr, Instant, Out
from services.billing import coupons, items
from services.billing.items import Item, ItemIn, item_of
from services.billing.member_time import segments_of, span_of_purchase
from services.billing.settings import Settings

router = new_router(prefix="/v1/orders", tags=["orders"])

CouponToken = Annotated[CleanStr, Field(min_length=1, max_length=9000)]


@dataclass(frozen=True)
class Quote:
    """A price, all in fen."""

    item: Item
    coupon: CouponClaims | None
    subtotal: int
    discount: int

    @property
    def total(self) -> int:
        """What is left to pay."""
        return self.subtotal - self.discount


class QuoteIn(ItemIn):
    """What would be bought."""

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
    """A quote; `membership_after` is the time that is bought, null for a course and for a gift: its redemption begins it."""

    subtotal: int
    discount: int
    total: int
    currency: str
    coupon: QuotedCoupon | None
    membership_after: SpanOut | None


async def quote(
    session: AsyncSession, settings: Settings, *, member_id: UUID, wanted: ItemIn, coupon_token: str | None
) -> Quote:
    """The price at this instant; refused like the order itself would be, save that no coupon is held for it."""
    item = await item_of(session, wanted, member_id)
    if coupon_token is None:
        return Quote(item, None, item.amount, 0)
    claims = await coupons.claims_of(
        session,
        settings,
        coupon_token,
        member_id=member_id,
        plan_code=item.plan_code,
        subtotal=item.amount,
        currency=item.currency,
    )
    return Quote(item, claims, item.amount, discount_of(claims, item.amount))


@router.post("/preview", responses=problems(*items.REFUSALS, *coupons.REFUSALS))
async def preview_order(body: QuoteIn, caller: MemberDep, session: SessionDep, rt: RuntimeDep) -> QuoteOut:
    """What an order would cost and bring; nothing is held. Coupons are for plans, not for courses."""
    priced = await quote(session, rt.settings, member_id=caller.id, wanted=body, coupon_token=body.coupon_token)
    if priced.coupon:
        await coupons.check_free(session, priced.coupon.id)
    span = None
    if priced.item.months and not body.gift:
        span = span_of_purchase(await segments_of(session, caller.id), priced.item.months, clock.now())
    return QuoteOut(
        subtotal=priced.subtotal,
        discount=priced.discount,
        total=priced.total,
        currency=priced.item.currency,
        coupon=QuotedCoupon(id=priced.coupon.id, title=priced.coupon.title, discount=priced.discount)
        if priced.coupon
        else None,
        membership_after=SpanOut(starts_at=span.starts_at, ends_at=span.ends_at) if span else None,
    )
