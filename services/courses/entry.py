"""Entry: who may come in gets a token for the room, from a quarter of an hour before the lesson."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Header, Request, Response
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import BadRequest, Conflict, Forbidden, NotFound, problems
from kit.shapes import Instant, Out
from services.courses.live import LiveLessonNotFound
from services.courses.models import Enrolment, LiveLesson
from services.courses.room_models import Person, RoomEvidence
from services.courses.rooms import TOKEN_LASTS, UNATTENDED, Guest, RoomUnavailable, open_room, rooms_of
from services.courses.ways import AccessRequired, ShownLiveLesson, require_entry

router = new_router(prefix="/v1/live-lessons/{lesson_id}/entry", tags=["live lessons"], idempotent=False)
webhook_router = new_router(prefix="/v1/webhooks/livekit", tags=["webhooks"], idempotent=False)

DOORS = timedelta(minutes=15)


class DoorsClosed(Conflict):
    """The doors of this lesson are closed: they open 15 minutes before it starts and close when it ends."""

    zh = "直播间大门未开：开播前 15 分钟开放，课程结束后关闭。"


class SeatRequired(Forbidden):
    """The seats of this lesson are counted: take one, or wait until one is free, before you come in."""

    zh = "这节直播课名额有限，请先报名并等到有座位再进入。"
    action = "enrol"


class RoomEntryOut(Out):
    """Where the room is, and what lets the caller in until `expires_at`."""

    room_url: str
    room_token: str
    expires_at: Instant


def _require_open_doors(lesson: LiveLesson) -> None:
    waiting = lesson.status == "scheduled" and lesson.starts_at - DOORS <= clock.now() < lesson.ends_at + UNATTENDED
    if not (waiting or lesson.status in {"live", "paused"}):
        raise DoorsClosed


@router.post("", responses=problems(LiveLessonNotFound, AccessRequired, SeatRequired, DoorsClosed, RoomUnavailable))
async def enter_live_lesson(
    caller: MemberDep, lesson: ShownLiveLesson, session: SessionDep, runtime: RuntimeDep, response: Response
) -> RoomEntryOut:
    """Come into the room; a refusal lists what would open it."""
    response.headers["Cache-Control"] = "private, no-store"
    access = await require_entry(session, lesson, caller.id, runtime.settings)
    if lesson.capacity is not None and access.by != "grant":
        seat = await session.get(Enrolment, (lesson.id, caller.id))
        if seat is None or seat.status != "enrolled":
            raise SeatRequired
    _require_open_doors(lesson)
    person = await session.get(Person, caller.id)
    rooms = rooms_of(runtime)
    await open_room(runtime, session, lesson.id)
    guest = Guest(
        room=str(lesson.id),
        identity=str(caller.id),
        name=person.nickname if person else "",
        speaks=lesson.instructor_id == caller.id,
    )
    url = rooms.url if rooms.url.startswith("ws") else f"{rooms.url}/{lesson.id}"
    return RoomEntryOut(room_url=url, room_token=rooms.token(guest), expires_at=clock.now() + TOKEN_LASTS)


class RoomsNotConnected(NotFound):
    """No provider of rooms is connected here."""

    zh = "这里没有接入直播间服务商。"


class WebhookSignatureInvalid(BadRequest):
    """This notice is not signed by the provider of rooms."""

    zh = "通知签名无效。"


_LESSON = text("SELECT 1 FROM live_lesson WHERE id = :id")


@webhook_router.post("", status_code=204, responses=problems(RoomsNotConnected, WebhookSignatureInvalid))
async def hear_livekit(
    request: Request,
    session: SessionDep,
    runtime: RuntimeDep,
    authorization: Annotated[str, Header(max_length=4096)] = "",
) -> None:
    """Keep what LiveKit says of comings and goings, each once, as evidence beside the heartbeats."""
    if not runtime.settings.livekit_url:
        raise RoomsNotConnected
    try:
        heard = rooms_of(runtime).heard(await request.body(), authorization)
    except ValueError as failure:
        raise WebhookSignatureInvalid from failure
    if heard is None or (await session.execute(_LESSON, {"id": heard.lesson_id})).first() is None:
        return
    fields = heard._asdict() | {"at": datetime.fromtimestamp(heard.at, UTC)}
    await session.execute(insert(RoomEvidence).values(**fields).on_conflict_do_nothing(index_elements=["id"]))
