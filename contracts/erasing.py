"""Erased members at a listener: what is heard, or was written, of them afterwards is forgotten as the rest was."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import DateTime, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from contracts.members import MemberErased, MemberMerged
from kit import clock
from kit.app import Runtime
from kit.db import fetch
from kit.due import Due
from kit.events import Event

Function = Callable[[AsyncSession, Any], Awaitable[None]]
Handlers = Mapping[type[Event], Sequence[Function]]

PASSES_AFTER: Final = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=20),
    timedelta(hours=1),
    timedelta(days=7),
)
"""When what was written meanwhile is forgotten: by a request on its way, an event in another process, an old token, an order
that was open still, a payment that takes days to arrive."""


class ErasedMemberColumns(SQLModel):
    """The columns of a listener's table `erased_member`: a digest, which names nobody, and until the last pass the id."""

    digest: bytes = Field(primary_key=True)
    erased_id: UUID | None = None
    passes: int = 0
    next_pass_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True), index=True)


_REMEMBER: Final = text("""
INSERT INTO erased_member (digest, erased_id, passes, next_pass_at)
VALUES (sha256(uuid_send(CAST(:id AS uuid))), :id, 0, :next) ON CONFLICT DO NOTHING
""")
_ERASED: Final = """
WITH RECURSIVE who AS (
    SELECT $1::uuid AS id
    UNION SELECT kept_id FROM who JOIN merged_member ON merged_id = who.id
)
SELECT id FROM who WHERE EXISTS (SELECT FROM who AS any_of JOIN erased_member ON digest = sha256(uuid_send(any_of.id)))
"""
"""Under which ids there may be something of a member who left; none of one who did not."""
_DUE: Final = text("""
SELECT digest, erased_id, passes, next_pass_at FROM erased_member WHERE next_pass_at <= :now
ORDER BY next_pass_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_PUT_OFF: Final = text("""
UPDATE erased_member SET passes = :passes, next_pass_at = :next,
    erased_id = CASE WHEN CAST(:next AS timestamptz) IS NULL THEN NULL ELSE erased_id END
WHERE digest = :digest
""")


class Erasing:
    """How one service goes on forgetting whoever was erased, by its own handlers of `MemberErased`.

    An event that failed is tried again for hours, and two processes keep no order between them: news of a member may
    follow the news that they left. Whatever its handlers write of an erased member is forgotten in their transaction.
    """

    def __init__(self) -> None:
        self.forgets: Sequence[Function] = ()
        self.due = Due(
            "forget what was late of erased members",
            self._pass,
            waits="SELECT FROM erased_member WHERE next_pass_at <= $1",
        )

    def handlers(self, handlers: Handlers) -> Handlers:
        """These handlers; after those of each event about an erased member, the ones that forget."""
        self.forgets = tuple(handlers[MemberErased])
        followed = {event: (*functions, self._after) for event, functions in handlers.items()}
        return {**followed, MemberErased: (self.on_member_erased, *self.forgets)}

    async def on_member_erased(self, session: AsyncSession, event: MemberErased) -> None:
        """Note who left; forgetting is the next handlers' work."""
        await session.execute(_REMEMBER, {"id": event.member_id, "next": clock.now() + PASSES_AFTER[0]})

    async def _after(self, session: AsyncSession, event: Any) -> None:
        # Events of admins and the like name no member.
        member_id = event.kept_id if isinstance(event, MemberMerged) else getattr(event, "member_id", None)
        if member_id is not None:
            for row in await fetch(await session.connection(), _ERASED, member_id):
                await self._forget(session, row["id"])

    async def _forget(self, session: AsyncSession, member_id: UUID) -> None:
        await session.flush()
        session.expire_all()
        for forget in self.forgets:
            await forget(session, MemberErased(member_id=member_id))

    async def _pass(self, rt: Runtime) -> int:
        """Forget what was written since of those whose pass is due; how many members were looked after."""
        done = 0
        while True:
            async with rt.db.session() as session, session.begin():
                row = (await session.execute(_DUE, {"now": clock.now()})).one_or_none()
                if row is None:
                    return done
                await self._forget(session, row.erased_id)
                passes = row.passes + 1
                wait = PASSES_AFTER[passes] - PASSES_AFTER[passes - 1] if passes < len(PASSES_AFTER) else None
                later = {"digest": row.digest, "passes": passes, "next": row.next_pass_at + wait if wait else None}
                await session.execute(_PUT_OFF, later)
                done += 1
