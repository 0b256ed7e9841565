"""A small upstream that shows what reached it, and misbehaves on request; and a real server to put apps behind."""

import asyncio
import contextlib
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import orjson
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.inbound import Headers, naming
from kit.connection import CLASS, SOCKETS
from kit.http import HEAD_ONLY

leaked: ContextVar[str] = ContextVar("leaked", default="nothing")


class Toy:
    """One upstream; `release` lets its event stream go on, `ended` is set when a stream was given up."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.ended = asyncio.Event()
        self.seen: list[str] = []
        self.asked_for_head: list[bool] = []
        self.callers: list[object] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve by the last word of the path."""
        if scope["type"] == "websocket":
            await _socket(scope, receive, send)
        if scope["type"] != "http":
            return
        self.seen.append(f"{scope['method']} {scope['path']}")
        self.callers.append(scope.get("heika.caller", "unknown"))
        self.asked_for_head.append((HEAD_ONLY.encode(), b"1") in scope["headers"])
        word = scope["path"].rsplit("/", 1)[1]
        if word == "events":
            await self._events(receive, send)
            return
        body = await _read(receive)
        if word in ANSWERS:
            content, headers = ANSWERS[word]
            await _answer(send, content, *headers, status=307 if word == "redirect" else 200)
        elif word in MOODS:
            await MOODS[word](send)
        else:
            await _answer(send, _shown(scope, body))

    async def _events(self, receive: Receive, send: Send) -> None:
        await _start(send, 200, (b"content-type", b"text/event-stream"))
        await send({"type": "http.response.body", "body": b"event: status\ndata: 1\n\n", "more_body": True})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        waiting = [asyncio.ensure_future(gone()), asyncio.ensure_future(self.release.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self.release.is_set():
                await send({"type": "http.response.body", "body": b"event: status\ndata: 2\n\n"})
        finally:
            self.ended.set()
            for task in waiting:
                task.cancel()


async def _socket(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what reached it, then says everything back until it hears "leave"; refuses on /closed, dies on /crash."""
    assert (await receive())["type"] == "websocket.connect"
    word = scope["path"].rsplit("/", 1)[1]
    if word == "crash":
        raise RuntimeError("as asked")
    if word == "closed":
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    if word == "shut":
        await send({"type": "websocket.close"})
        return
    if word == "mute":
        await asyncio.sleep(30)
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    names = [name.decode() for name, _ in _told(scope)]
    seen = {
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "names": names,
        "client": scope["client"][0],
    }
    await send({"type": "websocket.send", "text": orjson.dumps(seen).decode()})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "leave":
            await send({"type": "websocket.close", "code": 4321})
            return
        said = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **said})
    LEFT.set()


LEFT = asyncio.Event()
"""Set when a caller has left a socket."""


async def _crash(send: Send) -> None:
    raise RuntimeError("as asked")


async def _half(send: Send) -> None:
    await _start(send, 200, (b"content-length", b"100000"))
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})
    raise RuntimeError("as asked")


async def _slow(send: Send) -> None:
    await asyncio.sleep(30)


async def _stubborn(send: Send) -> None:
    """Takes no notice of being canceled, and answers when nobody listens any more."""
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.5)
    await _answer(send, b"{}")


async def _silent(send: Send) -> None:
    return


async def _nothing(send: Send) -> None:
    await _start(send, 204)
    await send({"type": "http.response.body", "body": b""})


async def _huge(send: Send) -> None:
    await _start(send, 200)
    for _ in range(64):
        await send({"type": "http.response.body", "body": b"y" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


MOODS: dict[str, Callable[[Send], Awaitable[None]]] = {
    "crash": _crash,
    "half": _half,
    "huge": _huge,
    "nothing": _nothing,
    "silent": _silent,
    "slow": _slow,
    "stubborn": _stubborn,
}
ANSWERS: dict[str, tuple[bytes, tuple[tuple[bytes, bytes], ...]]] = {
    "big": (b'"' + b"x" * 5000 + b'"', ()),
    "cookies": (b"{}", ((b"set-cookie", b"a=1"), (b"set-cookie", b"b=2; Path=/"))),
    "packed": (b"x" * 5000, ((b"content-encoding", b"br"),)),
    "redirect": (b"{}", ((b"location", b"https://elsewhere.example/"),)),
    "small": (b'{"hello":"you"}', ()),
    "tagged": (b'{"version":3}', ((b"etag", b'"3"'),)),
}


def _shown(scope: Scope, body: bytes) -> bytes:
    leaked.set("from the toy")
    shown = {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in _told(scope)],
        "client": scope["client"][0] if scope["client"] else None,
        "body": b64encode(body).decode(),
        "leaked": leaked.get(),
    }
    return orjson.dumps(shown)


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _told(scope: Scope) -> Headers:
    """The headers that came, and what a service in the gateway's process reads in its scope instead."""
    return [*scope["headers"], *(naming(scope) if "heika.request_id" in scope else ())]


async def _start(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _answer(send: Send, body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    length = (b"content-length", str(len(body)).encode())
    await _start(send, status, (b"content-type", b"application/json"), length, *headers)
    await send({"type": "http.response.body", "body": body})


def server_of(app: ASGIApp) -> uvicorn.Server:
    """A uvicorn that speaks as ours do, not started."""
    config = uvicorn.Config(app, http=CLASS, ws=SOCKETS, lifespan="off", log_level="critical", proxy_headers=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    return server


@asynccontextmanager
async def serving(app: ASGIApp, *, port: int = 0) -> AsyncIterator[str]:
    """The app behind a real uvicorn on loopback; yields its address."""
    # Only where the protocol is named does asyncio send an answer's second write before its first is acknowledged.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    server = server_of(app)
    # Its own loop and shutdown wait in tenths of a second, which many small tests would feel.
    await server.startup(sockets=[listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for listening in server.servers:
            listening.close()
        for connection in list(server.server_state.connections):
            connection.transport.close()
        for task in server.server_state.tasks:
            task.cancel()
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
        listener.close()
