"""Merged accounts: a person's orders and the coupons they spent follow them."""

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.merging import Merging

# Of two open orders for one plan the other account's waits until it is paid or closed; one open order a plan is a rule.
_ORDERS: Final = text("""
UPDATE "order" SET member_id = :kept WHERE member_id = :merged AND NOT (status = 'pending' AND EXISTS (
    SELECT FROM "order" mine
    WHERE mine.member_id = :kept AND mine.plan_code = "order".plan_code AND mine.kind = "order".kind
    AND mine.status = 'pending'
))
""")
_COUPONS: Final = text("UPDATE coupon_use SET member_id = :kept WHERE member_id = :merged")


async def move(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """Give the kept member the orders of the merged one; their time comes with `MembershipChanged`."""
    for statement in (_ORDERS, _COUPONS):
        await session.execute(statement, {"kept": kept_id, "merged": merged_id})


merging = Merging(move)
