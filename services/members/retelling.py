"""Pictures told again: after an upgrade in which a listener began to keep more of them, of everybody whose time runs."""

from typing import Final

from sqlalchemy import text

from kit import clock
from kit.app import Runtime
from kit.due import Due
from services.members.ledger import open_ledger, repack

AT_ONCE: Final = 50
"""Each is told to all listeners, behind which the news of the day must not wait."""

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


due = Due("tell memberships again", tell_again, waits="SELECT FROM membership_version WHERE tell_at <= $1")
