"""What is told again: after an upgrade in which a listener began to keep more, of everybody of whom there is something to tell."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Field

from kit import clock
from kit.app import Runtime
from kit.db import instant
from kit.due import Due
from services.members.ledger import open_ledger, repack
from services.members.models import Model
from services.members.points import tell_points


class Retelling(Model, table=True):
    """What is being told again of everybody, in the order of their ids, and after whom it goes on."""

    __tablename__ = "retelling"

    topic: str = Field(primary_key=True)
    after: UUID
    due_at: datetime = Field(sa_column=instant())


AT_ONCE: Final = 50
"""Each is told to all listeners, behind which the news of the day must not wait."""

MANY: Final = 500

_DUE: Final = text("""
SELECT member_id FROM membership_version WHERE tell_at <= :now ORDER BY tell_at, member_id LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_TOLD: Final = text("UPDATE membership_version SET tell_at = NULL WHERE member_id = :member_id")


async def tell_again(rt: Runtime) -> int:
    """Tell what is due, a few in a second; how many."""
    for told in range(AT_ONCE):
        async with rt.db.session() as session, session.begin():
            member_id = (await session.execute(_DUE, {"now": clock.now()})).scalar_one_or_none()
            if member_id is None:
                return told
            await session.execute(_TOLD, {"member_id": member_id})
            await repack(session, await open_ledger(session, member_id))
    return AT_ONCE


_POINTS: Final = text("SELECT after FROM retelling WHERE topic = 'points' AND due_at <= :now FOR UPDATE SKIP LOCKED")
_NEXT: Final = text("""
SELECT DISTINCT member_id FROM point_entry WHERE member_id > :after ORDER BY member_id LIMIT :many
""")
_ON: Final = text("UPDATE retelling SET after = :after WHERE topic = 'points'")
_OVER: Final = text("DELETE FROM retelling WHERE topic = 'points'")


async def tell_points_again(rt: Runtime) -> int:
    """Tell how many points the next members have; how many."""
    async with rt.db.session() as session, session.begin():
        after = (await session.execute(_POINTS, {"now": clock.now()})).scalar_one_or_none()
        if after is None:
            return 0
        members = (await session.execute(_NEXT, {"after": after, "many": MANY})).scalars().all()
        # A change that is told at the same moment has a version above the one that is seen here.
        await tell_points(session, *members)
        await session.execute(_ON if members else _OVER, {"after": members[-1]} if members else {})
        return len(members)


due = Due("tell memberships again", tell_again, waits="SELECT FROM membership_version WHERE tell_at <= $1")
points_due = Due("tell points again", tell_points_again, waits="SELECT FROM retelling WHERE due_at <= $1")
