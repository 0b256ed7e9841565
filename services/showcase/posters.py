"""Posters of works: a picture with the work, and a QR code of the caller's own link to it."""

import asyncio
import io
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response
from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import RuntimeDep, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import TooManyRequests, problems
from kit.limits import limit
from kit.poster import ACCENT, Poster
from services.showcase.entries import PRIVATE, EntryNotFound
from services.showcase.models import Contest, Entry, EntryImage, MemberCard, Upload
from services.showcase.sharing import shared_entry, token_of
from services.showcase.storage import PicturesAway, Storage, file_name

api = router(prefix="/v1/entries/{entry_id}/poster.png", tags=["entries"])

SIZE: Final = (750, 1250)
MARGIN: Final = 40
PICTURE: Final = SIZE[0] - 2 * MARGIN
QR_BOX: Final = 250
PER_MINUTE: Final = 20


@api.get(
    "",
    response_class=Response,
    responses={
        **problems(EntryNotFound, PicturesAway, TooManyRequests),
        200: {"content": {"image/png": {}}, "description": "the poster"},
    },
)
async def read_entry_poster(
    entry_id: UUID, request: Request, caller: MemberDep, session: SessionDep, rt: RuntimeDep
) -> Response:
    """A work on show as a poster, whose QR code opens the caller's own link to it."""
    await limit(request, "entry poster", str(caller.id), times=PER_MINUTE, seconds=60)
    await shared_entry(session, entry_id)
    told = await _told(session, entry_id)
    url = rt.settings.entry_link(entry_id, invite_code=await token_of(session, entry_id, caller.id))
    # The picture may come from a bucket: others shall have the connection meanwhile.
    await session.commit()
    content = await asyncio.to_thread(draw, rt.state["darkroom"].storage, told, url)
    return Response(content, media_type="image/png", headers=PRIVATE)


async def _told(session: AsyncSession, entry_id: UUID) -> Any:
    """What stands on the poster; the picture's columns are null for a work without one."""
    found: Any = (
        select(
            col(Entry.title),
            col(Contest.title).label("contest"),
            func.coalesce(col(MemberCard.nickname), "").label("nickname"),
            col(Upload.content),
            col(Upload.suffix),
        )
        .join(Contest, col(Contest.id) == col(Entry.contest_id))
        .outerjoin(MemberCard, col(MemberCard.member_id) == col(Entry.member_id))
        .outerjoin(EntryImage, col(EntryImage.entry_id) == col(Entry.id))
        .outerjoin(Upload, col(Upload.id) == col(EntryImage.upload_id))
        .where(col(Entry.id) == entry_id)
        .order_by(col(EntryImage.position))
        .limit(1)
    )
    return (await session.execute(found)).one()


def draw(storage: Storage, told: Any, url: str) -> bytes:
    """The poster as PNG; blocking."""
    poster, left, below = Poster(*SIZE), MARGIN, MARGIN + 24 + PICTURE
    content = storage.read(file_name(told.content, "large", told.suffix)) if told.content else None
    if content is not None:
        with Image.open(io.BytesIO(content), formats=("JPEG", "WEBP")) as picture:
            poster.picture((left, MARGIN + 24), picture, (PICTURE, PICTURE))
    poster.paragraph((left, below + 24), told.title, 46, PICTURE, lines=2)
    width = PICTURE - QR_BOX - MARGIN
    if told.nickname:
        poster.paragraph((left, below + 200), f"作者  {told.nickname}", 32, width, lines=1)
    poster.paragraph((left, below + 260), told.contest, 32, width, lines=2)
    poster.words((left, SIZE[1] - 80), "长按识别，看作品", 34, ACCENT, anchor="lm")
    poster.code((SIZE[0] - MARGIN - QR_BOX // 2, below + 320), url, QR_BOX)
    return poster.png(256)
