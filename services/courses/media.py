"""Media: recordings and other files lie at a provider, and are read through signed links that run out."""

import asyncio
import hmac
import io
import math
import struct
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import Path as PathParameter
from fastapi import Query
from sqlalchemy import text
from starlette.responses import FileResponse, Response

from kit import clock
from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Forbidden, NotFound, Unavailable, problems
from kit.files import RECORDINGS, StoredFile, whole_or_part
from kit.ids import new_id
from kit.shapes import Instant, Out

router = new_router(prefix="/v1/lessons", tags=["lessons"])

LINK_LASTS = timedelta(hours=2)
DEMO = "demo.wav"
# Kept in the database, so that every process signs links with the same key and no deployment has to bring one.
_MAKE_KEY = text(
    "INSERT INTO media_key SELECT 1, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))"
    " WHERE NOT EXISTS (SELECT FROM media_key) ON CONFLICT DO NOTHING"
)
_KEY = text("SELECT key FROM media_key")
_STREAMED = text(
    "SELECT media FROM lesson JOIN course ON course.id = course_id "
    "WHERE lesson.id = :id AND lesson.deleted_at IS NULL AND course.deleted_at IS NULL"
)


class PlaybackLinkInvalid(Forbidden):
    """This playback link is not valid or has run out; load the lesson again for a fresh one."""

    zh = "播放链接无效或已过期，请重新打开课程获取新的链接。"
    action = "reload_lesson"


class MediaMissing(NotFound):
    """This lesson's recording is not here; tell the community's support which lesson it was."""

    zh = "这节课的视频文件不存在，请联系社区客服并告知课程名称。"


class Playback(Out):
    """Where a player reads the lesson, with Range requests, until `expires_at`."""

    url: str
    expires_at: Instant


class MediaAway(Unavailable):
    """The store of recordings and files does not answer right now; nothing was changed. Try again in a moment."""

    zh = "媒体存储暂时不可用，没有任何改动，请稍后再试。"


class Media(Protocol):
    """A provider of files by plain names. Saving and removing may be asked again; both raise MediaAway."""

    def link(self, kind: str, owner_id: UUID, name: str, expires_at: datetime) -> str:
        """An address that reads the file, with Range, until then; of the folder's, only what the owner has now."""

    async def save(self, name: str, content: bytes, media_type: str) -> None:
        """Keep a file, whole or not at all."""

    async def remove(self, name: str) -> None:
        """Remove a file; one that is gone is gone."""


class FolderMedia:
    """Files of a folder, which the service streams itself."""

    def __init__(self, runtime: Runtime) -> None:
        self.folder: Path = runtime.settings.media
        self.address: str = runtime.settings.public_url.rstrip("/")
        self.key: bytes = runtime.state["media_key"]

    def link(self, kind: str, owner_id: UUID, name: str, expires_at: datetime) -> str:
        """An address of our own; the name is looked up when it is read."""
        _ = name
        seconds = math.floor(expires_at.timestamp())
        signature = self.sign(kind, owner_id, seconds)
        return f"{self.address}/v1/{kind}/{owner_id}/media?expires={seconds}&signature={signature}"

    def sign(self, kind: str, owner_id: UUID, expires: int) -> str:
        """What only this service can write under a link."""
        return hmac.digest(self.key, f"{kind} {owner_id} {expires}".encode(), "sha256").hex()

    async def save(self, name: str, content: bytes, media_type: str) -> None:
        """Write a file; renamed into place, so that nobody ever reads half of it."""
        _ = media_type
        await asyncio.to_thread(_write, self.folder / name, content)

    async def remove(self, name: str) -> None:
        """Delete the file."""
        await asyncio.to_thread((self.folder / name).unlink, missing_ok=True)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{new_id()}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    except OSError as failure:
        part.unlink(missing_ok=True)
        raise MediaAway(retry_after=5) from failure


def playback_of(
    runtime: Runtime, owner_id: UUID, media: str | None, until: datetime | None, kind: str = "lessons"
) -> Playback | None:
    """A fresh link that ends no later than the caller's access; None for a lesson without a recording."""
    name = media or (DEMO if runtime.settings.sandbox and not runtime.settings.bucket else None)
    if name is None:
        return None
    expires_at = clock.now() + LINK_LASTS
    if until is not None:
        expires_at = min(expires_at, until)
    expires_at = expires_at.replace(microsecond=0)
    provider: Media = runtime.state["media"]
    return Playback(url=provider.link(kind, owner_id, name, expires_at), expires_at=expires_at)


def media_file(runtime: Runtime, media: str | None) -> Path | None:
    """The file of a lesson's recording; in the sandbox a lesson without one plays a short tone."""
    name = media or (DEMO if runtime.settings.sandbox else None)
    return runtime.settings.media / name if name else None


def is_good_link(runtime: Runtime, owner_id: UUID, expires: int, signature: str, kind: str = "lessons") -> bool:
    """Whether a link was made here, for this, and has not run out."""
    folder: FolderMedia = runtime.state["folder"]
    expected = folder.sign(kind, owner_id, expires).encode()
    good = hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
    return good and expires > clock.now().timestamp()


@router.get(
    "/{lesson_id}/media",
    response_class=FileResponse,
    responses=whole_or_part(*RECORDINGS) | problems(PlaybackLinkInvalid, MediaMissing),
)
async def stream_lesson(
    lesson_id: Annotated[UUID, PathParameter()],
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=200)],
    session: SessionDep,
    runtime: RuntimeDep,
) -> Response:
    """The recording itself, whole or in parts; the link comes from the lesson and needs no login."""
    if not is_good_link(runtime, lesson_id, expires, signature):
        raise PlaybackLinkInvalid
    found = await session.execute(_STREAMED, {"id": lesson_id})
    row = found.one_or_none()
    file = media_file(runtime, row.media) if row else None
    if file is None or not await asyncio.to_thread(file.is_file):
        raise MediaMissing
    return StoredFile(file, headers={"Cache-Control": "private, no-store"}, content_disposition_type="inline")


@asynccontextmanager
async def media_ready(runtime: Runtime) -> AsyncIterator[None]:
    """Load the key that signs links, which all processes share, and choose the provider; in the sandbox, make the tone."""
    async with runtime.db.session() as session, session.begin():
        await session.execute(_MAKE_KEY)
        runtime.state["media_key"] = (await session.execute(_KEY)).scalar_one()
    runtime.state["media"] = runtime.state["folder"] = FolderMedia(runtime)
    if runtime.settings.bucket:
        # A second of imports, for those who use it.
        from services.courses.media_bucket import BucketMedia  # noqa: PLC0415

        runtime.state["media"] = BucketMedia(runtime.settings)
    elif runtime.settings.sandbox:
        await asyncio.to_thread(_write_tone, runtime.settings.media / DEMO)
    yield


def _write_tone(file: Path) -> None:
    if file.exists():
        return
    rate, seconds, pitch = 8000, 3, 440
    samples = (int(6000 * math.sin(2 * math.pi * pitch * i / rate)) for i in range(rate * seconds))
    sound = io.BytesIO()
    with wave.open(sound, "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(rate)
        tone.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    _write(file, sound.getvalue())
