"""An upstream in another process: an ASGI app that passes bytes on over pooled HTTP connections, unchanged."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
from starlette.types import Receive, Scope, Send
from yarl import URL

from gateway.http_socket import pass_socket
from gateway.inbound import HOP_BY_HOP, Headers
from gateway.problems import BadUpstream, UpstreamUnavailable
from kit.http import ROUTE

WHOLE: Final = 64 * 1024
"""Answers up to this many bytes go on in one piece, so that they can be given a tag or compressed."""

# uvicorn closes idle connections after 5 s by default; ours must be given up before, or a request meets the reset.
_IDLE: Final = 3.5
_SKIP_AUTO: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_NOT_ANSWERED: Final = HOP_BY_HOP | {b"date", b"server", ROUTE}
_RETRY_PAUSE: Final = 0.05
_ODD_BYTE: Final = re.compile(rb"[^\x21-\x7e]")


class HttpUpstream:
    """The service at `base_url` (`http://host:port`); raises UpstreamUnavailable or BadUpstream before any answer."""

    def __init__(self, base_url: str, *, connect_timeout: float = 1.0) -> None:
        self.base_url = URL(base_url).origin()
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._session: aiohttp.ClientSession | None = None

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                # Without a limit: an open stream holds its connection for hours, and others must not wait for it.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE, ttl_dns_cache=10),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_SKIP_AUTO,
                timeout=self._timeout,
                max_line_size=32 * 1024,
                max_field_size=32 * 1024,
                trust_env=False,
            )
            # Its own retry would double ours, and send the rest of a stream as if it were the whole.
            self._session._retry_connection = False  # noqa: SLF001 - there is no public switch
        return self._session

    async def close(self) -> None:
        """Give up the pooled connections."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one HTTP request on and its answer back, or one WebSocket through."""
        if scope["type"] == "websocket":
            await pass_socket(self._pool(), self._target(scope), _headers(scope), scope, receive, send)
        if scope["type"] != "http":
            return
        body = await _body(scope, receive)
        response = await self._request(scope, body)
        try:
            await _answer(response, scope, receive, send)
        finally:
            # A body not read to its end must not be drained into the next answer on this connection.
            response.close()

    async def _request(self, scope: Scope, body: bytes | AsyncIterator[bytes] | None) -> aiohttp.ClientResponse:
        url, headers = self._target(scope), _headers(scope)
        for last in (False, True):
            try:
                return await self._pool().request(
                    scope["method"], url, headers=headers, data=body, allow_redirects=False
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                # Nothing was sent yet, so trying again repeats nothing; a service that restarts is back in a moment.
                if last or isinstance(body, AsyncIterator) or scope["method"] not in _IDEMPOTENT:
                    raise UpstreamUnavailable from error
                await asyncio.sleep(_RETRY_PAUSE)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if last or isinstance(body, AsyncIterator) or scope["method"] not in _IDEMPOTENT:
                    raise BadUpstream from error
            except (aiohttp.ClientError, ValueError) as error:
                raise BadUpstream from error
        raise BadUpstream

    def _target(self, scope: Scope) -> URL:
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        target = raw_path.decode("ascii")
        if query := scope["query_string"]:
            # A server may let raw bytes into a query; a URL may only hold them escaped (RFC 3986 2.1).
            target += "?" + _ODD_BYTE.sub(lambda odd: b"%%%02X" % odd[0][0], query).decode("ascii")
        return URL(f"{self.base_url}{target}", encoded=True)


_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


def _headers(scope: Scope) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), _text(value)) for name, value in scope["headers"]]


def _text(value: bytes) -> str:
    # aiohttp writes header text as UTF-8. Bytes that are not UTF-8 arrive as what they look like in Latin-1.
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _body(scope: Scope, receive: Receive) -> bytes | AsyncIterator[bytes] | None:
    """The whole body when it is already here, else an iterator over it; None without one."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
    if not scope.get("heika.has_body", length not in (None, b"0")):
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


async def _answer(response: aiohttp.ClientResponse, scope: Scope, receive: Receive, send: Send) -> None:
    if (route := response.headers.get("X-Heika-Route", "unmatched")) != "unmatched":
        # For the gateway's log and metrics, as if the route had been found in this process.
        scope["heika.route"] = route
    headers: Headers = [
        (lower, value) for name, value in response.raw_headers if (lower := name.lower()) not in _NOT_ANSWERED
    ]
    length = response.content_length
    start: dict[str, Any] = {"type": "http.response.start", "status": response.status, "headers": headers}
    if length is not None and length <= WHOLE:
        try:
            body = await response.read()
        except aiohttp.ClientError as error:
            raise BadUpstream from error
        response.release()
        await send(start)
        await send({"type": "http.response.body", "body": body})
        return
    await send(start)
    watcher = asyncio.ensure_future(_gone(receive, response))
    try:
        # Whatever has arrived goes on at once: an event must not wait for the next one.
        async for chunk in response.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        watcher.cancel()


async def _gone(receive: Receive, response: aiohttp.ClientResponse) -> None:
    """Hang up on the service when the caller has hung up on us."""
    while (await receive())["type"] != "http.disconnect":
        pass
    response.close()
