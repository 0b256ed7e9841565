"""Share links: the token of a member's link to a work leads to that member, as their invitation code does."""

from typing import Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from contracts.members import MemberErased
from contracts.merging import kept_of
from contracts.showcase import EntryShared
from services.referrals.models import Model

_FORGET: Final = text("DELETE FROM share_link WHERE member_id = :id")


class ShareLink(Model, table=True):
    """Whose link to which work has this token."""

    __tablename__ = "share_link"

    token: str = Field(primary_key=True)
    member_id: UUID = Field(index=True)
    entry_id: UUID


async def on_entry_shared(session: AsyncSession, event: EntryShared) -> None:
    """Keep whom the token leads to."""
    row = {"token": event.token, "member_id": event.member_id, "entry_id": event.entry_id}
    await session.execute(insert(ShareLink).values(row).on_conflict_do_nothing())


async def sharer_of(session: AsyncSession, token: str) -> UUID | None:
    """Whose link this is today."""
    found = select(col(ShareLink.member_id)).where(col(ShareLink.token) == token)
    owner_id = (await session.execute(found)).scalar_one_or_none()
    return None if owner_id is None else await kept_of(session, owner_id)


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget the links of a member who leaves: nobody is credited any more."""
    await session.execute(_FORGET, {"id": event.member_id})
