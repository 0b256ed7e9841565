"""Running the service: production's doors, the SMS gateway, and periodic work that comes to an end."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from contracts.members import PointsChanged
from services.members.app import service
from tests.harness import Api, Run
from tests.services.members.steps import PHONE, a_member, send_code, sign_in, verify

KEY = "a production key of thirty-two characters"


class Gateway:
    """A small SMS gateway on loopback that notes what it was sent."""

    def __init__(self) -> None:
        self.taken: list[dict[str, str]] = []
        self.authorization: list[str] = []
        self.status = 202
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.taken.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
        self.authorization.append(headers.get("authorization", ""))
        writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def listening(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server on a free loopback port; its address."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/send"


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """The gateway, listening."""
    gateway = Gateway()
    async with listening(gateway.serve) as gateway.url:
        yield gateway


async def test_production_sends_codes_through_the_gateway_and_shows_none(run: Run, gateway: Gateway) -> None:
    options = {"members_key": KEY, "sms_url": gateway.url, "sms_token": "secret"}
    async with run(service, env="production", **options) as api:
        assert (await send_code(api)).status_code == 202
        [taken] = gateway.taken
        assert (taken["phone"], len(taken["code"])) == (PHONE, 6)
        assert gateway.authorization == ["bearer secret"]
        assert (await verify(api, taken["code"])).status_code == 200
        for query in ("", f"?phone={PHONE}", "?phone=nonsense"):
            assert (await api.client.get(f"/v1/sandbox/otp{query}")).status_code == 404
        assert await api.sql("SELECT 1 FROM sandbox_sms") == []


async def test_a_code_the_gateway_does_not_take_may_be_asked_for_again_at_once(run: Run, gateway: Gateway) -> None:
    async with run(service, env="production", members_key=KEY, sms_url=gateway.url) as api:
        gateway.status = 500
        refused = await send_code(api)
        assert (refused.status_code, refused.json()["code"]) == (503, "sms_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await verify(api, gateway.taken[0]["code"])).status_code == 401
        gateway.status = 200
        assert (await send_code(api)).status_code == 202


async def test_production_without_a_gateway_says_so(run: Run) -> None:
    async with run(service, env="production", members_key=KEY) as api:
        assert (await send_code(api)).json()["code"] == "sms_unavailable"


@pytest.mark.parametrize("key", ["", "short"])
async def test_production_does_not_start_without_a_long_key(run: Run, key: str) -> None:
    with pytest.raises(ValueError, match="MEMBERS_KEY needs 32 characters"):
        async with run(service, env="production", members_key=key):
            pass


async def test_what_is_long_over_is_forgotten_once(api: Api) -> None:
    await sign_in(api)
    assert await api.run_due() == 1, "a newcomer who produced nothing lurks"
    assert await api.run_due() == 0
    api.clock.advance(timedelta(days=2))
    assert await api.run_due() == 1
    assert await api.sql("SELECT 1 FROM otp") == []
    api.clock.advance(timedelta(days=100))
    assert await api.run_due() == 2, "the session, and the tag of who is not here any more"
    assert await api.run_due() == 0
    assert await api.sql("SELECT 1 FROM login_session") == await api.sql("SELECT 1 FROM refresh_token") == []


async def test_nothing_happens_by_itself_after_a_members_day(api: Api) -> None:
    _, headers = await a_member(api)
    await api.client.post("/v1/me/check-ins", headers=headers)
    assert [type(event) for event in await api.emitted()] == [PointsChanged]
    assert await api.run_due() == 1, "they were here: the tag of roles, of which nobody is told"
    assert await api.run_due() == 0
    assert await api.emitted() == []
