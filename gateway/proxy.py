"""The pass-through: one request to one upstream, in a task of its own, with a deadline until its answer starts."""

import asyncio
import time
from contextvars import Context
from functools import lru_cache
from typing import Any, Final

import structlog
from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.etags import tag
from gateway.inbound import HOP_BY_HOP, Headers, Inbound
from gateway.problems import BadUpstream, UpstreamTimeout
from gateway.routes import MIB, Route
from kit.connection import RequestTimeout
from kit.errors import PayloadTooLarge, Problem
from kit.http import HEAD_ONLY
from kit.metrics import BUCKETS

log = structlog.get_logger(__name__)

BODY_SECONDS: Final = 20.0
"""How long a body of ordinary size may take to arrive, and the longest pause inside an upload."""

FIRST_BYTE: Final = Histogram(
    "heika_upstream_seconds",
    "Time until an upstream's answer starts; outcome is its class of status, or what was told instead",
    ["upstream", "outcome"],
    buckets=BUCKETS,
)

_OK: Final = 200
_NO_BODY: Final = (204, 304)

# The event loop holds tasks weakly: a call that outlives its deadline would be collected while it winds down.
_winding_down: set[asyncio.Task[None]] = set()


class Exchange:
    """One pass through an upstream: what it has sent so far, and who waits for its end."""

    __slots__ = (
        *("began", "body", "ended", "head", "held", "inbound", "outcome", "receive", "send", "started"),
        *("stream_limit", "upstream"),
    )

    def __init__(
        self, upstream: str, inbound: Inbound, receive: Receive, send: Send, outcome: asyncio.Future[Problem | None]
    ) -> None:
        self.upstream = upstream
        self.began = 0.0
        self.inbound = inbound
        self.receive = receive
        self.send = send
        self.outcome = outcome
        self.started = self.ended = self.head = False
        self.held: Message | None = None
        self.body: Message | None = None
        self.stream_limit = 0

    def observe(self, outcome: str) -> None:
        """Measure how long the answer took to start, or to be given up."""
        _until(self.upstream, outcome).observe(time.perf_counter() - self.began)

    def settle(self, problem: Problem | None) -> None:
        """Say how it ended; only the first to say so counts."""
        if not self.outcome.done():
            self.outcome.set_result(problem)

    def over(self, _: asyncio.Task[None]) -> None:
        """The call has returned or failed; `forward` looks which."""
        self.settle(None)

    def expire(self) -> None:
        """The deadline has come: too late unless the answer has started."""
        if not self.started:
            self.settle(UpstreamTimeout())

    async def give(self) -> Message:
        """The upstream's `receive`: the body read beforehand, then what comes from the caller."""
        if self.body is not None:
            message, self.body = self.body, None
            return message
        if not self.stream_limit:
            # The body is given; an empty one that nobody had to read for it may still be there.
            while (message := await self.receive())["type"] != "http.disconnect":
                pass
            return message
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await self.receive()
        except TimeoutError:
            self.settle(RequestTimeout())
            return {"type": "http.disconnect"}
        self.stream_limit -= len(message.get("body", b""))
        if self.stream_limit <= 0:
            self.settle(PayloadTooLarge())
            return {"type": "http.disconnect"}
        if not message.get("more_body", False):
            self.stream_limit = 0
        return message

    async def take(self, message: Message) -> None:
        """The upstream's `send`."""
        if self.outcome.done():
            return
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self.ended:
            return
        else:
            await self._body(message)

    async def _start(self, message: Message) -> None:
        self.started = True
        status = message["status"]
        self.observe(f"{status // 100}xx")
        headers: Headers = [pair for pair in message.get("headers", ()) if pair[0] not in HOP_BY_HOP]
        if status in _NO_BODY:
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        start = {"type": "http.response.start", "status": status, "headers": headers}
        whole = any(pair[0] == b"content-length" for pair in headers)
        if self.head and not whole:
            # A stream has no end to wait for: its head is the whole answer.
            await self.send(start)
            await self._finish()
        elif status == _OK and whole and self.inbound.tagging:
            self.held = start
        else:
            await self.send(start)
            if status in _NO_BODY:
                await self._finish()

    async def _body(self, message: Message) -> None:
        more = message.get("more_body", False)
        if self.held is not None:
            start, self.held = self.held, None
            if not more and tag(start, message.get("body", b""), self.inbound):
                message = {"type": "http.response.body", "body": b""}
            await self.send(start)
        self.ended = not more
        await self.send(message)
        if not more:
            self.settle(None)

    async def _finish(self) -> None:
        self.ended = True
        await self.send({"type": "http.response.body", "body": b""})
        self.settle(None)


@lru_cache(maxsize=256)
def _until(upstream: str, outcome: str) -> Histogram:
    return FIRST_BYTE.labels(upstream, outcome)


