"""A connection to a service, spoken by httptools: one request, its answer as it comes, and then the next request."""

import asyncio
from collections import deque
from typing import Final, cast

import httptools

from gateway.inbound import Headers
from kit.http import ROUTE

MOST_HELD: Final = 256 * 1024
"""How much of an answer waits here for a slow caller before the service has to wait; no head may be larger."""
CONTINUE: Final = 200

_DROPPED: Final = frozenset(
    {
        *(b"connection", b"date", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"server", b"te"),
        *(b"trailer", b"transfer-encoding", b"upgrade"),
    }
)


class Broken(Exception):
    """The service hung up, or spoke no HTTP."""


class Line(asyncio.Protocol):
    """One kept connection; `complete` when the answer has come to its end, `lost` when there is no connection any more."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.route: bytes | None = None
        self.length: int | None = None
        self.began = self.complete = self.keeps = False
        self._chunked = self._headed = False
        self._chunks: deque[bytes] = deque()
        self._held = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's do not inherit from asyncio's."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what has come; whoever waits hears of it."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()
        if not self._headed:
            self._held += len(data)
        if self._held > MOST_HELD:
            if not self._headed:
                self.close()
            elif self.transport is not None:
                self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end; of an answer without a length, too."""
        self.lost = True
        if self._headed and self.length is None and not self._chunked and exc is None:
            self.complete = True
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        """The service does not take more now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    def on_message_begin(self) -> None:
        """A head begins; what comes unasked is no answer to the next question."""
        if self.complete or not self.began:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head, or a trailer, which is dropped."""
        if self._headed:
            return
        name = name.lower()
        if name == b"content-length":
            self.length = int(value) if value.isdigit() else None
        elif name == b"transfer-encoding":
            self._chunked = True
        elif name == ROUTE:
            self.route = value
            return
        if name not in _DROPPED:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole, unless it only says that the answer is still to come (RFC 9110 15.2)."""
        if self._headed:
            return
        status = self._parser.get_status_code()
        if status < CONTINUE:
            self.headers, self.length, self._chunked = [], None, False
            return
        self.status, self._headed, self._held = status, True, 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self.complete:
            return
        self._chunks.append(body)
        self._held += len(body)

    def on_message_complete(self) -> None:
        """The answer has come to its end."""
        if self._headed and not self.complete:
            self.complete = True
            self.keeps = self._parser.should_keep_alive()

    def say(self, head: bytes, body: bytes) -> None:
        """Send a request; its body, too, unless it streams."""
        self._reset()
        self.began = True
        if self.lost or self.transport is None:
            raise Broken
        self.transport.write(head + body if body else head)

    async def add(self, piece: bytes) -> bool:
        """Send a piece of a body that streams; False when the answer, or the end, has come before all of it."""
        await self._writable.wait()
        if self.lost or self.status or self.transport is None:
            return False
        self.transport.write(piece)
        return True

    async def head(self) -> None:
        """Wait until the answer's status and headers are there; Broken when they do not come."""
        while not self._headed:
            if self.lost:
                raise Broken
            await self._wait()

    async def whole(self) -> None:
        """Wait for the whole body."""
        while not self.complete:
            if self.lost:
                raise Broken
            await self._wait()

    @property
    def body(self) -> bytes:
        """All that has come of the body."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    async def piece(self) -> bytes:
        """What has come of the body since, as soon as there is any; empty at its end."""
        while not self._chunks:
            if self.complete:
                return b""
            if self.lost:
                raise Broken
            await self._wait()
        found = b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        if self.transport is not None and not self.lost:
            self.transport.resume_reading()
        return found

    def close(self) -> None:
        """Hang up; whoever waits hears of it."""
        self.lost = True
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    def _wait(self) -> asyncio.Future[None]:
        self._waiter = self.loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Lines:
    """The kept connections to one service; the last one used is the next one taken."""

    def __init__(self, host: str, port: int, *, tls: bool, connect_seconds: float, idle_seconds: float) -> None:
        self._host, self._port = host, port
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._idle: list[Line] = []

    def kept(self) -> Line | None:
        """A connection that was kept, if there is one."""
        while self._idle:
            line = self._idle.pop()
            if not line.lost and line.loop.time() - line.idle_since < self._idle_seconds:
                return line
            line.close()
        return None

    async def fresh(self) -> Line:
        """A new connection; OSError or TimeoutError when there is none to be had."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_seconds):
            _, line = await loop.create_connection(Line, self._host, self._port, ssl=self._tls or None)
        return line

    def give_back(self, line: Line) -> None:
        """Keep it for the next request where both sides may."""
        if line.complete and line.keeps and not line.lost:
            line.began = False
            line.idle_since = line.loop.time()
            self._idle.append(line)
        else:
            line.close()

    def close(self) -> None:
        """Hang up on all."""
        for line in self._idle:
            line.close()
        self._idle.clear()
