"""Erasure: what billing holds of a member beside the money records, which the law makes it keep."""

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberErased
from services.billing.models import MemberTime, Order


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget where orders came from and what the member's time was; amounts and numbers stay."""
    await session.execute(
        update(Order)
        .where(col(Order.member_id) == event.member_id)
        .values(address_prefix=None, success_url=None, cancel_url=None)
    )
    await session.execute(delete(MemberTime).where(col(MemberTime.member_id) == event.member_id))
