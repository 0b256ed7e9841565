"""Merged accounts: a person's orders and the coupons they spent follow them."""

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.merging import Merging
from services.billing import subscription_owners

# Of two open orders for one item the other account's waits until it is paid or closed; one open order an item is a rule.
_ORDERS: Final = text("""
UPDATE "order" SET member_id = :kept WHERE member_id = :merged
AND NOT (status = 'pending' AND renews_from IS NULL AND EXISTS (
    SELECT FROM "order" mine
    WHERE mine.renews_from IS NULL AND mine.member_id = :kept AND mine.kind = "order".kind AND mine.status = 'pending'
    AND (mine.plan_code = "order".plan_code OR mine.course_id = "order".course_id)
))
""")
# A course that both bought is held through the kept member's order; the other order stays in their list.
_COURSES: Final = text("""
WITH theirs AS (DELETE FROM course_holding WHERE member_id = :merged RETURNING *)
INSERT INTO course_holding (member_id, course_id, order_id, bought_at)
SELECT :kept, course_id, order_id, bought_at FROM theirs ON CONFLICT DO NOTHING
""")
_COUPONS: Final = text("UPDATE coupon_use SET member_id = :kept WHERE member_id = :merged")
_CODES: Final = text("UPDATE redeem_code SET member_id = :kept WHERE member_id = :merged")
_SUBSCRIPTIONS: Final = text("UPDATE subscription SET member_id = :kept WHERE member_id = :merged")
_PAGES: Final = text("UPDATE subscription_page SET member_id = :kept WHERE member_id = :merged")


async def move(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """Give the kept member the orders of the merged one; their time comes with `MembershipChanged`."""
    for statement in (_ORDERS, _COURSES, _COUPONS, _CODES):
        await session.execute(statement, {"kept": kept_id, "merged": merged_id})
    moved = await subscription_owners.end_one_of_two(session, kept_id, merged_id)
    for statement in (_SUBSCRIPTIONS, _PAGES):
        await session.execute(statement, {"kept": kept_id, "merged": merged_id})
    await subscription_owners.tell_moved(session, kept_id, moved)


merging = Merging(move)
