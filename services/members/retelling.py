"""What is told again: after an upgrade in which a listener began to keep more, of everybody of whom there is something to tell."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field

from kit import clock
from kit.app import Runtime
from kit.db import instant
from kit.due import Due
from services.members.ledger import GRACE, open_ledger, repack
from services.members.models import Model
from services.members.points import tell_points


class Retelling(Model, table=True):
    """What is being told again of everybody, in the order of their ids, and after whom it goes on."""

    __tablename__ = "retelling"

    topic: str = Field(primary_key=True)
    after: UUID
    due_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


WAIT: Final = timedelta(minutes=15)
"""Where processes are replaced one after the other, the listeners that are to hear it may still be old."""
AT_ONCE: Final = 50
"""Each is told to all listeners, behind which the news of the day must not wait."""
MANY: Final = 500

# Who comes first sees to it that it begins later.
_GO_ON: Final = text("""
UPDATE retelling SET due_at = coalesce(due_at, :later)
WHERE topic = :topic AND (due_at IS NULL OR due_at <= :now) RETURNING CASE WHEN due_at <= :now THEN after END
""")
_TOLD: Final = text("UPDATE retelling SET after = :after WHERE topic = :topic")
_OVER: Final = text("DELETE FROM retelling WHERE topic = :topic")
_RUNNING: Final = text("""
SELECT member_id FROM segment WHERE member_id > :after AND revoked_at IS NULL AND ends_at > :since
    AND NOT EXISTS (SELECT FROM member WHERE member.id = segment.member_id AND erased_at IS NOT NULL)
ORDER BY member_id LIMIT 1
""")
_WITH_POINTS: Final = text("""
SELECT DISTINCT member_id FROM point_entry WHERE member_id > :after ORDER BY member_id LIMIT :many
""")


async def _after(session: AsyncSession, topic: str) -> UUID | None:
    """After whom this topic goes on; None while nothing of it is to be told. Others wait until the transaction ends."""
    now = clock.now()
    found = await session.execute(_GO_ON, {"topic": topic, "now": now, "later": now + WAIT})
    after: UUID | None = found.scalar_one_or_none()
    return after


async def tell_again(rt: Runtime) -> int:
    """Tell the next memberships that run, a few in a second; how many."""
    topic = {"topic": "memberships"}
    for told in range(AT_ONCE):
        async with rt.db.session() as session, session.begin():
            after = await _after(session, **topic)
            if after is None:
                return told
            asked = {"after": after, "since": clock.now() - GRACE}
            member_id = (await session.execute(_RUNNING, asked)).scalar_one_or_none()
            if member_id is None:
                await session.execute(_OVER, topic)
                return told
            await repack(session, await open_ledger(session, member_id))
            await session.execute(_TOLD, topic | {"after": member_id})
    return AT_ONCE


async def tell_points_again(rt: Runtime) -> int:
    """Tell how many points the next members have; how many."""
    topic = {"topic": "points"}
    async with rt.db.session() as session, session.begin():
        after = await _after(session, **topic)
        if after is None:
            return 0
        members = (await session.execute(_WITH_POINTS, {"after": after, "many": MANY})).scalars().all()
        # A change that is told at the same moment has a version above the one that is seen here.
        await tell_points(session, *members)
        await session.execute(_TOLD if members else _OVER, topic | ({"after": members[-1]} if members else {}))
        return len(members)


_WAITS: Final = "SELECT FROM retelling WHERE due_at IS NULL OR due_at <= $1"
due = Due("tell memberships again", tell_again, waits=_WAITS)
points_due = Due("tell points again", tell_points_again, waits=_WAITS)
