"""Lesson works: the lesson that a work was made from hears when the work comes on show, and when it leaves."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberErased
from contracts.showcase import EntryChanged
from kit.events import emit
from services.showcase.models import Entry, EntryImage, Upload
from services.showcase.uploads import image_out


async def tell_lesson(session: AsyncSession, entry: Entry, address: str) -> None:
    """Tell how a work stands now, if it was made from a lesson; for whoever has changed whether it is on show."""
    on_show = entry.status == "approved"
    await _tell(session, entry, await _thumbnail(session, entry, address) if on_show else None, on_show=on_show)


async def _tell(session: AsyncSession, entry: Entry, thumbnail_url: str | None, *, on_show: bool) -> None:
    if entry.lesson_id is None:
        return
    changed = EntryChanged(
        entry_id=entry.id,
        contest_id=entry.contest_id,
        member_id=entry.member_id,
        lesson_id=entry.lesson_id,
        title=entry.title if on_show else "",
        thumbnail_url=thumbnail_url,
        on_show=on_show,
    )
    await emit(session, changed)


async def _thumbnail(session: AsyncSession, entry: Entry, address: str) -> str | None:
    first = (
        select(Upload)
        .join(EntryImage, col(EntryImage.upload_id) == col(Upload.id))
        .where(col(EntryImage.entry_id) == entry.id)
        .order_by(col(EntryImage.position))
        .limit(1)
    )
    upload = (await session.execute(first)).scalar_one_or_none()
    return None if upload is None else image_out(upload, address)["thumbnails"]["medium"]


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Take the works of a member who leaves off the lessons' pages, whatever of theirs is heard there late."""
    shown = select(Entry).where(
        col(Entry.member_id) == event.member_id, col(Entry.lesson_id).is_not(None), col(Entry.approved_at).is_not(None)
    )
    for entry in (await session.execute(shown)).scalars().all():
        await _tell(session, entry, None, on_show=False)
