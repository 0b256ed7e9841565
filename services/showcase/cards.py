"""Member cards: what showcase keeps of members, from events that may come late or in another order."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import case, null, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.erasing import Erasing
from contracts.members import MemberChanged, MemberErased, MemberRegistered
from kit import clock
from kit.shapes import Out
from services.showcase.models import MemberCard
from services.showcase.signals import device_of

UUID_VERSION_WITH_TIME: Final = 7
ERASED_AT: Final = datetime.max.replace(tzinfo=UTC)
"""When an erased member's card changed last: no news is newer."""
_OF_THEIR_WORKS: Final = "entry_id IN (SELECT id FROM entry WHERE member_id = :member_id)"
PERSONAL: Final = {
    "entry_image": _OF_THEIR_WORKS,
    "feature": _OF_THEIR_WORKS,
    "result": _OF_THEIR_WORKS,
    # What their contest hides is hidden from authors too.
    "tally": "entry_id IN (SELECT e.id FROM entry e JOIN contest c ON c.id = e.contest_id "
    "WHERE e.member_id = :member_id AND (c.settled_at IS NOT NULL OR NOT c.hide_totals))",
}
"""Whose the rows are that name a work and no member, for the export."""

_FORGET: Final = (
    text("DELETE FROM comment WHERE member_id = :id"),
    text("UPDATE entry SET story = '' WHERE member_id = :id"),
    text("UPDATE member_card SET device = NULL WHERE member_id = :id"),
)


class MemberOut(Out):
    """A member as others see them; the nickname is empty until their registration has been heard of."""

    id: UUID
    nickname: str


def born_at(member_id: UUID) -> datetime:
    """When a member whose registration has not been heard of yet must have registered: as their id was made.

    The millisecond count of a UUIDv7 (RFC 9562 5.7) is real time, so the sandbox's offset is added. Any other id tells
    nothing and counts as made now.
    """
    if member_id.version != UUID_VERSION_WITH_TIME:
        return clock.now()
    return datetime.fromtimestamp((member_id.int >> 80) / 1000, UTC) + clock.offset()


async def on_member_registered(session: AsyncSession, event: MemberRegistered) -> None:
    """Keep when, and by whose invitation; a nickname changed since then stays."""
    row = insert(MemberCard).values(
        member_id=event.member_id,
        nickname=event.nickname,
        registered_at=event.registered_at,
        invite_code=event.invite_code,
        device=device_of(event.visitor_id) if event.visitor_id else None,
    )
    facts: dict[str, Any] = {name: row.excluded[name] for name in ("registered_at", "invite_code")}
    erased = col(MemberCard.changed_at) == ERASED_AT
    facts["device"] = case((erased, null()), else_=row.excluded.device)
    await session.execute(row.on_conflict_do_update(index_elements=["member_id"], set_=facts))


async def on_member_changed(session: AsyncSession, event: MemberChanged) -> None:
    """Keep the nickname, unless a later change was heard of first."""
    await _name(session, event.member_id, event.nickname, event.at)


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget the nickname for good, the stories and the comments; votes and published results stand without a name."""
    for statement in _FORGET:
        await session.execute(statement, {"id": event.member_id})
    await _name(session, event.member_id, "", ERASED_AT)


async def _name(session: AsyncSession, member_id: UUID, nickname: str, at: datetime) -> None:
    row = insert(MemberCard).values(member_id=member_id, nickname=nickname, changed_at=at)
    held: Any = col(MemberCard.changed_at)
    await session.execute(
        row.on_conflict_do_update(
            index_elements=["member_id"],
            set_={"nickname": row.excluded.nickname, "changed_at": row.excluded.changed_at},
            where=held.is_(None) | (held < row.excluded.changed_at),
        )
    )


erasing = Erasing()
