"""What happens on the connection itself: slow and swollen callers, trailers, Expect, and a stop under load."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
import pytest
from starlette.types import Receive, Scope, Send

from kit import connection
from tests.gateway.conftest import Front, Start
from tests.gateway.toy import server_of
from tests.onebox.conftest import free_port


@dataclass
class Line:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, text: str) -> None:
        self.writer.write(text.encode())

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    async with asyncio.timeout(8):
        yield Line(reader, writer)
    writer.close()


async def test_a_head_that_dawdles_is_408_and_silence_is_hung_up_on(
    start_here: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.15)
    async with start_here() as front, line_to(front.url) as slow, line_to(front.url) as silent:
        slow.say("GET /v1/plans/small HTTP/1.1\r\nHost: x\r\nX-Part: 1")
        status, headers, body = await slow.answer()
        assert (status, orjson.loads(body)["code"], headers["connection"]) == (408, "request_timeout", "close")
        assert headers["content-type"] == "application/problem+json"
        assert orjson.loads(body)["request_id"] == headers["x-request-id"]
        assert await slow.reader.read() == b""
        assert await silent.reader.read() == b""
        async with line_to(front.url) as kept:
            # A kept connection may rest between requests, but not inside the head of the next.
            kept.say("GET /v1/plans/small HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await kept.answer())[0] == 200
            kept.say("GET /v1/plans/small HTTP/1.1\r\n")
            assert (await kept.answer())[0] == 408
        assert front.toy.seen == ["GET /v1/plans/small"]


async def test_a_head_may_take_its_time_in_pieces_and_rest_between_requests(front: Front) -> None:
    async with line_to(front.url) as line:
        for piece in ("GET /v1/plans/sm", "all HTTP/1.1\r\nHo", "st: x\r\n", "\r\n"):
            line.say(piece)
            await asyncio.sleep(0)
        assert (await line.answer())[0] == 200
        line.say("GET /v1/plans/small HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert [(await line.answer())[0] for _ in range(3)] == [200, 200, 200]


async def test_a_swollen_head_is_431_and_reaches_nobody(start_here: Start) -> None:
    big, many = "X-Big: " + "x" * 40_000, "\r\n".join(f"X-{number}: 1" for number in range(101))
    async with start_here() as front:
        for lines in (f"{big}\r\n\r\n", f"{big}\r\n", big, f"{many}\r\n\r\n"):
            async with line_to(front.url) as line:
                line.say(f"GET /v1/plans/small HTTP/1.1\r\nHost: x\r\n{lines}")
                status, headers, body = await line.answer()
                assert (status, orjson.loads(body)["code"], headers["connection"]) == (431, "head_too_large", "close")
        assert front.toy.seen == []


async def test_what_is_not_http_is_a_400_problem(start_here: Start) -> None:
    async with start_here() as front, line_to(front.url) as line:
        line.say("nonsense\r\n\r\n")
        status, headers, body = await line.answer()
        assert (status, orjson.loads(body)["code"]) == (400, "bad_request")
        assert headers["x-request-id"] == orjson.loads(body)["request_id"]


async def test_a_body_that_breaks_the_rules_is_a_400_problem_too(start_here: Start) -> None:
    broken = (
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        "Transfer-Encoding: xchunked\r\n\r\nabc",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    )
    async with start_here() as front:
        for rest in broken:
            async with line_to(front.url) as line:
                line.say(f"POST /v1/plans/echo HTTP/1.1\r\nHost: x\r\n{rest}")
                status, headers, body = await line.answer()
                assert (status, orjson.loads(body)["code"], headers["connection"]) == (400, "bad_request", "close"), (
                    rest
                )
                assert await line.reader.read() == b""
        assert front.toy.seen == []


async def test_who_stops_speaking_after_a_whole_request_still_hears_the_answer(front: Front) -> None:
    async with line_to(front.url) as line:
        line.say("POST /v1/plans/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        line.say("GET /v1/plans/small HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        line.writer.write_eof()
        assert [(await line.answer())[0] for _ in range(3)] == [200, 200, 200]
        assert await line.reader.read() == b""
    async with line_to(front.url) as line:
        # Half a body is no request.
        line.say("POST /v1/plans/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
        line.writer.write_eof()
        assert await line.reader.read() == b""


async def test_a_request_names_one_host(start_here: Start) -> None:
    async with start_here() as front:
        for version, hosts, expected in (
            ("1.1", "", 400),
            ("1.1", "Host: x\r\nHost: y\r\n", 400),
            ("1.1", "Host: x\r\n", 200),
            ("1.0", "", 200),
        ):
            async with line_to(front.url) as line:
                line.say(f"GET /v1/plans/small HTTP/{version}\r\n{hosts}\r\n")
                status, _, body = await line.answer()
                assert status == expected, (version, hosts)
                assert status == 200 or orjson.loads(body)["code"] == "bad_request"


async def test_a_body_that_is_coded_otherwise_than_in_chunks_is_refused(start_here: Start) -> None:
    async with start_here() as front, line_to(front.url) as line:
        line.say("POST /v1/plans/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        status, _, body = await line.answer()
        assert (status, orjson.loads(body)["code"]) == (400, "bad_request")
        assert front.toy.seen == []


async def test_trailers_are_dropped_and_never_become_headers(front: Front) -> None:
    async with line_to(front.url) as line:
        line.say(
            "POST /v1/plans/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n"
            "3\r\nabc\r\n0\r\nX-Late: 1\r\nAuthorization: Bearer x\r\nX-Heika-Client-Address: 9.9.9.9\r\n\r\n"
        )
        _, _, body = await line.answer()
        seen = orjson.loads(body)
        assert seen["body"] == "YWJj"
        names = [name for name, _ in seen["headers"]]
        assert {"x-late", "authorization", "trailer"}.isdisjoint(names)
        assert ["x-heika-client-address", "127.0.0.1"] in seen["headers"]
        # The connection goes on where the trailers end.
        line.say("GET /v1/plans/small HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await line.answer())[0] == 200


async def test_expect_is_answered_here_and_a_body_too_large_is_refused_before_it_is_sent(front: Front) -> None:
    async with line_to(front.url) as line:
        line.say("POST /v1/plans/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await line.answer())[0] == 100
        line.say("abc")
        status, _, body = await line.answer()
        assert status == 200
        assert orjson.loads(body)["body"] == "YWJj"
        assert "expect" not in dict(orjson.loads(body)["headers"])
        line.say("POST /v1/plans/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\nExpect: 100-continue\r\n\r\n")
        assert (await line.answer())[0] == 413


async def test_a_caller_who_does_not_read_is_cut_and_the_service_hears_of_it(
    start_here: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.2)
    ended = asyncio.Event()

    async def endless(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def pour() -> None:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)

        pouring = asyncio.create_task(pour())
        assert (await receive())["type"] == "http.disconnect"
        pouring.cancel()
        ended.set()

    async with start_here(upstreams={"billing": endless}) as front:
        raw = socket.create_connection(("127.0.0.1", int(front.url.rsplit(":", 1)[1])))
        raw.sendall(b"GET /v1/plans/endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(ended.wait(), 5)
        raw.close()


async def test_a_stop_under_load_loses_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request that a client could write is answered, or its connection was closed by an answer that said so."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.3)
    served = 0

    async def app(_: Scope, __: Receive, send: Send) -> None:
        nonlocal served
        await asyncio.sleep(0.002)
        served += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    port = free_port()
    listener = socket.create_server(("127.0.0.1", port))
    server = server_of(app)
    await server.startup(sockets=[listener])
    answered, lost, told = 0, 0, 0
    warm = asyncio.Event()

    async def client() -> None:
        nonlocal answered, lost, told
        async with line_to(f"http://127.0.0.1:{port}") as line:
            while True:
                line.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                try:
                    _, headers, _ = await line.answer()
                except (asyncio.IncompleteReadError, ConnectionError):
                    lost += 1
                    return
                answered += 1
                if answered == 200:
                    warm.set()
                if headers.get("connection") == "close":
                    told += 1
                    return

    async with asyncio.timeout(10):
        clients = [asyncio.create_task(client()) for _ in range(32)]
        await warm.wait()
        await server.shutdown()
        await asyncio.gather(*clients)
    assert (lost, told) == (0, 32)
    assert answered == served
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_stop_ends_streams_of_events_so_that_their_readers_come_back() -> None:
    gone = asyncio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        kind = (b"content-type", b"text/event-stream; charset=utf-8")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        await send({"type": "http.response.body", "body": b"event: here\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    listener = socket.create_server(("127.0.0.1", 0))
    server = server_of(app)
    await server.startup(sockets=[listener])
    async with line_to(f"http://127.0.0.1:{listener.getsockname()[1]}") as line:
        line.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await line.reader.readuntil(b"event: here")
        async with asyncio.timeout(2):
            await server.shutdown()
        assert (await line.reader.read()).endswith(b"\r\n0\r\n\r\n")
    assert gone.is_set()
