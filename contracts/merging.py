"""Merged accounts at a listener: what is held of one id moves to another, again as often as something comes late."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import DateTime, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from contracts.members import MemberMerged
from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.events import Event

Move = Callable[[AsyncSession, UUID, UUID], Awaitable[None]]
"""Moves what is held of the merged member (second id) to the kept one (first); a second run finds nothing to move."""
Handlers = Mapping[type[Event], Sequence[Callable[[AsyncSession, Any], Awaitable[None]]]]

MOVES_AFTER: Final = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=20),
    timedelta(hours=1),
    timedelta(days=1),
)
"""When what came late under the old id is moved: past the old tokens' end, an open order's life, and most retries."""


class MergedMemberColumns(SQLModel):
    """The columns of a listener's table `merged_member`: whose account became part of whose, and the next late move."""

    merged_id: UUID = Field(primary_key=True)
    kept_id: UUID
    moves: int = 0
    next_move_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True), index=True)


_REMEMBER: Final = text("""
INSERT INTO merged_member (merged_id, kept_id, moves, next_move_at) VALUES (:merged, :kept, 0, :next)
ON CONFLICT DO NOTHING
""")
_KEPT: Final = text("SELECT kept_id FROM merged_member WHERE merged_id = :id")
_DUE: Final = text("""
SELECT merged_id, moves, next_move_at FROM merged_member WHERE next_move_at <= :now
ORDER BY next_move_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_PUT_OFF: Final = text("UPDATE merged_member SET moves = :moves, next_move_at = :next WHERE merged_id = :id")


async def kept_of(session: AsyncSession, member_id: UUID) -> UUID:
    """Who this member is today, as far as was heard: themselves, or whom they were merged into."""
    kept_id = member_id
    while (into := (await session.execute(_KEPT, {"id": kept_id})).scalar_one_or_none()) is not None:
        kept_id = into
    return kept_id


class Merging:
    """How one service follows merges with its `move`."""

    def __init__(self, move: Move) -> None:
        self.move = move
        self.due = Due(
            "follow merged members", self._follow, waits="SELECT FROM merged_member WHERE next_move_at <= $1"
        )

    def handlers(self, handlers: Handlers) -> Handlers:
        """These handlers, with the move after each event about a merged member, and after the merge itself."""
        followed = {event: (*functions, self._after) for event, functions in handlers.items()}
        return {**followed, MemberMerged: (self.on_member_merged,)}

    async def on_member_merged(self, session: AsyncSession, event: MemberMerged) -> None:
        """Note who became whose, and move what is held."""
        row = {"merged": event.merged_id, "kept": event.kept_id, "next": clock.now() + MOVES_AFTER[0]}
        await session.execute(_REMEMBER, row)
        await self._catch_up(session, event.merged_id)

    async def _after(self, session: AsyncSession, event: Any) -> None:
        # Events of admins and the like name no member.
        member_id = getattr(event, "member_id", None)
        if member_id is not None:
            await self._catch_up(session, member_id)

    async def _catch_up(self, session: AsyncSession, member_id: UUID) -> None:
        kept_id = await kept_of(session, member_id)
        if kept_id != member_id:
            await session.flush()
            await self.move(session, kept_id, member_id)

    async def _follow(self, rt: Runtime) -> int:
        """Move what was written under old ids since; how many merges were looked after."""
        done = 0
        while True:
            async with rt.db.session() as session, session.begin():
                row = (await session.execute(_DUE, {"now": clock.now()})).one_or_none()
                if row is None:
                    return done
                await self._catch_up(session, row.merged_id)
                moves = row.moves + 1
                wait = MOVES_AFTER[moves] - MOVES_AFTER[moves - 1] if moves < len(MOVES_AFTER) else None
                later = {"id": row.merged_id, "moves": moves, "next": row.next_move_at + wait if wait else None}
                await session.execute(_PUT_OFF, later)
                done += 1
