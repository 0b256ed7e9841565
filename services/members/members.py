"""What every feature says of a member that is not there, or is somebody else by now."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.errors import NotFound
from services.members.models import Member


class MemberNotFound(NotFound):
    """There is no such member."""

    zh = "没有这位会员。"


async def kept_of(session: AsyncSession, member_id: UUID) -> UUID:
    """Who this member is today: themselves, or whom their account was merged into."""
    found = select(col(Member.merged_into)).where(col(Member.id) == member_id)
    while (into := (await session.execute(found)).scalar_one_or_none()) is not None:
        member_id = into
        found = select(col(Member.merged_into)).where(col(Member.id) == member_id)
    return member_id
