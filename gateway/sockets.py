"""WebSockets pass through like requests: routed, limited and judged once, before they open."""

import asyncio
from contextvars import Context
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.inbound import HOP_BY_HOP, Inbound
from gateway.problems import BadUpstream, ForeignOrigin, SocketRefused, UpstreamTimeout
from gateway.proxy import upstream_scope
from gateway.routes import Route
from kit.errors import Problem
from kit.wording import language_of

log = structlog.get_logger(__name__)

_DENIAL: Final = "websocket.http.response"
_TRY_AGAIN_LATER: Final = 1013
_BROKEN: Final = 1011
_REFUSED: Final = 1008


def require_known_origin(scope: Scope, inbound: Inbound, allowed: tuple[str, ...]) -> None:
    """Refuse with ForeignOrigin a page that is neither ours nor listed: browsers ask nobody before they open a socket."""
    if inbound.origin is None:
        return
    origin = inbound.origin.decode("latin-1")
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    if origin not in allowed and origin.partition("://")[2] != host:
        raise ForeignOrigin


async def deny(problem: Problem, inbound: Inbound, scope: Scope, send: Send) -> None:
    """Answer the handshake with a problem, or, where the server cannot, by closing."""
    if _DENIAL not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": _REFUSED})
        return
    response = problem.response(language_of(inbound.accept_language), inbound.request_id)
    headers = [*response.raw_headers, (b"x-request-id", inbound.request_id.encode()), *inbound.rate_limit]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})


class _Socket:
    """One socket on its way through: what the service said first, and whether it said anything."""

    def __init__(self, inbound: Inbound, send: Send) -> None:
        self.inbound = inbound
        self.send = send
        self.status = 0
        self.closed = self.refused = False
        self.answered = asyncio.Event()

    async def take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
        elif kind == "websocket.close":
            self.closed = True
            if not self.status:
                # Not sent on: the server would refuse without a word.
                self.refused = True
                self.answered.set()
                return
        if kind in ("websocket.accept", "websocket.http.response.start"):
            kept = [pair for pair in message.get("headers", ()) if pair[0] not in HOP_BY_HOP]
            message = {**message, "headers": [*kept, (b"x-request-id", self.inbound.request_id.encode())]}
        self.answered.set()
        await self.send(message)


async def forward_socket(
    upstream: ASGIApp, route: Route, scope: Scope, inbound: Inbound, receive: Receive, send: Send
) -> int:
    """Pass one WebSocket to `upstream` until it ends; its status, 101 when it opened. Raises a Problem instead of opening."""
    socket = _Socket(inbound, send)
    ours: dict[str, Any] = upstream_scope({**scope, "method": "GET"}, inbound)
    del ours["method"]
    ours |= {"type": "websocket", "subprotocols": scope.get("subprotocols", [])}
    ours["extensions"] = {_DENIAL: {}} if _DENIAL in scope.get("extensions", {}) else {}
    task: asyncio.Task[None] = asyncio.Task(upstream(ours, receive, socket.take), context=Context())  # type: ignore[arg-type]
    task.add_done_callback(lambda _: socket.answered.set())
    try:
        async with asyncio.timeout(route.deadline):
            await socket.answered.wait()
        await asyncio.wait({task})
    except TimeoutError:
        raise UpstreamTimeout from None
    finally:
        task.cancel()
    if socket.refused:
        raise SocketRefused
    failure = None if task.cancelled() else task.exception()
    if not socket.status:
        if isinstance(failure, Problem):
            raise failure
        raise BadUpstream from failure
    if failure is not None:
        log.warning("a socket broke", service=route.service, error=type(failure).__name__)
    if not socket.closed and socket.status == 101:  # noqa: PLR2004 - Switching Protocols
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER if failure is None else _BROKEN})
    return socket.status
