"""The pass-through: one request to one upstream, with a deadline until its answer starts."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from functools import lru_cache
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.deadlines import Deadlines
from gateway.etags import tag
from gateway.front import silence
from gateway.inbound import Inbound
from gateway.problems import BadUpstream, UpstreamTimeout
from gateway.refused import refuse
from gateway.routes import MIB, Route
from kit.connection import RequestTimeout
from kit.errors import Internal, PayloadTooLarge, Problem
from kit.http import HEAD_ONLY
from kit.metrics import BUCKETS, Timing

log = structlog.get_logger(__name__)

BODY_SECONDS: Final = 20.0
"""How long a body of ordinary size may take to arrive, and the longest pause inside an upload."""

FIRST_BYTE: Final = Timing(
    "heika_upstream_seconds",
    "Time until an upstream's answer starts; outcome is its class of status, or what was told instead",
    ["upstream", "outcome"],
    buckets=BUCKETS,
)

_CLASSES: Final = ("0xx", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx")
_NO_CONTENT: Final[Message] = {"type": "http.request", "body": b"", "more_body": False}
_OK: Final = 200
_NO_BODY: Final = (204, 304)

_deadlines = Deadlines()


class Exchange:
    """One pass through an upstream: what it has sent so far, and what its caller is told in its place.

    The upstream runs in the request's own task: a task of its own, a context and what waits for it would cost a third of
    what the gateway does. Who is to be told something else is answered from outside, and the call canceled: one that
    ignores that holds up nobody.
    """

    __slots__ = (
        *("_asked", "_inbound", "_limit", "_receive", "_scope", "_send", "_task", "began", "body", "canceled"),
        *("ended", "gone", "held", "problem", "started", "told", "upstream"),
    )

    def __init__(self, upstream: str, scope: Scope, inbound: Inbound, receive: Receive, send: Send) -> None:
        self.upstream = upstream
        self._scope = scope
        self._inbound = inbound
        self._receive = receive
        self._send = send
        self._asked = scope["method"]
        self._task = asyncio.current_task()
        self._limit = 0
        self.began = 0.0
        self.started = self.ended = self.canceled = self.gone = False
        self.held: Message | None = None
        self.body: Message | None = _NO_CONTENT
        self.problem: Problem | None = None
        self.told: asyncio.Task[None] | None = None

    async def expect_body(self, route: Route) -> bool:
        """Prepare what the upstream will receive; False when the caller is gone. Raises what refuses the body."""
        if self._inbound.content_length > route.body_limit:
            raise PayloadTooLarge
        if route.body_limit > MIB:
            self.body, self._limit = None, route.body_limit + 1
            return True
        # Small bodies are read here, so that a slow caller occupies nothing of a service.
        self.body = await read_body(self._receive, route.body_limit)
        gone: bool = self.body["type"] == "http.disconnect"
        return not gone

    def observe(self, outcome: str) -> None:
        """Measure how long the answer took to start, or to be given up."""
        _until(self.upstream, outcome).observe(time.perf_counter() - self.began)

    def expire(self) -> None:
        """The deadline has come: too late unless the answer has started."""
        if not self.started and self.problem is None:
            self.give_up(UpstreamTimeout())

    def give_up(self, problem: Problem) -> None:
        """Tell the caller this, unless an answer is on its way to them, and end the call."""
        if self.ended or self.problem is not None:
            return
        self.problem = problem
        if not self.started or self.held is not None:
            self.observe(problem.code)
            telling = refuse(problem, self._inbound, self._scope, self._receive, self._send)
            self.told = asyncio.create_task(telling, name="refusal")
        self.cancel()

    def cancel(self) -> None:
        """End the call, of which nothing more is expected."""
        if not self.canceled and self._task is not None:
            self.canceled = True
            self._task.cancel()

    async def give(self) -> Message:
        """The upstream's `receive`: the body read beforehand, then what comes from the caller."""
        if self.body is not None:
            message, self.body = self.body, None
            return message
        if not self._limit:
            # The body is given; an empty one that nobody had to read for it may still be there.
            while (message := await self._receive())["type"] != "http.disconnect":
                pass
            self.gone = True
            return message
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await self._receive()
        except TimeoutError:
            self.give_up(RequestTimeout())
            return {"type": "http.disconnect"}
        self.gone = message["type"] == "http.disconnect"
        self._limit -= len(message.get("body", b""))
        if self._limit <= 0:
            self.give_up(PayloadTooLarge())
            return {"type": "http.disconnect"}
        if not message.get("more_body", False):
            self._limit = 0
        return message

    def take(self, message: Message) -> Awaitable[None]:
        """The upstream's `send`."""
        if self.ended or self.problem is not None:
            return silence()
        if message["type"] == "http.response.start":
            return self._start(message)
        if self.held is not None:
            return self._release(self.held, message)
        if not message.get("more_body", False):
            self.ended = True
        return self._send(message)

    def _start(self, message: Message) -> Awaitable[None]:
        self.started = True
        status = message["status"]
        _until(self.upstream, _CLASSES[status // 100]).observe(time.perf_counter() - self.began)
        if not self._inbound.may_be_tagged and status not in _NO_BODY and self._asked != "HEAD":
            return self._send(message)
        whole, headers = False, []
        for pair in message.get("headers", ()):
            if pair[0] == b"content-length":
                if status in _NO_BODY:
                    continue
                whole = True
            headers.append(pair)
        start = {"type": "http.response.start", "status": status, "headers": headers}
        if status == _OK and whole and self._inbound.may_be_tagged:
            self.held = start
            return silence()
        # A stream asked for by HEAD has no end to wait for: its head is the whole answer.
        endless = self._asked == "HEAD" and not whole
        if status in _NO_BODY or endless:
            return self._finish(start, endless=endless and status not in _NO_BODY)
        return self._send(start)

    async def _release(self, start: Message, message: Message) -> None:
        """Send the head that waited for its body, and the body."""
        self.held = None
        more = message.get("more_body", False)
        if not more and tag(start, message.get("body", b""), self._inbound):
            message = {"type": "http.response.body", "body": b""}
        await self._send(start)
        self.ended = not more
        await self._send(message)

    async def _finish(self, start: Message, *, endless: bool) -> None:
        await self._send(start)
        self.ended = True
        await self._send({"type": "http.response.body", "body": b""})
        if endless:
            self.cancel()

    def judge(self, failure: BaseException | None, route: Route) -> None:
        """The call is over, and not as one should: raise what the caller is told instead of an answer."""
        if self.ended:
            log.info("a call ended after its caller was answered", error=type(failure).__name__)
        elif self.started and self.held is None:
            if self.gone:  # as whoever follows a stream ends it
                return
            # Half an answer is out: only breaking the connection tells the caller that it is not whole.
            raise ConnectionAbortedError("the answer broke off") from failure
        elif isinstance(failure, Problem):
            # A service in this process that failed answers 500, as one in another does, only that it is told here.
            self.observe(_CLASSES[5] if isinstance(failure, Internal) else failure.code)
            raise failure
        elif self.told is None:
            self.observe(BadUpstream.code)
            log.error("no answer from the service", service=route.service, prefix=route.prefix, exc_info=failure)
            raise BadUpstream from failure


async def forward(
    upstream: ASGIApp, route: Route, scope: Scope, inbound: Inbound, receive: Receive, send: Send
) -> None:
    """Pass one request to `upstream`; raises a Problem when there is no answer of its own to send."""
    exchange = Exchange(route.service, scope, inbound, receive, send)
    if inbound.has_body and not await exchange.expect_body(route):
        return
    exchange.began = time.perf_counter()
    inbound.served = upstream_scope(scope, inbound)
    expire = exchange.expire
    _deadlines.set(expire, route.deadline)
    failure: BaseException | None = None
    try:
        await upstream(inbound.served, exchange.give, exchange.take)
    except asyncio.CancelledError:
        if not exchange.canceled:
            raise
    except Exception as raised:  # noqa: BLE001 - judged below
        failure = raised
    finally:
        _deadlines.strike(expire)
    if exchange.canceled:
        await _come_back()
    if exchange.told is not None:
        await exchange.told
    elif failure is not None or not exchange.ended:
        exchange.judge(failure, route)


async def _come_back() -> None:
    """Take back our own cancellation, also where the call ended without hearing of it."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    if task is not None and task.uncancel():
        # Somebody else wants this request to end, too.
        raise asyncio.CancelledError


@lru_cache(maxsize=256)
def _until(upstream: str, outcome: str) -> Timing:
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


def upstream_scope(scope: Scope, inbound: Inbound) -> dict[str, Any]:
    """The scope the service sees: its own copy, with our headers, HEAD as GET, and no state of this app."""
    served = {
        **scope,
        "state": {},
        "extensions": {},
        "root_path": "",
        "headers": inbound.headers,
        "client": (inbound.address, 0) if inbound.address else None,
        "heika.has_body": inbound.has_body,
        "heika.request_id": inbound.request_id,
        "heika.traceparent": inbound.traceparent,
        "heika.parent": inbound.parent,
    }
    if inbound.judged:
        served["heika.caller"] = inbound.caller
    if served["method"] == "HEAD":
        served["method"] = "GET"
        served["headers"] = [*inbound.headers, (HEAD_ONLY.encode(), b"1")]
    return served
