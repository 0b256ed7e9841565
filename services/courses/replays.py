"""Replays: a live lesson that is over can be watched again, through the same signed links as recorded lessons."""

import asyncio
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import FileResponse

from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, problems
from kit.files import RECORDINGS, StoredFile, whole_or_part
from services.courses.access import MembershipRequired
from services.courses.live import LiveLessonNotFound
from services.courses.media import MediaMissing, Playback, PlaybackLinkInvalid, is_good_link, media_file, playback_of
from services.courses.models import LiveLesson
from services.courses.ways import AccessRequired, ShownLiveLesson, access_of, require_entry

router = new_router(prefix="/v1/live-lessons/{lesson_id}", tags=["live lessons"])

KIND: Final = "live-lessons"


class ReplayNotReady(Conflict):
    """The replay of this lesson is not there yet; come back when the lesson is over and its recording is ready."""

    zh = "回放还没有准备好，请在直播结束并完成录制处理后再来。"


_REPLAY_UNTIL: Final = text(
    "SELECT upper(span) FROM access, unnest(live_replay) AS span "
    "WHERE member_id = :member_id AND span @> CAST(:now AS timestamptz)"
)


async def _watches_until(session: AsyncSession, member_id: UUID) -> datetime | None:
    values = {"member_id": member_id, "now": clock.now()}
    return (await session.execute(_REPLAY_UNTIL, values)).scalar_one_or_none()


@router.get(
    "/replay",
    responses=problems(LiveLessonNotFound, AccessRequired, MembershipRequired, ReplayNotReady, MediaMissing),
)
async def read_replay(
    caller: MemberDep, lesson: ShownLiveLesson, session: SessionDep, runtime: RuntimeDep, response: Response
) -> Playback:
    """A link to the recording: for whom the lesson is open, of black cards those with the benefit `live_replay`."""
    until = await _watches_until(session, caller.id)
    if until is None or all(way["kind"] != "membership" for way in lesson.access):
        until = None
        access = await require_entry(session, lesson, caller.id, runtime.settings)
        others = access
        if access.by == "membership":
            others = await access_of(session, lesson, caller.id, runtime.settings, without="membership")
        if not others.granted:
            raise MembershipRequired
    if lesson.status != "replay_ready":
        raise ReplayNotReady
    playback = playback_of(runtime, lesson.id, lesson.media, until, KIND)
    if playback is None:
        raise MediaMissing
    response.headers["Cache-Control"] = "private, no-store"
    return playback


@router.get(
    "/media",
    response_class=FileResponse,
    responses=whole_or_part(*RECORDINGS) | problems(PlaybackLinkInvalid, MediaMissing),
)
async def stream_replay(
    lesson_id: UUID,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=200)],
    session: SessionDep,
    runtime: RuntimeDep,
) -> Response:
    """The recording itself, whole or in parts; the link comes from the replay and needs no login."""
    if not is_good_link(runtime, lesson_id, expires, signature, KIND):
        raise PlaybackLinkInvalid
    lesson = await session.get(LiveLesson, lesson_id)
    gone = lesson is None or lesson.deleted_at is not None or lesson.status != "replay_ready"
    file = None if gone or lesson is None else media_file(runtime, lesson.media)
    if file is None or not await asyncio.to_thread(file.is_file):
        raise MediaMissing
    return StoredFile(file, headers={"Cache-Control": "private, no-store"}, content_disposition_type="inline")
