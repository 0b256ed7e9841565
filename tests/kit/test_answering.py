"""The heads of answers, beside what uvicorn itself writes."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from kit import connection
from tests.gateway.toy import serving

Pairs = list[tuple[bytes, bytes]]

TYPE = (b"content-type", b"text/plain; charset=utf-8\t")
TWO = (b"content-length", b"2")


async def said(status: int, headers: Pairs, request: bytes) -> bytes:
    """Everything that comes over the wire for this answer, without its date."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if status == 204 else b"ok"})

    async with serving(app) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rsplit(":", 1)[1]))
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(5):
            found = await reader.read()
        writer.close()
    return b"\r\n".join(line for line in found.split(b"\r\n") if not line.startswith(b"date: "))


GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


CASES: list[tuple[int, Pairs, bytes]] = [
    (200, [TYPE, TWO, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], GET),
    (200, [TYPE], GET),
    (200, [TYPE], GET.replace(b"1.1", b"1.0")),
    (200, [TYPE, TWO], GET.replace(b"GET", b"HEAD")),
    (200, [TYPE], GET.replace(b"GET", b"HEAD")),
    (204, [(b"x-odd", b"\xe9\xff")], GET),
    (201, [(b"Content-Length", b"2"), (b"X-Mixed", b"Case")], GET),
    (200, [(b"transfer-encoding", b"chunked")], GET),
    (200, [(b"connection", b"close"), TWO], GET),
    # Nothing that an app says may end a head, or begin another.
    (200, [TWO, (b"x-a", b"b\r\nx-smuggled: 1")], GET),
    (200, [TWO, (b"x-a", b"b\nx-smuggled: 1")], GET),
    (200, [TWO, (b"x-a", b"b\r\r\n\n")], GET),
    (200, [TWO, (b"x-a", b"nul\x00")], GET),
    (200, [TWO, (b"x-a: b\r\nx-smuggled", b"1")], GET),
    (200, [TWO, (b"x a", b"1")], GET),
    (200, [TWO, TWO], GET),
    (200, [(b"content-length", b"3")], GET),
    (200, [(b"content-length", b"1")], GET),
    (200, [(b"content-length", b"0")], GET),
    (304, [TWO], GET),
]


async def test_a_head_is_what_uvicorn_would_write(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [await said(*case) for case in CASES]
    monkeypatch.setattr(connection, "Cycle", RequestResponseCycle)
    for case, written in zip(CASES, ours, strict=True):
        assert written == await said(*case), case
        assert b"smuggled" not in written
