"""Former members: that a phone was a member's stays known for half a year after they left, so that leaving pays nobody."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from kit import clock
from kit.app import Due, Runtime
from kit.db import instant
from services.referrals.models import Model

KNOWN_FOR: Final = timedelta(days=180)


class FormerPhone(Model, table=True):
    """The keyed hash of a phone whose member left; it leads to nobody, and is deleted when `until` has come."""

    __tablename__ = "former_phone"

    phone_hash: str = Field(primary_key=True)
    until: datetime = Field(sa_column=instant(index=True))


IS_FORMER: Final = text("SELECT EXISTS (SELECT FROM former_phone WHERE phone_hash = :phone_hash AND until > :at)")


async def remember(session: AsyncSession, phone_hash: str | None) -> None:
    """Know this phone for a while, if there is one."""
    if phone_hash is None:
        return
    until = clock.now() + KNOWN_FOR
    row = insert(FormerPhone).values(phone_hash=phone_hash, until=until)
    await session.execute(row.on_conflict_do_update(index_elements=["phone_hash"], set_={"until": until}))


async def is_former(session: AsyncSession, phone_hash: str) -> bool:
    """Whether a member with this phone left not long ago."""
    asked = {"phone_hash": phone_hash, "at": clock.now()}
    return bool((await session.execute(IS_FORMER, asked)).scalar_one())


async def forget_due(rt: Runtime) -> int:
    """Delete what was known for long enough."""
    async with rt.db.session() as session, session.begin():
        gone = delete(FormerPhone).where(col(FormerPhone.until) <= clock.now())
        return len((await session.execute(gone.returning(col(FormerPhone.phone_hash)))).all())


due = Due("forget former phones", forget_due, every_s=600.0, by_portions=True)
