"""News for partners of the members they brought: who registered, tried, paid, or had money back."""

from typing import Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderRefunded
from services.referrals.models import Attribution, MemberCard
from services.referrals.webhook_messages import tell

_UNTOLD: Final = text("""
SELECT order_id, total, currency, paid_at FROM purchase WHERE member_id = :member AND total > 0
AND NOT EXISTS (SELECT FROM webhook_message WHERE type = 'order.paid' AND reference = purchase.order_id)
ORDER BY paid_at, order_id
""")


async def tell_progress(session: AsyncSession, origin: Attribution, card: MemberCard) -> None:
    """Tell the partner how far a member has come, each step once."""
    if origin.partner_id is None:
        return
    who = {"member_id": origin.member_id, "link_id": origin.link_id}
    await tell(session, origin.partner_id, "member.registered", origin.member_id, **who, registered_at=origin.bound_at)
    if card.lesson_at is not None:
        await tell(session, origin.partner_id, "member.tried", origin.member_id, **who, tried_at=card.lesson_at)
    for order in (await session.execute(_UNTOLD, {"member": origin.member_id})).all():
        paid = {"order_id": order.order_id, "total": order.total, "currency": order.currency, "paid_at": order.paid_at}
        await tell(session, origin.partner_id, "order.paid", order.order_id, **who, **paid)


async def tell_refund(session: AsyncSession, event: OrderRefunded) -> None:
    """Tell the partner, if one brought this member, that money went back."""
    found = select(col(Attribution.partner_id)).where(col(Attribution.member_id) == event.member_id)
    partner_id = (await session.execute(found)).scalar_one_or_none()
    if partner_id is not None:
        await tell(
            session,
            partner_id,
            "order.refunded",
            event.refund_id,
            member_id=event.member_id,
            order_id=event.order_id,
            amount=event.amount,
            currency=event.currency,
            refunded_at=event.refunded_at,
        )
