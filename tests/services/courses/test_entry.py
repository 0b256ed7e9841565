"""Entry into the room: doors, seats, tokens of the sandbox and of LiveKit, the room's end at the provider."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from livekit import api as livekit

from kit import clock
from kit.ids import new_id
from kit.text import instant
from services.courses.app import service
from tests.harness import Api, Run
from tests.services.courses.live_world import ADMIN, move, seat
from tests.services.courses.room_world import LIVE, ask, at, give_card, plan_at

FREE = [{"kind": "free"}]
KEY, SECRET = "APIkey", "a secret of thirty-two letters or more"


async def enter(api: Api, lesson_id: str, member_id: Any) -> Any:
    return await ask(api, "POST", f"{LIVE}/{lesson_id}/entry", member_id)


async def test_the_doors_open_a_quarter_of_an_hour_before_and_close_with_the_lesson(api: Api) -> None:
    lesson_id, member_id = await plan_at(api, timedelta(minutes=20), access=FREE), new_id()
    refused = await enter(api, lesson_id, member_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "doors_closed")
    api.clock.advance(timedelta(minutes=5))
    answer = await enter(api, lesson_id, member_id)
    assert answer.status_code == 200, answer.text
    assert timedelta(minutes=9) < at(answer.json()["expires_at"]) - clock.now() <= timedelta(minutes=10)
    for status in ("live", "paused"):
        assert (await move(api, lesson_id, status)).status_code == 200
        assert (await enter(api, lesson_id, member_id)).status_code == 200
    await move(api, lesson_id, "ended")
    assert (await enter(api, lesson_id, member_id)).json()["code"] == "doors_closed"
    assert (await api.client.post(f"{LIVE}/{lesson_id}/entry")).status_code == 401


async def test_a_sandbox_token_lets_its_holder_into_its_room_for_a_while(api: Api) -> None:
    teacher, member_id = new_id(), new_id()
    lesson_id = await plan_at(api, timedelta(minutes=5), access=FREE, instructor_id=str(teacher))
    for who in (teacher, member_id):
        entered = (await enter(api, lesson_id, who)).json()
        path = entered["room_url"].split("/v1/", 1)[1]
        room = await api.client.get(f"/v1/{path}", params={"token": entered["room_token"]})
        assert room.json() == {"room": lesson_id, "identity": str(who), "name": "", "speaks": who == teacher}
    token = (await enter(api, lesson_id, member_id)).json()["room_token"]
    for wrong in ("", "x", token[:-3]):
        answer = await api.client.get(f"/v1/sandbox/rooms/{lesson_id}", params={"token": wrong})
        assert (answer.status_code, answer.json()["code"]) == (403, "room_token_invalid")
    assert (await api.client.get(f"/v1/sandbox/rooms/{new_id()}", params={"token": token})).status_code == 403
    api.clock.advance(timedelta(minutes=11))
    assert (await api.client.get(f"/v1/sandbox/rooms/{lesson_id}", params={"token": token})).status_code == 403


async def test_who_may_not_come_in_is_told_what_would_open_it(api: Api) -> None:
    lesson_id, member_id = await plan_at(api, timedelta(minutes=5)), new_id()
    refused = await enter(api, lesson_id, member_id)
    body = refused.json()
    assert (refused.status_code, body["code"], body["action"]) == (403, "access_required", "buy_membership")
    assert (body["granted"], [way["kind"] for way in body["options"]]) == (False, ["membership", "invites"])
    await give_card(api, member_id)
    assert (await enter(api, lesson_id, member_id)).status_code == 200


async def test_where_seats_are_counted_entry_takes_one(api: Api) -> None:
    lesson_id, seated, waiting = await plan_at(api, timedelta(minutes=5), capacity=1, access=FREE), new_id(), new_id()
    refused = await enter(api, lesson_id, seated)
    assert (refused.status_code, refused.json()["code"]) == (403, "seat_required")
    for who in (seated, waiting):
        await seat(api, lesson_id, who)
    assert (await enter(api, lesson_id, seated)).status_code == 200
    assert (await enter(api, lesson_id, waiting)).json()["code"] == "seat_required"
    await seat(api, lesson_id, seated, "DELETE")
    assert (await enter(api, lesson_id, waiting)).status_code == 200


class Server:
    """A LiveKit server's calls, as far as they are made."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.down = False
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def answer(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = livekit.TokenVerifier(KEY, SECRET).verify(token)
        name = request.path.rsplit("/", 1)[1]
        assert claims.video is not None
        assert claims.video.room_create
        self.calls.append(name)
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.down:
            return web.json_response({"code": "unavailable", "msg": "down"}, status=503)
        return web.Response(body=b"", content_type="application/protobuf")


@asynccontextmanager
async def a_server() -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    app = web.Application()
    app.router.add_post("/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield server, f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def at_livekit(run: Run, tmp_path: Path) -> AsyncIterator[tuple[Api, Server]]:
    """Courses with its rooms at a LiveKit server."""
    async with a_server() as (server, url):
        options = {"livekit_url": url, "livekit_api_key": KEY, "livekit_api_secret": SECRET}
        async with run(service, data=tmp_path, **options) as api:
            yield api, server


async def test_livekit_s_own_verifier_takes_the_token(at_livekit: tuple[Api, Server]) -> None:
    api, server = at_livekit
    teacher = new_id()
    lesson_id = await plan_at(api, timedelta(minutes=5), access=FREE, instructor_id=str(teacher))
    for who in (member_id := new_id(), teacher):
        entered = (await enter(api, lesson_id, who)).json()
        claims = livekit.TokenVerifier(KEY, SECRET).verify(entered["room_token"])
        assert claims.video is not None
        assert (claims.identity, claims.video.room, claims.video.room_join) == (str(who), lesson_id, True)
        assert (claims.video.can_publish, claims.video.can_subscribe) == (who == teacher, True)
        assert entered["room_url"].startswith("ws://127.0.0.1:")
    assert server.calls == ["CreateRoom"]
    assert str(member_id) != str(teacher)


async def test_a_room_is_closed_at_the_provider_once_also_when_that_is_away_at_first(
    at_livekit: tuple[Api, Server],
) -> None:
    api, server = at_livekit
    lesson_id = await plan_at(api, timedelta(minutes=5), "scheduled", "live", access=FREE)
    server.down = True
    refused = await enter(api, lesson_id, new_id())
    assert (refused.status_code, refused.json()["code"]) == (503, "room_unavailable")
    assert int(refused.headers["retry-after"]) <= 10
    server.down = False
    assert (await enter(api, lesson_id, new_id())).status_code == 200
    server.down, server.calls = True, []
    await move(api, lesson_id, "ended")
    await api.run_due()
    assert server.calls == ["DeleteRoom"]
    server.down = False
    api.clock.advance(timedelta(minutes=2))
    await api.run_due()
    assert server.calls == ["DeleteRoom"] * 2
    api.clock.advance(timedelta(days=1))
    assert await api.run_due() == 0
    assert server.calls == ["DeleteRoom"] * 2
    never_entered = await plan_at(api, timedelta(minutes=5), "scheduled", "live", access=FREE)
    await move(api, never_entered, "ended")
    await api.run_due()
    assert server.calls == ["DeleteRoom"] * 2


async def test_a_crowd_at_the_doors_asks_the_provider_once(at_livekit: tuple[Api, Server]) -> None:
    api, server = at_livekit
    lesson_id = await plan_at(api, timedelta(minutes=5), access=FREE)
    answers = await asyncio.gather(*(enter(api, lesson_id, new_id()) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert server.calls == ["CreateRoom"]


async def test_a_room_whose_lesson_ends_while_it_is_made_is_closed(at_livekit: tuple[Api, Server]) -> None:
    api, server = at_livekit
    lesson_id = await plan_at(api, timedelta(minutes=5), "scheduled", "live", access=FREE)
    server.meanwhile = lambda: move(api, lesson_id, "ended")
    await enter(api, lesson_id, new_id())
    server.meanwhile = None
    assert await api.run_due() == 1
    assert server.calls == ["CreateRoom", "DeleteRoom"]
    assert await api.run_due() == 0


async def test_a_lesson_that_never_began_closes_its_doors_and_may_be_held_another_day(
    at_livekit: tuple[Api, Server],
) -> None:
    api, server = at_livekit
    lesson_id, member_id = await plan_at(api, timedelta(minutes=5), access=FREE), new_id()
    assert (await enter(api, lesson_id, member_id)).status_code == 200
    # 90 minutes of lesson, and half an hour.
    api.clock.advance(timedelta(minutes=5 + 90 + 29))
    assert (await enter(api, lesson_id, member_id)).status_code == 200
    api.clock.advance(timedelta(minutes=2))
    assert (await enter(api, lesson_id, member_id)).json()["code"] == "doors_closed"
    assert await api.run_due() == 2
    assert server.calls == ["CreateRoom", "DeleteRoom"]
    assert (await api.client.get(f"{LIVE}/{lesson_id}")).json()["status"] == "scheduled"
    start = clock.now() + timedelta(minutes=10)
    span = {"starts_at": instant(start), "ends_at": instant(start + timedelta(hours=1))}
    await api.client.patch(f"{ADMIN}/{lesson_id}", json=span, headers=api.admin())
    assert (await enter(api, lesson_id, member_id)).status_code == 200
    for status in ("live", "ended"):
        await move(api, lesson_id, status)
    await api.run_due()
    assert server.calls == ["CreateRoom", "DeleteRoom"] * 2
    assert await api.run_due() == 0


async def test_what_livekit_tells_is_kept_once_as_evidence_when_it_is_signed(at_livekit: tuple[Api, Server]) -> None:
    api, _ = at_livekit
    lesson_id, member_id = await plan_at(api, timedelta(minutes=5), access=FREE), new_id()
    told = {"event": "participant_joined", "id": "EV_1", "createdAt": "1800000000"}
    told |= {"room": {"name": lesson_id}, "participant": {"identity": str(member_id)}}  # type: ignore[dict-item]

    async def send(body: dict[str, Any], secret: str = SECRET, sent: bytes | None = None) -> int:
        content = json.dumps(body).encode()
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        token = livekit.AccessToken(KEY, secret).with_sha256(digest).to_jwt()
        headers = {"Authorization": token, "Content-Type": "application/webhook+json"}
        answer = await api.client.post("/v1/webhooks/livekit", content=sent or content, headers=headers)
        return answer.status_code

    assert await send(told, secret="another secret of thirty-two letters") == 400
    assert await send(told, sent=b"{}") == 400
    assert await send(told, sent=b"\xff") == 400
    assert await api.sql("SELECT * FROM room_evidence") == []
    for _ in range(2):
        assert await send(told) == 204
    for other in ({"event": "room_started"}, {"room": {"name": str(new_id())}}, {"room": {"name": "x"}}):
        assert await send(told | {"id": str(new_id())} | other) == 204
    [row] = await api.sql("SELECT id, lesson_id, member_id, kind FROM room_evidence")
    assert tuple(map(str, row)) == ("EV_1", lesson_id, str(member_id), "participant_joined")


async def test_without_livekit_there_is_nobody_to_hear(api: Api, run: Run, tmp_path: Path) -> None:
    answer = await api.client.post("/v1/webhooks/livekit", content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (404, "rooms_not_connected")
    async with run(service, data=tmp_path, env="production", limits_mode="strict") as production:
        lesson_id = await plan_at(production, timedelta(minutes=5), access=FREE)
        refused = await enter(production, lesson_id, new_id())
        assert (refused.status_code, refused.json()["code"]) == (503, "room_unavailable")
