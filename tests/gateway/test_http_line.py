"""What a service may say over its connection, and how much of it anybody has to hold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from gateway import http_line
from gateway.http_upstream import HttpUpstream
from tests.gateway.conftest import Front, Start


class Script:
    """A service that answers each request with the next of these bytes, over as many connections as it is asked."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        self.answers = list(answers)
        self.closes = closes
        self.connections = self.open = 0
        self.requests: list[bytes] = []

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while self.answers:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answers.pop(0))
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.open -= 1


@asynccontextmanager
async def behind(start: Start, script: Script) -> AsyncIterator[Front]:
    listening = await asyncio.start_server(script.meet, "127.0.0.1", 0)
    upstream = HttpUpstream(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    async with start(upstreams={"billing": upstream}) as front:
        try:
            yield front
        finally:
            await upstream.close()
            listening.close()
    while script.open:  # noqa: ASYNC110 - a warning about open sockets is an error
        await asyncio.sleep(0.005)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nX-Late: 1\r\n\r\n",
            200,
            b"ok",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nok", 200, b"ok"),
        (b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n', 304, b""),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", 500, b""),
    ],
)
async def test_every_way_to_end_an_answer_is_understood(
    start_here: Start, said: bytes, status: int, body: bytes
) -> None:
    async with behind(start_here, Script(said, OK, closes=b"HTTP/1.0" in said)) as front:
        answer = await front.client.get("/v1/plans")
        assert (answer.status_code, answer.content) == (status, body)
        assert "link" not in answer.headers
        assert "x-late" not in answer.headers
        assert (await front.client.get("/v1/plans")).content == b"ok"


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (http_line.MOST_HELD + 10_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"",
    ],
)
async def test_what_is_no_answer_is_502(start_here: Start, said: bytes) -> None:
    async with behind(start_here, Script(said, OK, closes=True)) as front:
        answer = await front.client.post("/v1/plans")
        assert (answer.status_code, answer.json()["code"]) == (502, "bad_upstream")
        assert (await front.client.post("/v1/plans")).content == b"ok"


async def test_an_answer_that_nobody_asked_for_is_nobodys(start_here: Start) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    script = Script(OK + forged, OK)
    async with behind(start_here, script) as front:
        assert [(await front.client.get("/v1/plans")).content for _ in range(2)] == [b"ok", b"ok"]
    assert script.connections == 2


async def test_a_connection_is_kept_and_a_dead_one_replaced(start_here: Start) -> None:
    script = Script(*[OK] * 5)
    async with behind(start_here, script) as front:
        for _ in range(5):
            assert (await front.client.get("/v1/plans")).content == b"ok"
        assert script.connections == 1
        script.answers = [OK, OK]
        script.closes = True
        assert [(await front.client.post("/v1/plans")).content for _ in range(2)] == [b"ok", b"ok"]


async def test_a_slow_reader_makes_the_service_wait_instead_of_filling_memory(start_here: Start) -> None:
    size = 64 * 1024 * 1024
    sent = 0

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"z" * 65536)
            await writer.drain()
            sent += 65536
        writer.close()

    listening = await asyncio.start_server(meet, "127.0.0.1", 0)
    upstream = HttpUpstream(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    async with start_here(upstreams={"billing": upstream}) as front, asyncio.timeout(60):
        async with front.client.stream("GET", "/v1/plans", headers={"Accept-Encoding": "identity"}) as answer:
            pieces = answer.aiter_raw()
            got = len(await anext(pieces))
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.3)
            # Sockets' buffers hold some megabytes; we hold next to none.
            assert sent < size // 2
            async for piece in pieces:
                got += len(piece)
        assert got == sent == size
    await upstream.close()
    listening.close()


async def test_a_body_of_unknown_length_is_chunked_and_one_of_known_length_is_not(start_here: Start) -> None:
    script = Script(OK, OK, OK)
    async with behind(start_here, script) as front:
        await front.client.post("/v1/plans", content=b"abc")
        await front.client.post("/v1/plans", content=pieces())
        await front.client.delete("/v1/plans")
    heads = [request.lower() for request in script.requests]
    assert [b"content-length: 3\r\n" in head for head in heads] == [True, False, False]
    assert b"transfer-encoding" not in heads[0] + heads[2]


async def pieces() -> AsyncIterator[bytes]:
    yield b"ab"
    yield b"cd"


async def test_the_host_is_the_callers_or_else_the_services_own() -> None:
    script = Script(OK)
    listening = await asyncio.start_server(script.meet, "127.0.0.1", 0)
    address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    upstream = HttpUpstream(f"http://{address}")

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream({**scope, "heika.request_id": "r", "heika.traceparent": "t"}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=named), base_url="http://x") as client:
        request = client.build_request("GET", "/")
        del request.headers["host"]
        await client.send(request)
    assert f"host: {address}\r\n".encode() in script.requests[0]
    await upstream.close()
    listening.close()
