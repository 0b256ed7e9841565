"""Gifts: a paid order becomes a code for its buyer to give away, good until it is redeemed, refunded or too old."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.shapes import Instant, Out
from services.billing import codes
from services.billing.code_models import RedeemCode
from services.billing.models import Order, Refund
from services.billing.settings import Settings


class GiftOut(Out):
    """What became of a gift; `void` is one whose order was refunded, `on_hold` one whose payment is disputed."""

    status: Literal["open", "redeemed", "void", "expired", "on_hold"]
    expires_at: Instant
    redeemed_at: Instant | None


@dataclass(frozen=True)
class Gift:
    """A paid gift, with its code as its buyer reads it; a void one has none to give away."""

    out: GiftOut
    code: str | None
    redeemer_id: UUID | None


async def prepare(session: AsyncSession, settings: Settings, order: Order) -> None:
    """Write the digest of a gift's code with its order; the code is worth nothing, and told to nobody, until it is paid."""
    session.add(
        RedeemCode(
            code_hash=codes.digest(settings.codes_key, codes.gift_code(settings.codes_key, order.id)),
            order_id=order.id,
            status="unpaid",
            expires_at=order.created_at + timedelta(days=settings.gift_days),
        )
    )
    await session.flush()


async def become_good(session: AsyncSession, order: Order) -> None:
    """Let a gift just paid be redeemed; the time for it counts from the payment."""
    if order.kind != "gift" or order.paid_at is None:
        return
    await session.execute(
        update(RedeemCode)
        .where(col(RedeemCode.order_id) == order.id, col(RedeemCode.status) == "unpaid")
        .values(status="open", expires_at=col(RedeemCode.expires_at) + (order.paid_at - order.created_at))
    )


async def is_going_back(session: AsyncSession, order: Order) -> bool:
    """Whether a refund is under way that will void this gift; the caller holds the order's lock."""
    under_way = select(col(Refund.id)).where(
        col(Refund.order_id) == order.id, col(Refund.status) == "pending", col(Refund.removes_time)
    )
    return await session.scalar(under_way.limit(1)) is not None


async def take_back(session: AsyncSession, order: Order) -> None:
    """Let nobody redeem a gift any more; one that was redeemed stays so. The caller holds the order's lock."""
    unused = (col(RedeemCode.order_id) == order.id) & (col(RedeemCode.status) == "open")
    await session.execute(update(RedeemCode).where(unused).values(status="void"))


async def redeemed(session: AsyncSession, order: Order) -> RedeemCode | None:
    """The redeemed code of a gift: whose it is, and which segment it gave; None for any other order."""
    if order.kind != "gift":
        return None
    return await session.scalar(
        select(RedeemCode)
        .where(col(RedeemCode.order_id) == order.id, col(RedeemCode.status) == "redeemed")
        .execution_options(populate_existing=True)
    )


async def gifts_of(session: AsyncSession, settings: Settings, orders: Sequence[Order]) -> dict[UUID, Gift]:
    """The paid gifts among these orders, by order."""
    paid = {order.id: order for order in orders if order.kind == "gift" and order.paid_at is not None}
    if not paid:
        return {}
    found = await session.scalars(
        select(RedeemCode).where(col(RedeemCode.order_id).in_(paid)).execution_options(populate_existing=True)
    )
    return {code.order_id: _gift(settings, paid[code.order_id], code) for code in found if code.order_id}


def _gift(settings: Settings, order: Order, code: RedeemCode) -> Gift:
    status: str = code.status
    if status == "open" and code.expires_at <= clock.now():
        status = "expired"
    elif status == "open" and order.status == "disputed":
        status = "on_hold"
    return Gift(
        out=GiftOut.model_validate(code.model_dump() | {"status": status}),
        code=None if status == "void" else codes.grouped(codes.gift_code(settings.codes_key, order.id)),
        redeemer_id=code.member_id,
    )
