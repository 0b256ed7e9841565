"""WebSockets through the gateway, to a service in this process and to one behind HTTP."""

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from yarl import URL

from kit import auth
from tests import harness
from tests.gateway import toy
from tests.gateway.conftest import Front, Start
from tests.gateway.test_front import MEMBER, bearer
from tests.gateway.test_proxy import with_route


@pytest.fixture(autouse=True)
def _published_key() -> None:
    auth.keys.publish({"keys": [harness.signing_key().as_dict(private=False)]})


async def refused(front: Front, path: str, **options: Any) -> int:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(URL(front.url + path, encoded=True), **options)
    return refusal.value.status


async def test_messages_pass_both_ways_until_one_side_leaves(front: Front) -> None:
    toy.LEFT.clear()
    headers = bearer(harness.sign(MEMBER)) | {"X-Heika-Caller": "admin", "X-Forwarded-For": "9.9.9.9"}
    async with aiohttp.ClientSession(front.url) as session:
        path = "/v1/live-lessons/1/%E8%81%8A?a=1"
        async with session.ws_connect(path, protocols=["chat"], headers=headers) as ours:
            assert ours.protocol == "chat"
            seen = orjson.loads(await ours.receive_str(timeout=3))
            assert (seen["path"], seen["query"], seen["client"]) == ("/v1/live-lessons/1/聊", "a=1", "127.0.0.1")
            assert {"authorization", "x-request-id", "traceparent"} <= set(seen["names"])
            assert "x-heika-caller" not in seen["names"]
            await ours.send_str("你好")
            assert await ours.receive_str(timeout=3) == "你好"
            await ours.send_bytes(b"\x00\xff")
            assert await ours.receive_bytes(timeout=3) == b"\x00\xff"
            await ours.send_str("leave")
            assert (await ours.receive(timeout=3)).type is aiohttp.WSMsgType.CLOSE
            assert ours.close_code == 4321
        async with session.ws_connect("/v1/live-lessons/1/chat") as ours:
            await ours.receive_str(timeout=3)
    await asyncio.wait_for(toy.LEFT.wait(), 3)


async def test_a_socket_is_refused_as_a_request_is(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    with_route(monkeypatch, "/v1/contests", deadline=0.2)
    statuses = {
        "/v1/nowhere": 404,
        "/internal/clock": 404,
        "/v1/home": 404,
        "/v1/plans/%2e%2e/x": 400,
        "/v1/plans/closed": 403,
        "/v1/plans/crash": (500, 502),
        "/v1/contests/mute": 504,
    }
    for path, status in statuses.items():
        assert await refused(front, path) in (status if isinstance(status, tuple) else (status,)), path
    assert await refused(front, "/v1/plans/chat", headers=bearer("nonsense")) == 401
    # A service without sockets closes; the caller reads why.
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with aiohttp.ClientSession(front.url) as session:
        shut = await session.get(
            "/v1/plans/shut", headers=handshake | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        )
        problem = orjson.loads(await shut.read())
    assert (shut.status, shut.content_type, problem["code"]) == (403, "application/problem+json", "socket_refused")
    assert problem["request_id"] == shut.headers["x-request-id"]


async def test_only_our_own_pages_and_listed_ones_open_sockets(start_here: Start) -> None:
    async with start_here(allowed_origins=("https://h5.example",)) as front:
        assert await refused(front, "/v1/plans/chat", origin="https://evil.example") == 403
        async with aiohttp.ClientSession(front.url) as session:
            for origin in ("https://h5.example", front.url):
                async with session.ws_connect("/v1/plans/chat", origin=origin) as ours:
                    assert "names" in orjson.loads(await ours.receive_str(timeout=3))


async def test_a_socket_to_a_stopped_service_is_503(start_here: Start) -> None:
    from gateway.http_upstream import HttpUpstream  # noqa: PLC0415

    away = HttpUpstream("http://127.0.0.1:9")
    async with start_here(upstreams={"billing": away}) as front:
        assert await refused(front, "/v1/plans/chat") == 503
    await away.close()
