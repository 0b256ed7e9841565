"""Rooms: where a live lesson happens, at a provider that knows nothing of lessons but their tokens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, Final, NamedTuple, Protocol
from uuid import UUID

import structlog
from fastapi import Query
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.app import Due, Runtime, RuntimeDep
from kit.app import router as new_router
from kit.errors import Forbidden, Unavailable, problems
from kit.shapes import Out

log = structlog.get_logger(__name__)
sandbox_router = new_router(prefix="/v1/sandbox/rooms", tags=["sandbox"])

TOKEN_LASTS = timedelta(minutes=10)
"""For joining; whoever is in the room stays in it."""
UNATTENDED = timedelta(minutes=30)
"""How long after its planned end a room that nobody closed is ended."""
RETRY_AFTER: Final = (timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))


class RoomUnavailable(Unavailable):
    """The room cannot be reached at this moment; your place is safe. Try again after Retry-After."""

    zh = "直播间暂时无法连接，你的资格已保留，请按 Retry-After 稍后再试。"


class Guest(NamedTuple):
    """Who comes into which room; the instructor also speaks."""

    room: str
    identity: str
    name: str
    speaks: bool


class Heard(NamedTuple):
    """Somebody came or went, at an epoch second of the provider's clock."""

    id: str
    kind: str
    lesson_id: UUID
    member_id: UUID
    at: int


class Rooms(Protocol):
    """A provider of rooms. Creating and ending may be asked again; both raise RoomUnavailable."""

    url: str

    def token(self, guest: Guest) -> str:
        """What lets this guest, and nobody else, in for `TOKEN_LASTS`."""

    async def create(self, room: str) -> None:
        """Have the room there before its first guest."""

    async def end(self, room: str) -> None:
        """Close the room and send everyone out."""

    def heard(self, body: bytes, token: str) -> Heard | None:
        """What its webhook says of a guest; None for what is of no interest, ValueError for what it did not sign."""


class SandboxRooms:
    """Rooms without pictures or sound, whose tokens are as good as real ones."""

    def __init__(self, runtime: Runtime) -> None:
        self.url = f"{runtime.settings.public_url.rstrip('/')}/v1/sandbox/rooms"
        self.key = OctKey.import_key(runtime.state["media_key"])

    def token(self, guest: Guest) -> str:
        claims = {"sub": guest.identity, "name": guest.name, "room": guest.room, "speaks": guest.speaks}
        expires = int((clock.now() + TOKEN_LASTS).timestamp())
        return jwt.encode({"alg": "HS256"}, claims | {"exp": expires}, self.key)

    def open(self, token: str) -> dict[str, Any]:
        """The claims of a token that is good now; JoseError or ValueError for any other."""
        claims: dict[str, Any] = jwt.decode(token, self.key, algorithms=["HS256"]).claims
        if claims["exp"] <= clock.now().timestamp():
            raise ValueError(token)
        return claims

    async def create(self, room: str) -> None:
        """There is nothing to prepare."""

    async def end(self, room: str) -> None:
        """There is nothing to close."""

    def heard(self, body: bytes, token: str) -> Heard | None:
        """Nobody tells of the sandbox's rooms, so whatever comes is not signed."""
        raise ValueError(token, body)


def rooms_of(runtime: Runtime) -> Rooms:
    """The provider in use; RoomUnavailable in a production that has none."""
    rooms: Rooms | None = runtime.state["rooms"]
    if rooms is None:
        raise RoomUnavailable(retry_after=60)
    return rooms


@asynccontextmanager
async def rooms_ready(runtime: Runtime) -> AsyncIterator[None]:
    """Choose the provider: LiveKit where it is configured, the sandbox's own otherwise."""
    settings = runtime.settings
    runtime.state["opening"] = {}
    if not settings.livekit_url:
        runtime.state["rooms"] = SandboxRooms(runtime) if settings.sandbox else None
        yield
        return
    # Half a second of imports, for those who use it.
    from services.courses.livekit import LiveKitRooms  # noqa: PLC0415

    async with LiveKitRooms(settings.livekit_url, settings.livekit_api_key, settings.livekit_api_secret) as rooms:
        runtime.state["rooms"] = rooms
        yield


