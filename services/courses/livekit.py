"""LiveKit: rooms at a LiveKit server, and what it tells of who came and went."""

from types import TracebackType
from typing import Any, Self
from uuid import UUID

import aiohttp
from livekit import api as livekit

from services.courses.rooms import TOKEN_LASTS, Guest, Heard, RoomUnavailable

TIMEOUT_S = 5.0
EMPTY_S = 3600
"""How long a room without guests stays there."""


class LiveKitRooms:
    """The rooms of one LiveKit project."""

    def __init__(self, url: str, api_key: str, api_secret: str) -> None:
        self.url = url
        self.api_key = api_key
        self.api_secret = api_secret
        self._server: livekit.LiveKitAPI | None = None

    async def __aenter__(self) -> Self:
        """Connections are made when they are needed."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._server = livekit.LiveKitAPI(self.url, self.api_key, self.api_secret, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of them."""
        if self._server is not None:
            await self._server.aclose()

    def token(self, guest: Guest) -> str:
        """A token for one room; only the instructor speaks, everybody may write."""
        grants = livekit.VideoGrants(
            room_join=True, room=guest.room, can_publish=guest.speaks, can_subscribe=True, can_publish_data=True
        )
        token = livekit.AccessToken(self.api_key, self.api_secret).with_identity(guest.identity)
        return token.with_name(guest.name).with_ttl(TOKEN_LASTS).with_grants(grants).to_jwt()

    async def create(self, room: str) -> None:
        """Make the room; one that is there stays as it is."""
        await self._ask("create_room", livekit.CreateRoomRequest(name=room, empty_timeout=EMPTY_S))

    async def end(self, room: str) -> None:
        """Delete the room, which sends everyone out; one that is gone is well."""
        await self._ask("delete_room", livekit.DeleteRoomRequest(room=room))

    async def _ask(self, name: str, request: Any) -> None:
        if self._server is None:
            raise RoomUnavailable(retry_after=5)
        try:
            await getattr(self._server.room, name)(request)
        except livekit.TwirpError as failure:
            if failure.code != livekit.TwirpErrorCode.NOT_FOUND:
                raise RoomUnavailable(retry_after=5) from failure
        except (TimeoutError, aiohttp.ClientError, OSError) as failure:
            raise RoomUnavailable(retry_after=5) from failure

    def heard(self, body: bytes, token: str) -> Heard | None:
        """What a signed webhook says; ValueError for one that LiveKit did not sign, None for what is not about guests."""
        verifier = livekit.TokenVerifier(self.api_key, self.api_secret)
        try:
            told = livekit.WebhookReceiver(verifier).receive(body.decode(), token)
        except Exception as failure:  # the receiver raises whatever comes, the bare Exception among it
            raise ValueError("not signed by LiveKit") from failure
        if told.event not in {"participant_joined", "participant_left"}:
            return None
        try:
            return Heard(told.id, told.event, UUID(told.room.name), UUID(told.participant.identity), told.created_at)
        except ValueError:
            return None
