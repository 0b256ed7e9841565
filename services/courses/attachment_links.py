"""Attachments as members read them: recipes and tables that come with a lesson, for whoever may watch it."""

import asyncio
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import FileResponse

from kit import clock
from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import problems
from kit.files import StoredFile, whole_or_part
from kit.shapes import Instant, Out
from services.courses.catalogue_models import Attachment
from services.courses.media import LINK_LASTS, Media, MediaMissing, PlaybackLinkInvalid, is_good_link, media_file

router = new_router(prefix="/v1/attachments", tags=["lessons"])

KIND: Final = "attachments"
# By the ending of its name.
SENT_AS: Final = ("application/*", "audio/*", "image/*", "text/*", "video/*")


class AttachmentLink(Out):
    """A file that comes with a lesson, and where it is read, with Range requests, until `expires_at`."""

    id: UUID
    name: str
    media_type: str
    size: int
    url: str
    expires_at: Instant


_attachment = Attachment.__table__.c  # type: ignore[attr-defined]


async def attachments_of(
    session: AsyncSession, runtime: Runtime, lesson_id: UUID, until: datetime | None
) -> list[AttachmentLink]:
    """What comes with a lesson, with links that end no later than the caller's access."""
    columns = (_attachment.id, _attachment.name, _attachment.media_type, _attachment.size)
    statement = select(*columns).where(_attachment.lesson_id == lesson_id, _attachment.deleted_at.is_(None))
    expires_at = min(filter(None, (clock.now() + LINK_LASTS, until))).replace(microsecond=0)
    media: Media = runtime.state["media"]
    return [
        AttachmentLink(
            **row._mapping,  # noqa: SLF001 - a row as a mapping
            url=media.link(KIND, row.id, stored_name(row.id), expires_at),
            expires_at=expires_at,
        )
        for row in await session.execute(statement.order_by(_attachment.id))
    ]


def stored_name(attachment_id: UUID) -> str:
    """Under which name the provider keeps its file."""
    return f"attachment-{attachment_id}"


@router.get(
    "/{attachment_id}/media",
    response_class=FileResponse,
    responses=whole_or_part(*SENT_AS) | problems(PlaybackLinkInvalid, MediaMissing),
)
async def download_attachment(
    attachment_id: UUID,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=200)],
    session: SessionDep,
    runtime: RuntimeDep,
) -> Response:
    """The file itself, to be saved; the link comes from the lesson and needs no login."""
    if not is_good_link(runtime, attachment_id, expires, signature, KIND):
        raise PlaybackLinkInvalid
    held = await session.get(Attachment, attachment_id)
    file = media_file(runtime, stored_name(attachment_id))
    if held is None or held.deleted_at is not None or file is None or not await asyncio.to_thread(file.is_file):
        raise MediaMissing
    headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
    return StoredFile(file, headers=headers, media_type=held.media_type, filename=held.name)
