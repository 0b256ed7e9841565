"""Persons: what members are called, for what they ask, answer and attend."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.members import MemberChanged, MemberRegistered

_NAME = text("""
INSERT INTO person (member_id, nickname) VALUES (:id, :name)
ON CONFLICT (member_id) DO UPDATE SET nickname = excluded.nickname
""")
_FIRST_NAME = text("INSERT INTO person (member_id, nickname) VALUES (:id, :name) ON CONFLICT DO NOTHING")


async def on_member_registered(session: AsyncSession, event: MemberRegistered) -> None:
    """Keep the first name, unless a later one was heard before."""
    await session.execute(_FIRST_NAME, {"id": event.member_id, "name": event.nickname})


async def on_member_changed(session: AsyncSession, event: MemberChanged) -> None:
    """Keep the name that members told last."""
    await session.execute(_NAME, {"id": event.member_id, "name": event.nickname})
