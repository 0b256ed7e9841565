"""Attachments as admins give them to lessons and take them away; their files lie with the recordings."""

import re
from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

from fastapi import File, Form, Response, UploadFile
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit import audit, clock
from kit.app import Due, Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, PayloadTooLarge, Unprocessable, problems
from kit.ids import new_id
from kit.shapes import Instant, Out
from kit.text import clean_text
from services.courses.admin_courses import EDITOR
from services.courses.attachment_links import stored_name
from services.courses.catalogue_models import Attachment
from services.courses.lessons import LessonNotFound
from services.courses.media import Media, MediaAway
from services.courses.models import Lesson

admin_router = new_router(prefix="/v1/admin/attachments", tags=["admin courses"])

MAX_BYTES: Final = 20 << 20
MULTIPART: Final = 1 << 20
MOST: Final = 20
NAME_LENGTH: Final = 120
# What a browser may be told of a file; all else is bytes. None of them is shown as a page.
MEDIA_TYPES: Final = {
    "pdf": "application/pdf",
    "txt": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "zip": "application/zip",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_UNPRINTED: Final = re.compile(r"[\x00-\x1f\x7f/\\]")


class AttachmentNotFound(NotFound):
    """There is no such attachment; it may have been taken away."""

    zh = "没有这个附件，它可能已经移除。"


class AttachmentUnusable(Unprocessable):
    """An attachment is a file with a name of at most 120 characters and at least one byte in it."""

    zh = "附件应是有名字（最多 120 个字符）且不为空的文件。"
    loc = ("body", "file")


class AttachmentTooLarge(PayloadTooLarge):
    """An attachment has at most 20 MiB; make it smaller, or split it."""

    zh = "附件最大 20 MiB，请压缩或拆分后再上传。"


class TooManyAttachments(Conflict):
    """A lesson has at most 20 attachments; take one away first."""

    zh = "一节课最多 20 个附件，请先移除一个。"


class AttachmentOut(Out):
    """A file that comes with a lesson."""

    id: UUID
    lesson_id: UUID
    name: str
    media_type: str
    size: int
    created_at: Instant


_COUNT = text("SELECT count(*) FROM attachment WHERE lesson_id = :id AND deleted_at IS NULL")


async def _require_room(session: AsyncSession, lesson_id: UUID) -> None:
    """The lesson is held, so that two uploads at once cannot both be the last that fits; who watches it goes on."""
    lesson = await session.get(Lesson, lesson_id, with_for_update={"key_share": True})
    if lesson is None or lesson.deleted_at is not None:
        raise LessonNotFound
    if (await session.execute(_COUNT, {"id": lesson_id})).scalar_one() >= MOST:
        raise TooManyAttachments


@admin_router.post(
    "",
    dependencies=EDITOR,
    status_code=201,
    max_body_size=MAX_BYTES + MULTIPART,
    responses=problems(LessonNotFound, AttachmentUnusable, AttachmentTooLarge, TooManyAttachments, MediaAway),
)
async def attach_file(
    lesson_id: Annotated[UUID, Form()],
    file: Annotated[UploadFile, File()],
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
) -> AttachmentOut:
    """Give a lesson a file, of at most 20 MiB, as multipart/form-data."""
    content = await file.read()
    try:
        name = clean_text(_UNPRINTED.sub("", file.filename or "")).strip()
    except ValueError as failure:
        raise AttachmentUnusable from failure
    if not content or not 0 < len(name) <= NAME_LENGTH:
        raise AttachmentUnusable
    if len(content) > MAX_BYTES:
        raise AttachmentTooLarge
    await _require_room(session, lesson_id)
    # The provider takes its time: without a connection. A file that is never told of is nobody's.
    await session.commit()
    attachment_id = new_id()
    media_type = MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
    media: Media = runtime.state["media"]
    await media.save(stored_name(attachment_id), content, media_type)
    await _require_room(session, lesson_id)
    now = clock.now()
    made = Attachment(
        id=attachment_id, lesson_id=lesson_id, name=name, media_type=media_type, size=len(content), created_at=now
    )
    session.add(made)
    await session.flush()
    await audit.record(session, "attachment.created", made.id, after=made.model_dump())
    response.headers["Location"] = f"/v1/admin/attachments/{made.id}"
    return AttachmentOut.model_validate(made)


@admin_router.delete("/{attachment_id}", dependencies=EDITOR, status_code=204, responses=problems(AttachmentNotFound))
async def detach_file(attachment_id: UUID, session: SessionDep) -> None:
    """Take a file away from its lesson; links to it end at once."""
    held = await session.get(Attachment, attachment_id, with_for_update=True)
    if held is None or held.deleted_at is not None:
        raise AttachmentNotFound
    await audit.record(session, "attachment.deleted", held.id, before=held.model_dump())
    held.deleted_at = clock.now()


_GONE = text("SELECT id FROM attachment WHERE deleted_at <= :before ORDER BY deleted_at LIMIT 100")
_FORGET = text("DELETE FROM attachment WHERE id = :id RETURNING id")


async def _discard(runtime: Runtime) -> int:
    """Remove the files of attachments that were taken away an hour ago: the file first, which may be done again."""
    media: Media = runtime.state["media"]
    async with runtime.db.session() as session:
        gone = (await session.execute(_GONE, {"before": clock.now() - timedelta(hours=1)})).scalars().all()
    done = 0
    for attachment_id in gone:
        await media.remove(stored_name(attachment_id))
        async with runtime.db.session() as session, session.begin():
            done += len((await session.execute(_FORGET, {"id": attachment_id})).all())
    return done


discard_attachments = Due("discard attachments", _discard, every_s=60.0)
