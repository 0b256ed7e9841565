"""Member cards: what referrals keeps of a member, written by events in whatever order they come."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, delete, func, literal, or_, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.erasing import Erasing
from contracts.members import MemberChanged, MemberErased
from kit import clock
from services.referrals.former import remember
from services.referrals.models import Device, MemberCard

ERASED_NAME = "已注销会员"
PERSONAL = {
    "touch": "member_id = :member_id OR newcomer_id = :member_id",
    "reward": "inviter_id = :member_id",
    "reward_budget": "inviter_id = :member_id",
}
"""Whose the rows are that name their member otherwise, for the export."""

# A device that somebody else uses too stays theirs.
_FORGET_DEVICES = text("""
UPDATE touch SET visitor_id = NULL WHERE visitor_id IN (
    SELECT visitor_id FROM device WHERE member_id = :id
    EXCEPT SELECT visitor_id FROM device WHERE member_id <> :id)
""")
_FORGET_TOUCHES = text("UPDATE touch SET visitor_id = NULL WHERE member_id = :id OR newcomer_id = :id")
_FORGET_CARDS = text("UPDATE purchase SET fingerprint = NULL, address_prefix = NULL WHERE member_id = :id")

_FORGET_PARTNERS = text("UPDATE partner SET member_id = NULL WHERE member_id = :id")
_FORGET_BENEFITS = text("DELETE FROM coupon_benefit WHERE member_id = :id")
_FORGET_NOTES = text("UPDATE grant_row SET note = NULL WHERE member_id = :id")


async def keep(session: AsyncSession, member_id: UUID, **columns: Any) -> None:
    """Write these columns of a member's card, which may be the first thing heard of them."""
    row = insert(MemberCard).values({"member_id": member_id, "nickname": "", "tier": "potential"} | columns)
    await session.execute(row.on_conflict_do_update(index_elements=["member_id"], set_=columns))


async def keep_earliest(session: AsyncSession, member_id: UUID, **instants: Any) -> None:
    """Write these instants of a member's card where none earlier is known."""
    row = insert(MemberCard).values({"member_id": member_id, "nickname": "", "tier": "potential"} | instants)
    earliest = {
        name: func.least(MemberCard.metadata.tables["member_card"].c[name], row.excluded[name]) for name in instants
    }
    await session.execute(row.on_conflict_do_update(index_elements=["member_id"], set_=earliest))


async def living(session: AsyncSession, members: Sequence[UUID]) -> set[UUID]:
    """Those of them who are members."""
    found = select(col(MemberCard.member_id)).where(
        col(MemberCard.member_id) == func.any(literal(list(members), ARRAY(Uuid))), col(MemberCard.erased_at).is_(None)
    )
    return set((await session.execute(found)).scalars())


async def on_member_changed(session: AsyncSession, event: MemberChanged) -> None:
    """Keep the name, tier and labels; an older picture never replaces a newer one."""
    picture = {
        "nickname": event.nickname,
        "tier": event.tier,
        "labels": list(event.labels),
        "changed_at": event.at,
    }
    row = insert(MemberCard).values({"member_id": event.member_id} | picture)
    newer = or_(col(MemberCard.changed_at).is_(None), col(MemberCard.changed_at) < event.at)
    alive = col(MemberCard.erased_at).is_(None)
    await session.execute(row.on_conflict_do_update(index_elements=["member_id"], set_=picture, where=newer & alive))


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget who it was: name, phone, address, devices; what was earned and bought stays, without them."""
    card = await session.get(MemberCard, event.member_id)
    await remember(session, card.phone_hash if card else None)
    await keep(
        session,
        event.member_id,
        nickname=ERASED_NAME,
        tier="potential",
        labels=[],
        phone_hash=None,
        address_prefix=None,
        visitor_id=None,
    )
    await keep_earliest(session, event.member_id, erased_at=clock.now())
    for statement in (
        _FORGET_DEVICES, _FORGET_TOUCHES, _FORGET_CARDS, _FORGET_PARTNERS, _FORGET_BENEFITS, _FORGET_NOTES
    ):  # fmt: skip
        await session.execute(statement, {"id": event.member_id})
    await session.execute(delete(Device).where(col(Device.member_id) == event.member_id))


erasing = Erasing()
