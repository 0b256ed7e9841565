"""Media: lessons stream from a folder through signed links that run out."""

import asyncio
import hmac
import io
import math
import struct
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

from fastapi import Path as PathParameter
from fastapi import Query
from sqlalchemy import select, text
from sqlmodel import col
from starlette.responses import FileResponse, Response

from kit import clock
from kit.app import Runtime, RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Forbidden, NotFound, problems
from kit.files import RangeOutside, StoredFile
from kit.shapes import Instant, Out
from services.courses.models import Lesson

router = new_router(prefix="/v1/lessons", tags=["lessons"])

LINK_LASTS = timedelta(hours=2)
DEMO = "demo.wav"
_KEY = text("SELECT key FROM media_key")


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


def playback_of(
    runtime: Runtime, lesson_id: UUID, media: str | None, until: datetime | None, kind: str = "lessons"
) -> Playback | None:
    """A fresh link that ends no later than the caller's access; None for a lesson without a recording."""
    if media_file(runtime, media) is None:
        return None
    expires_at = clock.now() + LINK_LASTS
    if until is not None:
        expires_at = min(expires_at, until)
    seconds = math.floor(expires_at.timestamp())
    signature = _sign(runtime, lesson_id, seconds, kind)
    url = (
        f"{runtime.settings.public_url.rstrip('/')}/v1/{kind}/{lesson_id}/media?expires={seconds}&signature={signature}"
    )
    return Playback(url=url, expires_at=datetime.fromtimestamp(seconds, UTC))


def media_file(runtime: Runtime, media: str | None) -> Path | None:
    """The file of a lesson's recording; in the sandbox a lesson without one plays a short tone."""
    name = media or (DEMO if runtime.settings.sandbox else None)
    return runtime.settings.media / name if name else None


def _sign(runtime: Runtime, lesson_id: UUID, expires: int, kind: str) -> str:
    key: bytes = runtime.state["media_key"]
    return hmac.digest(key, f"{kind} {lesson_id} {expires}".encode(), "sha256").hex()


def is_good_link(runtime: Runtime, lesson_id: UUID, expires: int, signature: str, kind: str = "lessons") -> bool:
    """Whether a link was made here, for this, and has not run out."""
    expected = _sign(runtime, lesson_id, expires, kind).encode()
    good = hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
    return good and expires > clock.now().timestamp()


@router.get(
    "/{lesson_id}/media",
    response_class=FileResponse,
    responses={
        206: {"description": "The part that Range asked for."},
        **problems(PlaybackLinkInvalid, MediaMissing, RangeOutside),
    },
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
    found = await session.execute(
        select(col(Lesson.media)).where(col(Lesson.id) == lesson_id, col(Lesson.deleted_at).is_(None))
    )
    row = found.one_or_none()
    file = media_file(runtime, row.media) if row else None
    if file is None or not await asyncio.to_thread(file.is_file):
        raise MediaMissing
    return StoredFile(file, headers={"Cache-Control": "private, no-store"}, content_disposition_type="inline")


@asynccontextmanager
async def media_ready(runtime: Runtime) -> AsyncIterator[None]:
    """Load the key that signs links, which all processes share; in the sandbox, make the tone."""
    async with runtime.db.session() as session:
        runtime.state["media_key"] = (await session.execute(_KEY)).scalar_one()
    if runtime.settings.sandbox:
        await asyncio.to_thread(_write_tone, runtime.settings.media / DEMO)
    yield


def _write_tone(file: Path) -> None:
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    rate, seconds, pitch = 8000, 3, 440
    samples = (int(6000 * math.sin(2 * math.pi * pitch * i / rate)) for i in range(rate * seconds))
    sound = io.BytesIO()
    with wave.open(sound, "wb") as tone:
        tone.setnchannels(1)
        tone.setsampwidth(2)
        tone.setframerate(rate)
        tone.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    # Renamed into place, so that another process never streams half of it.
    part = file.with_suffix(".part")
    part.write_bytes(sound.getvalue())
    part.replace(file)
