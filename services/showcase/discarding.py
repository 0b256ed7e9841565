"""Discarding: pictures of members who left, and of uploads cut short, go: rows first, then the files by a job."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from contracts.members import MemberErased
from kit import clock
from kit.app import Due, Runtime
from kit.db import instant
from services.showcase.models import Model
from services.showcase.storage import SIZES, file_name

UPLOADS_TAKE: Final = timedelta(hours=1)
STALLED: Final = timedelta(minutes=1)


class DiscardedPicture(Model, table=True):
    """A picture nobody shows any more, whose files are still there; `deleting_at` is since when somebody deletes them."""

    __tablename__ = "discarded_picture"

    content: str = Field(primary_key=True)
    suffix: str
    discarded_at: datetime = Field(sa_column=instant(index=True))
    deleting_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


# What was settled stays published; where it still runs, a work without its pictures and its author cannot stand.
_FORGET: Final = (
    text("""
    UPDATE entry SET status = 'withdrawn' FROM contest
    WHERE entry.member_id = :id AND contest.id = entry.contest_id AND contest.settled_at IS NULL
    """),
    text("""
    DELETE FROM entry_image USING upload
    WHERE upload.id = entry_image.upload_id AND upload.member_id = :id
    """),
    text("""
    WITH gone AS (DELETE FROM upload WHERE member_id = :id RETURNING content, suffix)
    INSERT INTO discarded_picture (content, suffix, discarded_at) SELECT DISTINCT content, suffix, CAST(:now AS timestamptz)
    FROM gone ON CONFLICT DO NOTHING
    """),
)
# An upload of which an hour later it is not said that its files are there was cut short; nobody was told its id.
_GIVE_UP: Final = text("""
WITH gone AS (
    DELETE FROM upload WHERE NOT stored AND created_at < :before RETURNING id, content, suffix
), noted AS (
    INSERT INTO discarded_picture (content, suffix, discarded_at)
    SELECT DISTINCT content, suffix, CAST(:now AS timestamptz) FROM gone ON CONFLICT DO NOTHING
)
SELECT id FROM gone
""")
_IN_HAND: Final = text(
    "SELECT EXISTS (SELECT FROM discarded_picture WHERE content = :content AND deleting_at IS NOT NULL)"
)
_SHOWN: Final = text("SELECT EXISTS (SELECT FROM upload WHERE content = :content)")
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:content, 0))")


async def lock_content(session: AsyncSession, content: str) -> None:
    """Hold a content for this transaction: whoever brings the same picture and the job that deletes it take turns."""
    await session.execute(_LOCK, {"content": content})


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget the pictures, also those that proved something elsewhere, and take the works out of running contests."""
    for statement in _FORGET:
        await session.execute(statement, {"id": event.member_id, "now": clock.now()})


async def is_being_deleted(session: AsyncSession, content: str) -> bool:
    """Whether somebody deletes the files of this content now; for whoever holds its lock."""
    return bool((await session.execute(_IN_HAND, {"content": content})).scalar_one())


async def clean_up(rt: Runtime) -> int:
    """Discard uploads that never came to their end, and delete the files of what is discarded; how many pictures."""
    await asyncio.to_thread(rt.state["darkroom"].storage.tidy)
    async with rt.db.session() as session, session.begin():
        now = clock.now()
        given_up = {"now": now, "before": now - UPLOADS_TAKE}
        done = len((await session.execute(_GIVE_UP, given_up)).all())
    while await _delete_next(rt):
        done += 1
    return done


async def _delete_next(rt: Runtime) -> bool:
    """Delete the files of the picture discarded first, unless another upload shows it; whether there was one."""
    async with rt.db.session() as session, session.begin():
        now = clock.now()
        waiting = col(DiscardedPicture.deleting_at).is_(None) | (col(DiscardedPicture.deleting_at) < now - STALLED)
        oldest = select(DiscardedPicture).where(waiting).order_by(col(DiscardedPicture.discarded_at)).limit(1)
        picture = (await session.execute(oldest.with_for_update(skip_locked=True))).scalar_one_or_none()
        if picture is None:
            return False
        await lock_content(session, picture.content)
        if (await session.execute(_SHOWN, {"content": picture.content})).scalar_one():
            await session.delete(picture)
            return True
        picture.deleting_at = now
        names = [file_name(picture.content, size, picture.suffix) for size in SIZES]
        mine = (col(DiscardedPicture.content) == picture.content, col(DiscardedPicture.deleting_at) == now)
    # Without a connection: a bucket may take its time. Whoever brings the same picture meanwhile waits.
    await asyncio.to_thread(rt.state["darkroom"].storage.delete, names)
    async with rt.db.session() as session, session.begin():
        await session.execute(delete(DiscardedPicture).where(*mine))
    return True


due = Due("delete discarded pictures", clean_up, every_s=10.0)
