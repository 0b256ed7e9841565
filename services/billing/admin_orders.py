"""Orders as admins see them: whose, what was paid, and what went back."""

from typing import Annotated
from uuid import UUID

from fastapi import Query
from sqlalchemy import select
from sqlmodel import col

from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.billing.gifts import gifts_of
from services.billing.models import Order, OrderStatus, Payment, Refund, RefundStatus
from services.billing.orders import OrderNotFound, OrderOut, shown

router = new_router(prefix="/v1/admin/orders", tags=["admin orders"])

Reader = Annotated[Caller, admin_with("orders:read")]


class AdminOrderOut(OrderOut):
    """An order with whose it is and what holds it together."""

    member_id: UUID
    plan_version: int | None
    coupon_id: UUID | None
    expires_at: Instant
    closed_at: Instant | None


class PaymentOut(Out):
    """Money that arrived for an order: `applied` to it, `parked` for a person, or `surplus` that goes back."""

    id: UUID
    provider_ref: str
    amount: int
    currency: str
    status: str
    reason: str
    received_at: Instant


class AdminRefundOut(Out):
    """Money that went back or is on its way."""

    id: UUID
    payment_id: UUID
    cause: str
    reason: str
    amount: int
    currency: str
    status: RefundStatus
    provider_ref: str | None
    error: str | None
    created_at: Instant
    settled_at: Instant | None


class AdminOrderDetail(AdminOrderOut):
    """An order with all its money; of a gift, who redeemed it, but not its code, which is its buyer's."""

    gift_redeemed_by: UUID | None
    payments: list[PaymentOut]
    refunds: list[AdminRefundOut]


def _shown(order: Order) -> AdminOrderOut:
    extra = set(AdminOrderOut.model_fields) - set(OrderOut.model_fields)
    return AdminOrderOut(**shown(order).model_dump(), **order.model_dump(include=extra))


@router.get("")
async def list_all_orders(
    _: Reader,
    session: SessionDep,
    page: PageDep,
    status: OrderStatus | None = None,
    member_id: UUID | None = None,
    number: Annotated[str | None, Query(max_length=40, pattern=r"^[A-Za-z0-9-]*$")] = None,
) -> Page[AdminOrderOut]:
    """All orders, newest first."""
    query = select(Order)
    if status:
        query = query.where(col(Order.status) == status)
    if member_id:
        query = query.where(col(Order.member_id) == member_id)
    if number:
        query = query.where(col(Order.number) == number.upper())
    found, next_cursor = await keyset(session, query, page, (col(Order.created_at).desc(), col(Order.id).desc()))
    return Page(items=[_shown(order) for order in found], next_cursor=next_cursor)


@router.get("/{order_id}", responses=problems(OrderNotFound))
async def read_any_order(order_id: UUID, _: Reader, session: SessionDep, rt: RuntimeDep) -> AdminOrderDetail:
    """One order with every payment and refund, and what became of a gift."""
    order = await session.get(Order, order_id)
    if order is None:
        raise OrderNotFound
    paid = await session.scalars(
        select(Payment).where(col(Payment.order_id) == order_id).order_by(col(Payment.received_at))
    )
    refunded = await session.scalars(
        select(Refund).where(col(Refund.order_id) == order_id).order_by(col(Refund.created_at))
    )
    gift = (await gifts_of(session, rt.settings, [order])).get(order.id)
    return AdminOrderDetail(
        **_shown(order).model_dump() | {"gift": gift.out if gift else None},
        gift_redeemed_by=gift.redeemer_id if gift else None,
        payments=[PaymentOut.model_validate(payment) for payment in paid],
        refunds=[AdminRefundOut.model_validate(refund) for refund in refunded],
    )
