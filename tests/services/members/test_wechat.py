"""Signing in by WeChat: the sandbox's users, WeChat's own server with its errcodes, and who is recognised."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from contracts.members import MemberRegistered
from services.members.app import service
from tests.harness import Api, Run
from tests.services.members.steps import bearer

KEY = "a production key of thirty-two characters"


async def wechat_user(api: Api, openid: str = "openid-1", js_code: str = "code-1", **more: Any) -> None:
    body = {"openid": openid, "js_code": js_code} | more
    assert (await api.client.post("/v1/sandbox/wechat/users", json=body)).status_code == 201


async def log_in(api: Api, js_code: str = "code-1", **more: Any) -> httpx.Response:
    return await api.client.post("/v1/auth/wechat", json={"js_code": js_code} | more)


class WechatServer:
    """A small server on loopback that answers as WeChat does: always 200 and text/plain, or whatever it is told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.body = b'{"session_key":"c2VjcmV0","openid":"o-real","unionid":"u-real"}'
        self.head = "HTTP/1.1 200 OK"
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        target = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
        assert urlsplit(target).path == "/sns/jscode2session"
        self.asked.append(parse_qs(urlsplit(target).query))
        head = (
            f"{self.head}\r\ncontent-type: text/plain\r\ncontent-length: {len(self.body)}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + self.body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def wechat() -> AsyncIterator[WechatServer]:
    wechat = WechatServer()
    server = await asyncio.start_server(wechat.serve, "127.0.0.1", 0)
    async with server:
        wechat.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield wechat


async def test_a_new_wechat_user_registers_and_a_known_one_logs_in(api: Api) -> None:
    await wechat_user(api)
    answer = await log_in(api, invite_code="FRIEND", channel="bilibili", visitor_id="device-1")
    assert answer.status_code == 200
    first = answer.json()
    assert first["created"] is True
    assert first["member"]["phone_masked"] is None
    [registered] = await api.emitted()
    assert isinstance(registered, MemberRegistered)
    assert (registered.invite_code, registered.channel, registered.visitor_id) == ("FRIEND", "bilibili", "device-1")
    assert registered.phone_hash is None
    assert (await api.client.get("/v1/me", headers=bearer(first))).json() == first["member"]

    second = (await log_in(api)).json()
    assert second["created"] is False
    assert second["member"] == first["member"]
    assert await api.emitted() == []


async def test_one_person_in_two_apps_is_known_by_their_unionid(api: Api) -> None:
    await wechat_user(api, unionid="u-1")
    await wechat_user(api, "openid-2", "code-2", unionid="u-1")
    first, second = (await log_in(api)).json(), (await log_in(api, "code-2")).json()
    assert second["member"]["id"] == first["member"]["id"]
    assert second["created"] is False


async def test_two_first_logins_at_once_make_one_member(api: Api) -> None:
    await wechat_user(api, unionid="u-1")
    answers = await asyncio.gather(*(log_in(api) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["member"]["id"] for answer in answers}) == 1
    assert len(await api.sql("SELECT 1 FROM member")) == 1
    assert len(await api.emitted()) == 1


async def test_a_code_nobody_has_is_refused(api: Api) -> None:
    refused = await log_in(api, "unknown")
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_code")
    for code in ("", None, 7, "x" * 129, "a\u0000b"):
        assert (await api.client.post("/v1/auth/wechat", json={"js_code": code})).status_code == 422
    assert await api.sql("SELECT 1 FROM member") == []


async def test_the_names_wechat_gave_are_not_readable_in_the_database(api: Api) -> None:
    await wechat_user(api, unionid="union-1")
    await log_in(api)
    rows = await api.sql("SELECT identity::text AS row FROM identity")
    assert len(rows) == 2
    assert not any("openid-1" in row.row or "union-1" in row.row for row in rows)


async def test_production_asks_wechats_server(run: Run, wechat: WechatServer) -> None:
    options = {"members_key": KEY, "wechat_url": wechat.url, "wechat_app_id": "wx1", "wechat_app_secret": "hush"}
    async with run(service, env="production", **options) as api:
        first = await log_in(api, "071abc")
        assert first.status_code == 200, first.text
        assert wechat.asked == [
            {"appid": ["wx1"], "secret": ["hush"], "js_code": ["071abc"], "grant_type": ["authorization_code"]}
        ]
        assert "c2VjcmV0" not in first.text
        assert (await log_in(api, "071abd")).json()["created"] is False
        assert (await api.client.post("/v1/sandbox/wechat/users", json={})).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"errcode":40029,"errmsg":"invalid code"}', 401, "invalid_code"),
        (b'{"errcode":40163,"errmsg":"code been used"}', 401, "invalid_code"),
        (b'{"errcode":40226,"errmsg":"code blocked"}', 403, "wechat_user_blocked"),
        (b'{"errcode":45011,"errmsg":"minute quota reached"}', 429, "wechat_busy"),
        (b'{"errcode":-1,"errmsg":"system error"}', 503, "wechat_unavailable"),
        (b'{"errcode":40125,"errmsg":"invalid appsecret"}', 503, "wechat_unavailable"),
        (b'{"openid":""}', 503, "wechat_unavailable"),
        (b'{"openid":7}', 503, "wechat_unavailable"),
        (b"{}", 503, "wechat_unavailable"),
        (b"[]", 503, "wechat_unavailable"),
        (b"\xff<html>", 503, "wechat_unavailable"),
    ],
)
async def test_what_wechat_refuses_is_said_clearly(
    run: Run, wechat: WechatServer, body: bytes, status: int, code: str
) -> None:
    wechat.body = body
    async with run(service, wechat_url=wechat.url, wechat_app_id="wx1", wechat_app_secret="hush") as api:
        refused = await log_in(api)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert ("retry-after" in refused.headers) is (status in (429, 503))
        assert await api.sql("SELECT 1 FROM member") == []


async def test_a_wechat_that_is_away_or_not_configured_is_503(run: Run, wechat: WechatServer) -> None:
    wechat.head = "HTTP/1.1 502 Bad Gateway"
    secret = {"wechat_app_secret": "hush"}
    async with run(service, wechat_url=wechat.url, wechat_app_id="wx1", **secret) as api:
        assert (await log_in(api)).json()["code"] == "wechat_unavailable"
    for url in ("http://127.0.0.1:9", "nonsense"):
        async with run(service, wechat_url=url, wechat_app_id="wx1", **secret) as api:
            assert (await log_in(api)).json()["code"] == "wechat_unavailable", url
    async with run(service, env="production", members_key=KEY) as api:
        refused = await log_in(api)
        assert (refused.status_code, refused.json()["code"]) == (503, "wechat_unavailable")
