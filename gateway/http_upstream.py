"""An upstream in another process: an ASGI app that passes bytes on over kept HTTP connections, unchanged."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from gateway.http_line import Broken, Line, Lines
from gateway.inbound import naming
from gateway.problems import BadUpstream, UpstreamUnavailable

if TYPE_CHECKING:
    import aiohttp

WHOLE: Final = 64 * 1024
"""Answers up to this many bytes go on in one piece, so that they can be given a tag or compressed."""

# uvicorn closes idle connections after 5 s by default; ours must be given up before, or a request meets the reset.
_IDLE: Final = 3.5
_RETRY_PAUSE: Final = 0.05
_ODD_BYTE: Final = re.compile(rb"[^\x21-\x7e]")
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_WITH_LENGTH: Final = frozenset({"POST", "PUT", "PATCH"})
_OWN: Final = (b"content-length", b"transfer-encoding", b"connection")


class HttpUpstream:
    """The service at `base_url` (`http://host:port`); raises UpstreamUnavailable or BadUpstream before any answer."""

    def __init__(self, base_url: str, *, connect_timeout: float = 1.0) -> None:
        parts = urlsplit(base_url)
        tls = parts.scheme == "https"
        self.base_url = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.netloc.encode()
        port = parts.port or (443 if tls else 80)
        # Without a limit: an open stream holds its connection for hours, and others must not wait for it.
        self._lines = Lines(parts.hostname or "", port, tls=tls, connect_seconds=connect_timeout, idle_seconds=_IDLE)
        self._sockets: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Give up the kept connections."""
        self._lines.close()
        if self._sockets is not None:
            await self._sockets.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one HTTP request on and its answer back, or one WebSocket through."""
        if scope["type"] == "websocket":
            # Hardly anybody opens one, and loading the client takes a quarter of a second.
            from gateway.http_socket import new_pool, pass_socket  # noqa: PLC0415

            if self._sockets is None or self._sockets.closed:
                self._sockets = new_pool()
            await pass_socket(self._sockets, self.base_url + _target(scope).decode(), scope, receive, send)
        if scope["type"] != "http":
            return
        # The gateway has looked; whoever else asks has not.
        body = await _body(scope, receive) if scope.get("heika.has_body", True) else None
        line = await self._request(scope, body)
        try:
            await _answer(line, scope, receive, send)
        except Broken as error:
            # Half an answer: whoever is in front breaks off, too.
            raise BadUpstream from error
        finally:
            self._lines.give_back(line)

    async def _request(self, scope: Scope, body: bytes | AsyncIterator[bytes] | None) -> Line:
        """Send the request and wait for the head of its answer; idempotent ones a second time when the connection failed."""
        head = _head(scope, self._host, body)
        once = not isinstance(body, bytes | None) or scope["method"] not in _IDEMPOTENT
        for last in (once, True):
            try:
                line = (None if last and not once else self._lines.kept()) or await self._lines.fresh()
            except (OSError, TimeoutError) as error:
                if last:
                    raise UpstreamUnavailable from error
                # Nothing was sent yet; a service that restarts is back in a moment.
                await asyncio.sleep(_RETRY_PAUSE)
                continue
            try:
                line.say(head, body if isinstance(body, bytes) else b"")
                if body is not None and not isinstance(body, bytes):
                    await _stream(line, scope, body)
                await line.head()
            except Broken as error:
                line.close()
                if last:
                    raise BadUpstream from error
            except BaseException:
                line.close()
                raise
            else:
                return line
        raise BadUpstream


def _target(scope: Scope) -> bytes:
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if query := scope["query_string"]:
        # A server may let raw bytes into a query; a URL may only hold them escaped (RFC 3986 2.1).
        target += b"?" + _ODD_BYTE.sub(lambda odd: b"%%%02X" % odd[0][0], query)
    return target


def _head(scope: Scope, host: bytes, body: bytes | AsyncIterator[bytes] | None) -> bytes:
    """The request's line and headers; how long its body is, is ours to say."""
    lines = [b"%b %b HTTP/1.1\r\n" % (scope["method"].encode(), _target(scope))]
    named = False
    for name, value in (*scope["headers"], *naming(scope)):
        if name not in _OWN:
            lines += (name, b": ", value, b"\r\n")
            named = named or name == b"host"
    if not named:
        lines += (b"host: ", host, b"\r\n")
    if isinstance(body, bytes):
        lines.append(b"content-length: %d\r\n" % len(body))
    elif body is not None:
        declared = _declared(scope)
        lines.append(b"transfer-encoding: chunked\r\n" if declared is None else b"content-length: %d\r\n" % declared)
    elif scope["method"] in _WITH_LENGTH:
        lines.append(b"content-length: 0\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def _declared(scope: Scope) -> int | None:
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(value) if value.isdigit() else None


async def _body(scope: Scope, receive: Receive) -> bytes | AsyncIterator[bytes] | None:
    """The whole body when it is already here, else an iterator over it; None without one."""
    if "heika.has_body" not in scope and not _declared(scope):
        return None
    first = await receive()
    if first.get("more_body", False):
        return _chunks(first.get("body", b""), receive)
    return first.get("body") or None


async def _chunks(first: bytes, receive: Receive) -> AsyncIterator[bytes]:
    yield first
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            # Ends the upstream's request unfinished, so that half a body is never taken for a whole one.
            raise ConnectionResetError
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


async def _stream(line: Line, scope: Scope, body: AsyncIterator[bytes]) -> None:
    chunked = _declared(scope) is None
    async for piece in body:
        if piece and not await line.add(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece):
            # It has answered without waiting for the rest, and will not read that from this connection.
            return
    if chunked:
        await line.add(b"0\r\n\r\n")


async def _answer(line: Line, scope: Scope, receive: Receive, send: Send) -> None:
    if line.route is not None and line.route != b"unmatched":
        # For the gateway's log and metrics, as if the route had been found in this process.
        scope["heika.route"] = line.route.decode("latin-1")
    start: dict[str, Any] = {"type": "http.response.start", "status": line.status, "headers": line.headers}
    if line.complete or (line.length is not None and line.length <= WHOLE):
        if not line.complete:
            await line.whole()
        await send(start)
        await send({"type": "http.response.body", "body": line.body})
        return
    await send(start)
    watcher = asyncio.ensure_future(_gone(receive, line))
    try:
        # Whatever has arrived goes on at once: an event must not wait for the next one.
        while piece := await line.piece():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        watcher.cancel()


async def _gone(receive: Receive, line: Line) -> None:
    """Hang up on the service when the caller has hung up on us."""
    while (await receive())["type"] != "http.disconnect":
        pass
    line.close()
