"""Coupons at the till: the signed token is read, the coupon held by one order at a time, spent or given back."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts import coupon as contract
from contracts.billing import CouponRedeemed, CouponReleased, CouponReserved
from contracts.coupon import CouponClaims
from contracts.merging import kept_of
from contracts.referrals import CouponRevoked
from kit import clock
from kit.errors import Conflict, Unprocessable
from kit.events import emit
from kit.ids import new_id
from services.billing.models import CouponUse, Order, RevokedCoupon
from services.billing.settings import Settings

CURRENCY: Final = "CNY"
"""Of which a coupon's `value` and `min_amount` are minor units."""


class CouponInvalid(Unprocessable):
    """This coupon is not valid; choose one from your coupons."""

    zh = "优惠券无效，请从你的优惠券里选择。"
    loc = ("body", "coupon_token")


class CouponForeign(Unprocessable):
    """This coupon belongs to somebody else; choose one of your own."""

    zh = "这张优惠券不属于你，请选择自己的优惠券。"
    loc = ("body", "coupon_token")


class CouponWrongPlan(Unprocessable):
    """This coupon does not apply to what you buy: coupons are for plans, some for certain plans only; go on without it."""

    zh = "这张优惠券不适用于所选商品：优惠券用于套餐，有的仅限指定套餐；请换一张或不使用优惠券。"
    loc = ("body", "coupon_token")


class CouponBelowMinimum(Unprocessable):
    """This coupon needs a purchase of at least {minimum} fen; choose a larger plan or another coupon."""

    zh = "这张优惠券需满 {minimum} 分可用，请选择更高的套餐或换一张。"
    loc = ("body", "coupon_token")


class CouponNotStarted(Conflict):
    """This coupon cannot be spent yet; try again once it has started."""

    zh = "这张优惠券还没到可用时间，请稍后再用。"


class CouponExpired(Conflict):
    """This coupon has expired; choose another one."""

    zh = "优惠券已过期，请换一张。"


class CouponUsed(Conflict):
    """This coupon was spent already; choose another one."""

    zh = "优惠券已使用，请换一张。"


class CouponReservedElsewhere(Conflict):
    """This coupon is held by another open order; pay or cancel that order first."""

    zh = "优惠券已被另一笔待支付订单占用，请先支付或取消那笔订单。"
    code = "coupon_reserved"


REFUSALS = (
    CouponInvalid,
    CouponForeign,
    CouponWrongPlan,
    CouponBelowMinimum,
    CouponNotStarted,
    CouponExpired,
    CouponUsed,
    CouponReservedElsewhere,
)


async def claims_of(
    session: AsyncSession,
    settings: Settings,
    token: str,
    *,
    member_id: UUID,
    plan_code: str | None,
    subtotal: int,
    currency: str,
) -> CouponClaims:
    """What a token gives this member on this plan, or on a course (None), at this instant; one of `REFUSALS` when it gives nothing."""
    try:
        claims = contract.read(token, settings.coupon_keys)
    except contract.CouponInvalid as failure:
        raise CouponInvalid from failure
    # An app may still hold the token that names the account which became part of this one.
    if claims.member_id != member_id and await kept_of(session, claims.member_id) != member_id:
        raise CouponForeign
    now = clock.now()
    if claims.starts_at > now:
        raise CouponNotStarted
    if claims.ends_at <= now:
        raise CouponExpired
    if plan_code is None or (claims.plan_codes and plan_code not in claims.plan_codes):
        raise CouponWrongPlan
    # A percentage is one of any price; 500 fen are not 500 cents.
    if currency != CURRENCY and (claims.kind == "amount" or claims.min_amount):
        raise CouponWrongPlan
    if subtotal < claims.min_amount:
        raise CouponBelowMinimum(minimum=claims.min_amount)
    return claims


async def check_free(session: AsyncSession, coupon_id: UUID) -> None:
    """Refuse a coupon that is revoked, spent, or held by an order."""
    if await session.get(RevokedCoupon, coupon_id):
        raise CouponInvalid
    status = await session.scalar(
        select(col(CouponUse.status)).where(col(CouponUse.coupon_id) == coupon_id, col(CouponUse.status) != "released")
    )
    if status == "redeemed":
        raise CouponUsed
    if status == "reserved":
        raise CouponReservedElsewhere


async def reserve(session: AsyncSession, coupon_id: UUID, order: Order) -> None:
    """Hold the coupon for this order, in its transaction; refused when any other live order has it."""
    if not await _take(session, coupon_id, order):
        await check_free(session, coupon_id)
        # Whoever had it let go between the two statements; the caller's retry will find it free.
        raise CouponReservedElsewhere


async def reserve_again(session: AsyncSession, order: Order, at: datetime) -> bool:
    """Hold a closed order's coupon once more, for a payment that came late; False when it cannot be had."""
    if order.coupon_id is None:
        return True
    ended = order.coupon_ends_at is not None and order.coupon_ends_at <= at
    return not ended and await _take(session, order.coupon_id, order)


async def _take(session: AsyncSession, coupon_id: UUID, order: Order) -> bool:
    if await session.get(RevokedCoupon, coupon_id):
        return False
    use = {
        "id": new_id(),
        "coupon_id": coupon_id,
        "order_id": order.id,
        "member_id": order.member_id,
        "status": "reserved",
        "reserved_at": clock.now(),
    }
    # Said in full: with a parameter in its place, PostgreSQL finds the partial index for some plans of the statement only.
    live = text("status <> 'released'")
    taken = await session.scalar(
        upsert(CouponUse)
        .values(use)
        .on_conflict_do_nothing(index_elements=["coupon_id"], index_where=live)
        .returning(col(CouponUse.id))
    )
    if taken is None:
        return False
    await emit(session, CouponReserved(coupon_id=coupon_id, order_id=order.id, member_id=order.member_id))
    return True


async def redeem(session: AsyncSession, order: Order) -> None:
    """Spend the coupon this order holds."""
    if order.coupon_id is not None and await _settle(session, order, before="reserved", after="redeemed"):
        await emit(session, CouponRedeemed(coupon_id=order.coupon_id, order_id=order.id, member_id=order.member_id))


async def release(session: AsyncSession, order: Order) -> None:
    """Give back the coupon this order holds or spent."""
    if order.coupon_id is None:
        return
    held = await _settle(session, order, before="reserved", after="released")
    if held or await _settle(session, order, before="redeemed", after="released"):
        await emit(session, CouponReleased(coupon_id=order.coupon_id, order_id=order.id, member_id=order.member_id))


async def _settle(session: AsyncSession, order: Order, *, before: str, after: str) -> bool:
    changed = await session.scalar(
        update(CouponUse)
        .where(col(CouponUse.order_id) == order.id, col(CouponUse.status) == before)
        .values(status=after, settled_at=clock.now())
        .returning(col(CouponUse.id))
    )
    return changed is not None


async def on_coupon_revoked(session: AsyncSession, event: CouponRevoked) -> None:
    """Take no more orders with this coupon; an open order that holds it keeps the price it was quoted."""
    await session.execute(
        upsert(RevokedCoupon).values(coupon_id=event.coupon_id, revoked_at=event.at).on_conflict_do_nothing()
    )
