"""Orders: a member sees what they bought and how it stands, and gives up what is not paid."""

from collections.abc import Mapping
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends
from sqlalchemy import select
from sqlmodel import col

from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.billing import checkout, payments
from services.billing.gifts import Gift, GiftOut, gifts_of
from services.billing.models import Order, OrderStatus, PaymentMethod
from services.billing.provider import PaymentProviderUnavailable, provider_of

router = new_router(prefix="/v1/orders", tags=["orders"])


class OrderNotFound(NotFound):
    """There is no such order among yours; see your list of orders."""

    zh = "没有找到这笔订单，请查看你的订单列表。"


class OrderAlreadyPaid(Conflict):
    """This order was paid and cannot be canceled; ask for a refund instead."""

    zh = "订单已支付，不能取消；如需退款请申请退款。"


class OrderIsRenewal(Conflict):
    """This order renews your membership; cancel auto-renewal instead, and it is closed with it."""

    zh = "这是自动续费的订单，请改为取消自动续费，订单会随之关闭。"
    action = "cancel_subscription"


class CheckoutOut(Out):
    """Where the order is paid, and until when."""

    url: str
    expires_at: Instant


class OrderOut(Out):
    """An order as its buyer sees it; `checkout` is there while it can be paid, `gift_code` once a gift is."""

    id: UUID
    number: str
    status: OrderStatus
    kind: Literal["membership", "gift", "course"]
    plan_code: str | None
    course_id: UUID | None
    auto_renew: bool
    subtotal: int
    discount: int
    total: int
    currency: str
    payment_method: PaymentMethod
    checkout: CheckoutOut | None
    gift_code: str | None
    gift: GiftOut | None
    refunded_amount: int
    created_at: Instant
    paid_at: Instant | None


def shown(order: Order, gifts: Mapping[UUID, Gift] | None = None) -> OrderOut:
    """An order; with its code, if it is a gift, for its buyer only."""
    gift = gifts.get(order.id) if gifts else None
    payable = order.status == "pending" and order.session_url is not None
    return OrderOut(
        checkout=CheckoutOut(url=order.session_url, expires_at=order.expires_at)
        if payable and order.session_url
        else None,
        gift_code=gift.code if gift else None,
        gift=gift.out if gift else None,
        **order.model_dump(include=set(OrderOut.model_fields) - {"checkout", "gift_code", "gift"}),
    )


async def own_order(order_id: UUID, caller: MemberDep, session: SessionDep) -> Order:
    """The caller's order; somebody else's is not found."""
    order = await session.get(Order, order_id)
    if order is None or order.member_id != caller.id:
        raise OrderNotFound
    return order


OwnOrder = Annotated[Order, Depends(own_order, scope="function")]


@router.get("")
async def list_orders(
    caller: MemberDep, session: SessionDep, rt: RuntimeDep, page: PageDep, status: OrderStatus | None = None
) -> Page[OrderOut]:
    """The caller's orders, newest first."""
    query = select(Order).where(col(Order.member_id) == caller.id)
    if status:
        query = query.where(col(Order.status) == status)
    found, next_cursor = await keyset(session, query, page, (col(Order.created_at).desc(), col(Order.id).desc()))
    gifts = await gifts_of(session, rt.settings, found)
    return Page(items=[shown(order, gifts) for order in found], next_cursor=next_cursor)


@router.get("/{order_id}", responses=problems(OrderNotFound, PaymentProviderUnavailable))
async def read_order(order: OwnOrder, session: SessionDep, rt: RuntimeDep, *, refresh: bool = False) -> OrderOut:
    """One order; `refresh=true` asks the payment provider now."""
    if refresh and (order.status == "pending" or order.session_open):
        await checkout.check_now(session, provider_of(rt), order)
    return shown(order, await gifts_of(session, rt.settings, [order]))


@router.post(
    "/{order_id}/cancel",
    responses=problems(OrderNotFound, OrderAlreadyPaid, OrderIsRenewal, PaymentProviderUnavailable),
)
async def cancel_order(order: OwnOrder, session: SessionDep, rt: RuntimeDep) -> OrderOut:
    """Give up an unpaid order and free its coupon; canceling twice answers the order, and a payment that came first wins."""
    if order.status == "pending" and order.renews_from is not None:
        raise OrderIsRenewal
    if order.status == "pending":
        await checkout.end_session(session, provider_of(rt), order)
        await payments.close(session, order.id, "canceled")
        await session.refresh(order)
    elif order.status not in ("canceled", "expired"):
        raise OrderAlreadyPaid
    return shown(order)