async def read_body(receive: Receive, limit: int) -> Message:
    """The whole body as one message; raises PayloadTooLarge past `limit` bytes and RequestTimeout when it dawdles."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _gather(receive, limit)
    except TimeoutError as error:
        raise RequestTimeout from error


async def _gather(receive: Receive, limit: int) -> Message:
    message = await receive()
    if not message.get("more_body", False):
        if len(message.get("body", b"")) > limit:
            raise PayloadTooLarge
        return message
    parts = [message.get("body", b"")]
    size = len(parts[0])
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise PayloadTooLarge
    return {"type": "http.request", "body": b"".join(parts), "more_body": False}


async def _expect_body(exchange: Exchange, route: Route) -> bool:
    """Prepare what the upstream will receive; False when the caller is gone. Raises what refuses the body."""
    inbound = exchange.inbound
    if not inbound.has_body:
        exchange.body = {"type": "http.request", "body": b"", "more_body": False}
        return True
    if inbound.content_length > route.body_limit:
        raise PayloadTooLarge
    if route.body_limit > MIB:
        exchange.stream_limit = route.body_limit + 1
        return True
    # Small bodies are read here, so that a slow caller occupies nothing of a service.
    exchange.body = await read_body(exchange.receive, route.body_limit)
    gone: bool = exchange.body["type"] == "http.disconnect"
    return not gone


async def forward(
    upstream: ASGIApp, route: Route, scope: Scope, inbound: Inbound, receive: Receive, send: Send
) -> None:
    """Pass one request to `upstream`; raises a Problem when there is no answer of its own to send."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Problem | None] = loop.create_future()
    exchange = Exchange(route.service, inbound, receive, send, outcome)
    exchange.head = scope["method"] == "HEAD"
    if not await _expect_body(exchange, route):
        return
    exchange.began = time.perf_counter()
    inbound.served = upstream_scope(scope, inbound)
    call = upstream(inbound.served, exchange.give, exchange.take)
    # An empty context: nothing that this process keeps in context variables shows up in a service.
    task: asyncio.Task[None] = asyncio.Task(call, loop=loop, context=Context())  # type: ignore[arg-type]
    timer = loop.call_later(route.deadline, exchange.expire)
    task.add_done_callback(exchange.over)
    try:
        problem = await outcome
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        timer.cancel()
    if not task.done():
        # After a whole answer the rest is work the service does behind it; a stream cut to its head has no rest.
        _wind_down(task, cancel=problem is not None or exchange.head)
    elif problem is None:
        _look_at_end(task, exchange, route)
    else:
        _forget(task)
    if problem is not None:
        if exchange.started:
            raise ConnectionAbortedError(problem.code)
        exchange.observe(problem.code)
        raise problem


def _wind_down(task: asyncio.Task[None], *, cancel: bool) -> None:
    _winding_down.add(task)
    task.add_done_callback(_winding_down.discard)
    task.add_done_callback(_forget)
    if cancel:
        task.cancel()


def _look_at_end(task: asyncio.Task[None], exchange: Exchange, route: Route) -> None:
    """Judge a call that is over: an answer, or raise what the caller is told instead."""
    failure = None if task.cancelled() else task.exception()
    if exchange.ended:
        return
    if exchange.started and exchange.held is None:
        # Half an answer is out: only breaking the connection tells the caller that it is not whole.
        raise ConnectionAbortedError("the answer broke off") from failure
    if isinstance(failure, Problem):
        exchange.observe(failure.code)
        raise failure
    exchange.observe(BadUpstream.code)
    log.error("no answer from the service", service=route.service, prefix=route.prefix, exc_info=failure)
    raise BadUpstream from failure


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.info("a call ended after its caller was answered", error=type(failure).__name__)


def upstream_scope(scope: Scope, inbound: Inbound) -> dict[str, Any]:
    """The scope the service sees: its own copy, with our headers, HEAD as GET, and no state of this app."""
    method, headers = scope["method"], inbound.headers
    if method == "HEAD":
        headers = [*headers, (HEAD_ONLY.encode(), b"1")]
    return {
        "type": "http",
        "asgi": scope.get("asgi", {"version": "3.0", "spec_version": "2.3"}),
        "http_version": scope.get("http_version", "1.1"),
        "method": "GET" if method == "HEAD" else method,
        "scheme": scope.get("scheme", "http"),
        "path": scope["path"],
        "raw_path": scope.get("raw_path"),
        "query_string": scope.get("query_string", b""),
        "root_path": "",
        "headers": headers,
        "client": (inbound.address, 0) if inbound.address else None,
        "server": scope.get("server"),
        "heika.gateway": True,
        "heika.has_body": inbound.has_body,
        "heika.request_id": inbound.request_id,
        "heika.traceparent": inbound.traceparent,
        "heika.parent": inbound.parent,
    }
