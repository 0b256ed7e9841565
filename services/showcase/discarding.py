"""Discarding: the pictures of a member who leaves go, their rows with the news, their files by a job of its own."""

import asyncio
from datetime import datetime
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from contracts.members import MemberErased
from kit import clock
from kit.app import Due, Runtime
from kit.db import instant
from services.showcase.models import Model
from services.showcase.storage import SIZES, file_name


class DiscardedPicture(Model, table=True):
    """A picture nobody shows any more, whose files are still there."""

    __tablename__ = "discarded_picture"

    content: str = Field(primary_key=True)
    suffix: str
    discarded_at: datetime = Field(sa_column=instant(index=True))


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
_SHOWN: Final = text("SELECT EXISTS (SELECT FROM upload WHERE content = :content)")
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:content, 0))")


async def lock_content(session: AsyncSession, content: str) -> None:
    """Hold a content for this transaction: whoever brings the same picture and the job that deletes it take turns."""
    await session.execute(_LOCK, {"content": content})


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget the pictures, also those that proved something elsewhere, and take the works out of running contests."""
    for statement in _FORGET:
        await session.execute(statement, {"id": event.member_id, "now": clock.now()})


async def delete_files(rt: Runtime) -> int:
    """Delete the files of discarded pictures that no other upload shows; how many pictures were looked at."""
    done = 0
    while True:
        async with rt.db.session() as session, session.begin():
            oldest = select(DiscardedPicture).order_by(col(DiscardedPicture.discarded_at)).limit(1)
            picture = (await session.execute(oldest.with_for_update(skip_locked=True))).scalar_one_or_none()
            if picture is None:
                return done
            await lock_content(session, picture.content)
            if not (await session.execute(_SHOWN, {"content": picture.content})).scalar_one():
                names = [file_name(picture.content, size, picture.suffix) for size in SIZES]
                await asyncio.to_thread(rt.state["darkroom"].folder.delete, names)
            await session.delete(picture)
            done += 1


due = Due("delete discarded pictures", delete_files, every_s=10.0)