_IS_OPEN: Final = text(
    "SELECT EXISTS (SELECT FROM live_room WHERE lesson_id = :id AND opened_at IS NOT NULL AND NOT close_wanted)"
)
# The lesson's row is held: whoever ends it meanwhile finds the room open, or it is found over here, and closed again.
_OPENED: Final = text("""
INSERT INTO live_room AS held (lesson_id, told, opened_at, close_wanted, attempts, next_attempt_at)
SELECT id, 0, :now, over, 0, CASE WHEN over THEN CAST(:now AS timestamptz) END FROM (
    SELECT id, status NOT IN ('scheduled', 'live', 'paused') AS over FROM live_lesson WHERE id = :id FOR SHARE
) AS lesson
ON CONFLICT (lesson_id) DO UPDATE SET opened_at = excluded.opened_at, close_wanted = excluded.close_wanted,
    closed_at = NULL, attempts = 0, next_attempt_at = excluded.next_attempt_at
WHERE held.opened_at IS NULL OR held.close_wanted
""")
_CLOSE: Final = text("""
UPDATE live_room SET close_wanted = true, closed_at = NULL, attempts = 0, next_attempt_at = :now
WHERE lesson_id = :id AND opened_at IS NOT NULL AND NOT close_wanted
""")
_CLAIM: Final = text("""
UPDATE live_room SET attempts = attempts + 1,
    next_attempt_at = CAST(:now AS timestamptz) + (CAST(:waits AS interval[]))[1 + least(attempts, 3)]
WHERE lesson_id = (SELECT lesson_id FROM live_room WHERE close_wanted AND closed_at IS NULL AND next_attempt_at <= :now
    ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING lesson_id
""")
_CLOSED: Final = text("UPDATE live_room SET closed_at = :now WHERE lesson_id = :id AND close_wanted")


async def open_room(runtime: Runtime, session: AsyncSession, lesson_id: UUID) -> None:
    """Have the lesson's room at the provider; what the caller's transaction did is committed first.

    A crowd that comes when the doors open asks the provider once. RoomUnavailable when it cannot be reached.
    """
    is_open = await session.scalar(_IS_OPEN, {"id": lesson_id})
    # The provider may be slow, and nobody's connection waits for it.
    await session.commit()
    if is_open:
        return
    opening: dict[UUID, asyncio.Task[None]] = runtime.state["opening"]
    if lesson_id not in opening:
        opening[lesson_id] = asyncio.create_task(_open(runtime, lesson_id), name=f"open room {lesson_id}")
        opening[lesson_id].add_done_callback(
            lambda task: (opening.pop(lesson_id), task.cancelled() or task.exception())
        )
    # Who gives up waiting does not take it away from the others.
    await asyncio.shield(opening[lesson_id])


async def _open(runtime: Runtime, lesson_id: UUID) -> None:
    async with runtime.db.session() as session:
        if await session.scalar(_IS_OPEN, {"id": lesson_id}):
            # Made while this one was on its way here.
            return
    await rooms_of(runtime).create(str(lesson_id))
    async with runtime.db.session() as session, session.begin():
        await session.execute(_OPENED, {"id": lesson_id, "now": clock.now()})


async def want_closed(session: AsyncSession, lesson_id: UUID) -> None:
    """Have the room closed, if anybody ever opened it; the provider is told after this transaction, until it has heard."""
    await session.execute(_CLOSE, {"id": lesson_id, "now": clock.now()})


async def _close_rooms(runtime: Runtime) -> int:
    done = 0
    while True:
        async with runtime.db.session() as session, session.begin():
            lesson_id = (
                await session.execute(_CLAIM, {"now": clock.now(), "waits": list(RETRY_AFTER)})
            ).scalar_one_or_none()
        if lesson_id is None:
            return done
        done += 1
        try:
            await rooms_of(runtime).end(str(lesson_id))
        except RoomUnavailable:
            log.warning("a room is not closed yet", lesson_id=str(lesson_id))
            continue
        async with runtime.db.session() as session, session.begin():
            await session.execute(_CLOSED, {"id": lesson_id, "now": clock.now()})


_WANTED: Final = "SELECT FROM live_room WHERE close_wanted AND closed_at IS NULL AND next_attempt_at <= $1"
close_rooms = Due("close rooms", _close_rooms, waits=_WANTED)


class RoomTokenInvalid(Forbidden):
    """This room token is not valid here or has run out; enter the lesson again for a fresh one."""

    zh = "直播间令牌无效或已过期，请重新进入直播课。"


class SandboxRoomOut(Out):
    """Who a room token lets in, as a real room would know it."""

    room: str
    identity: str
    name: str
    speaks: bool


@sandbox_router.get("/{room}", responses=problems(RoomTokenInvalid))
async def look_into_room(
    room: UUID, token: Annotated[str, Query(max_length=4096)], runtime: RuntimeDep
) -> SandboxRoomOut:
    """Come to the sandbox's room with a token; in the sandbox only."""
    rooms = SandboxRooms(runtime)
    try:
        claims = rooms.open(token)
    except (JoseError, ValueError, KeyError, TypeError) as failure:
        raise RoomTokenInvalid from failure
    if claims["room"] != str(room):
        raise RoomTokenInvalid
    return SandboxRoomOut(identity=claims["sub"], **{name: claims[name] for name in ("room", "name", "speaks")})
