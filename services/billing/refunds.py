"""Refunds: a member takes the money back in time, an admin later; the membership time goes with it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import SegmentPicture
from kit import audit, clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import Caller, MemberDep, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, Unprocessable, problems
from kit.idempotency import KeyDep
from kit.shapes import MAX_INTEGER, CleanStr, Out, StrictIn
from services.billing import gifts, payments, refunding
from services.billing.member_time import segments_of, span_of_purchase, span_without, told_segments
from services.billing.models import Order, Payment, Refund, RefundStatus
from services.billing.orders import OrderNotFound, OwnOrder
from services.billing.provider import PaymentProviderUnavailable
from services.billing.quotes import SpanOut
from services.billing.refund_windows import (
    ProviderRefundWindowOver,
    RefundWindowOver,
    in_members_window,
    in_providers_window,
    require_window,
)
from services.billing.settings import Settings

router = new_router(prefix="/v1")

Refunder = Annotated[Caller, admin_with("orders:write")]
Reader = Annotated[Caller, admin_with("orders:read")]
Amount = Annotated[int, Field(strict=True, ge=1, le=MAX_INTEGER)]

Reason = Annotated[CleanStr, Field(min_length=1, max_length=500)]

DAY = timedelta(days=1)


class NothingRefundable(Conflict):
    """There is nothing left of this order to give back."""

    zh = "这笔订单没有可退的金额。"


class OrderInDispute(Conflict):
    """The payer's bank asked for this order's money itself; it cannot be given back a second time."""

    zh = "付款银行已就这笔订单提出争议，款项不能再另行退回。"


class RefundTooHigh(Unprocessable):
    """At most {most} fen of this order can be given back; ask for no more than that."""

    zh = "这笔订单最多可退 {most} 分，请不要超过这个金额。"
    loc = ("body", "amount")


class RefundPreviewOut(Out):
    """What a refund would give back, and what time would remain."""

    refundable: int
    days_used: int
    membership_after: SpanOut | None


class RefundIn(StrictIn):
    """Without an amount, all that is refundable."""

    amount: Amount | None = None
    reason: Reason


class AdminRefundIn(RefundIn):
    """An admin may leave the member the time."""

    keep_time: Annotated[bool, Field(strict=True)] = False


class RefundOut(Out):
    """A refund; `segment_id` is the membership time that goes with it."""

    id: UUID
    amount: int
    status: RefundStatus
    segment_id: UUID | None


async def any_order(order_id: UUID, session: SessionDep) -> Order:
    """An order, whoever's."""
    order = await session.get(Order, order_id)
    if order is None:
        raise OrderNotFound
    return order


AnyOrder = Annotated[Order, Depends(any_order, scope="function")]


async def left_of(session: AsyncSession, order: Order) -> int:
    """What of the order's payment has not gone back and is not on its way back."""
    if order.status not in ("paid", "partially_refunded") or order.paid_at is None:
        return 0
    under_way = select(func.coalesce(func.sum(col(Refund.amount)), 0)).where(
        col(Refund.order_id) == order.id, col(Refund.status) == "pending", col(Refund.cause) != "surplus"
    )
    return order.total - order.refunded_amount - int(await session.scalar(under_way) or 0)


async def _returnable(session: AsyncSession, settings: Settings, order: Order) -> int:
    """What of that the provider would still send back."""
    return await left_of(session, order) if in_providers_window(order, settings) else 0


async def _preview(session: AsyncSession, settings: Settings, order: Order, *, by_admin: bool) -> RefundPreviewOut:
    now = clock.now()
    gift = await gifts.redeemed(session, order)
    holder_id = gift.member_id if gift and gift.member_id else order.member_id
    segments = await segments_of(session, holder_id)
    if order.kind == "course" or (order.kind == "gift" and gift is None):
        return await _preview_without_time(session, settings, order, segments, by_admin=by_admin)
    own = next((segment for segment in segments if segment.source_id == order.id), None)
    starts_at, ends_at = (
        (own.starts_at, own.ends_at)
        if own is not None
        # Members has not told of it yet: it lies where the purchase put it.
        else span_of_purchase(segments, order.months, (gift.redeemed_at if gift else order.paid_at) or now)
    )
    # Days on which a dispute kept the member out, and which were added at the end, are no days used.
    begun_at = starts_at + timedelta(seconds=own.idle_s if own is not None else 0)
    days = -((begun_at - ends_at) // DAY)
    days_used = min(max(-((begun_at - now) // DAY), 0), days)
    left = await _returnable(session, settings, order)
    refundable = left
    if not in_members_window(order, settings):
        # What went back before was for unused days too: whoever asks again gets nothing for those that were used.
        unused = order.total * (days - days_used) // days - (order.total - left)
        refundable = max(unused, 0) if by_admin else 0
    # How long somebody else is a member is not the giver's business.
    own_business = by_admin or holder_id == order.member_id
    after = span_without(segments, order.id, now) if own_business else None
    return RefundPreviewOut(
        refundable=refundable,
        days_used=days_used,
        membership_after=SpanOut(starts_at=after.starts_at, ends_at=after.ends_at) if after else None,
    )


async def _preview_without_time(
    session: AsyncSession, settings: Settings, order: Order, segments: Sequence[SegmentPicture], *, by_admin: bool
) -> RefundPreviewOut:
    """A course, or a gift nobody has redeemed, has no days that could be used up: after the window an admin gives back all."""
    now = clock.now()
    refundable = await _returnable(session, settings, order) if by_admin or in_members_window(order, settings) else 0
    after = span_without(segments, order.id, now)
    return RefundPreviewOut(
        refundable=refundable,
        days_used=-((order.paid_at - now) // DAY) if order.paid_at and order.kind == "course" else 0,
        membership_after=SpanOut(starts_at=after.starts_at, ends_at=after.ends_at) if after else None,
    )


@router.post("/orders/{order_id}/refund-preview", tags=["refunds"], responses=problems(OrderNotFound))
async def preview_refund(order: OwnOrder, session: SessionDep, rt: RuntimeDep) -> RefundPreviewOut:
    """What the caller would get back now; 0 once the time for it is over."""
    return await _preview(session, rt.settings, order, by_admin=False)


@router.post("/admin/orders/{order_id}/refund-preview", tags=["admin orders"], responses=problems(OrderNotFound))
async def preview_refund_as_admin(_: Reader, order: AnyOrder, session: SessionDep, rt: RuntimeDep) -> RefundPreviewOut:
    """What an admin would give back: all of it in the refund window, later what the unused days are worth."""
    return await _preview(session, rt.settings, order, by_admin=True)


REFUSALS = (
    OrderNotFound,
    RefundWindowOver,
    ProviderRefundWindowOver,
    NothingRefundable,
    OrderInDispute,
    RefundTooHigh,
    PaymentProviderUnavailable,
)


@router.post(
    "/orders/{order_id}/refunds",
    tags=["refunds"],
    status_code=201,
    responses=problems(*REFUSALS),
)
async def refund_order(
    order: OwnOrder, body: RefundIn, caller: MemberDep, key: KeyDep, session: SessionDep, rt: RuntimeDep
) -> RefundOut:
    """Give the caller's money back; all of it takes the membership time too, a part leaves it."""
    return await _refund(session, rt, order, body, caller, key, keep_time=False)


@router.post(
    "/admin/orders/{order_id}/refunds",
    tags=["admin orders"],
    status_code=201,
    responses=problems(*REFUSALS),
)
async def refund_order_as_admin(
    caller: Refunder, order: AnyOrder, body: AdminRefundIn, key: KeyDep, session: SessionDep, rt: RuntimeDep
) -> RefundOut:
    """Give a member's money back as long as the way it came allows; less than what is refundable leaves the time."""
    return await _refund(session, rt, order, body, caller, key, keep_time=body.keep_time)


async def _refund(
    session: AsyncSession,
    rt: RuntimeDep,
    order: Order,
    body: RefundIn,
    caller: Caller,
    key: str,
    *,
    keep_time: bool,
) -> RefundOut:
    request_key = f"{caller.id} {key}"
    locked = await payments.lock_order(session, order.id)
    if locked is None:
        raise OrderNotFound
    # A repetition after the provider was away finds the refund it wrote and goes on with it.
    refund = await session.scalar(
        select(Refund).where(col(Refund.order_id) == order.id, col(Refund.request_key) == request_key)
    )
    if refund is None:
        refund = await _write(session, rt.settings, locked, body, caller, request_key, keep_time=keep_time)
        if caller.role == "admin":
            given = {"refund": refund.id, "amount": refund.amount, "reason": refund.reason, "keep_time": keep_time}
            await audit.record(session, "order.refunded", order.id, after=given)
    segments = await told_segments(session, order.member_id)
    # The row is there before the provider is asked, so that money never moves without a trace.
    await session.commit()
    await refunding.execute(rt, refund.id)
    await session.refresh(refund)
    gift = await gifts.redeemed(session, order)
    own = gift.segment_id if gift else next((item.id for item in segments if item.source_id == order.id), None)
    return RefundOut(
        id=refund.id, amount=refund.amount, status=refund.status, segment_id=own if refund.removes_time else None
    )


async def _write(
    session: AsyncSession,
    settings: Settings,
    order: Order,
    body: RefundIn,
    caller: Caller,
    key: str,
    *,
    keep_time: bool,
) -> Refund:
    by_admin = caller.role == "admin"
    if order.status == "disputed":
        raise OrderInDispute
    left = await left_of(session, order)
    payment_id = await session.scalar(
        select(col(Payment.id)).where(col(Payment.order_id) == order.id, col(Payment.status) == "applied")
    )
    if left <= 0 or payment_id is None:
        raise NothingRefundable
    require_window(order, settings, by_admin=by_admin)
    preview = await _preview(session, settings, order, by_admin=by_admin)
    amount = preview.refundable if body.amount is None else body.amount
    if amount <= 0:
        raise NothingRefundable
    if amount > left:
        raise RefundTooHigh(most=left)
    now = clock.now()
    refund = Refund(
        order_id=order.id,
        payment_id=payment_id,
        cause="admin" if by_admin else "member",
        requested_by=caller.id,
        request_key=key,
        reason=body.reason,
        amount=amount,
        currency=order.currency,
        removes_time=amount >= (preview.refundable or left) and not keep_time,
        status="pending",
        next_attempt_at=now + refunding.LEASE,
        created_at=now,
    )
    session.add(refund)
    await session.flush()
    return refund
