"""The HTTP edge of every process: request ids, client addresses, the request log, JSON answers, ETags."""

import time
from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

import structlog
from fastapi import Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit import spans, trace
from kit.errors import Internal, StaleVersion
from kit.ids import new_id
from kit.log import is_said, say_quickly
from kit.metrics import REQUEST_SECONDS, Timing
from kit.settings import Network
from kit.text import dump_json
from kit.wording import language_of

log = structlog.get_logger("heika.request")

HEAD_ONLY = "x-heika-head"
"""What the gateway, which asks services by GET where it was asked by HEAD, says so with: nothing may be used up."""
ROUTE = b"x-heika-route"
"""How a service in a process of its own tells the gateway, which keeps it, which route it was."""
PROBES = frozenset({"/healthz", "/readyz"})


def resolve_client(peer: str, forwarded_for: str, proxies: Sequence[Network]) -> str:
    """The caller's address: the socket's, or, behind trusted proxies, the rightmost hop that is not one of them."""
    if not proxies or not _inside(peer, proxies):
        return peer
    for hop in reversed([item.strip() for item in forwarded_for.split(",") if item.strip()]):
        if not _is_address(hop):
            return peer
        peer = hop
        if not _inside(hop, proxies):
            return hop
    return peer


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _inside(address: str, networks: Sequence[Network]) -> bool:
    if not _is_address(address):
        return False
    parsed = ip_address(address)
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed.version == network.version and parsed in network for network in networks)


def client_address(request: Request) -> str:
    """The caller's address as `Envelope` (or the gateway before it) resolved it; "unknown" for a socket without one."""
    return request.client.host if request.client else "unknown"


class Envelope:
    """The outermost layer of a process: names the request, resolves its caller's address, logs it, and never leaks a trace."""

    def __init__(self, app: ASGIApp, *, service: str, proxies: Sequence[Network] = ()) -> None:
        self.app = app
        self.service = service
        self.proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._name(scope)
        request_id = scope["heika.request_id"]
        trace.enter(request_id, scope["heika.traceparent"])
        status = 0

        def watched(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                route = route_template(scope).encode("latin-1", "replace")
                named = ((b"x-request-id", request_id.encode()), (ROUTE, route))
                message["headers"] = [*message.get("headers", ()), *named]
            return send(message)

        started = time.perf_counter()
        try:
            await self.app(scope, receive, watched)
        except Exception:
            log.exception("request failed", service=self.service, method=scope["method"], route=route_template(scope))
            if status:
                raise
            language = language_of(Headers(scope=scope).get("accept-language", ""))
            await Internal().response(language, request_id)(scope, receive, watched)
        finally:
            log_request(self.service, scope, status, time.perf_counter() - started)

    def _name(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        incoming = headers.get("x-request-id", "")
        scope["heika.request_id"] = incoming if trace.is_request_id(incoming) else str(new_id())
        scope["heika.parent"] = headers.get("traceparent")
        scope["heika.traceparent"] = trace.next_traceparent(scope["heika.parent"])
        if self.proxies and scope.get("client"):
            peer, port = scope["client"]
            scope["client"] = (resolve_client(peer, ",".join(headers.getlist("x-forwarded-for")), self.proxies), port)


class Inner:
    """What an `Envelope` would do behind a layer of this process that has named the request, and measures and logs it.

    That layer is raised Internal for what fails, and tells the caller of it.
    """

    def __init__(self, app: ASGIApp, *, service: str) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            if spans.tell is None:
                trace.enter(scope["heika.request_id"], scope.get("heika.traceparent"))
                await self.app(scope, receive, send)
            else:
                await self._with_span(scope, receive, send)
        except Exception as failure:
            log.exception("request failed", service=self.service, method=scope["method"], route=route_template(scope))
            raise Internal from failure

    async def _with_span(self, scope: Scope, receive: Receive, send: Send) -> None:
        parent = scope.get("heika.traceparent")
        mine = spans.child_of(parent)
        trace.enter(scope["heika.request_id"], mine)
        status = Internal.status

        def watched(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        started = time.perf_counter()
        try:
            await self.app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - started
            spans.request(self.service, scope["method"], route_template(scope), status, seconds, mine, parent)


def route_template(scope: Mapping[str, Any]) -> str:
    """The route's pattern, such as `/v1/orders/{id}`; logs and metrics never carry a path's own ids."""
    named: str | None = scope.get("heika.route")
    if named:
        return named
    return getattr(scope.get("route"), "path", None) or "unmatched"


def log_request(service: str, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
    """One line and one measurement a request; never its query string, headers or body."""
    route = route_template(scope)
    _seconds_of(service, scope["method"], route, status).observe(seconds)
    if spans.tell is not None:
        ids = (scope.get("heika.traceparent"), scope.get("heika.parent"))
        spans.request(service, scope["method"], route, status, seconds, *ids)
    # Probes ask every second, and say nothing when all is well.
    level = "debug" if route in PROBES and status == HTTPStatus.OK else "info"
    if not is_said(level):
        return
    say_quickly(
        level,
        {
            "service": service,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "request_id": scope["heika.request_id"],
            "trace": (scope.get("heika.traceparent") or "").split("-")[1:2],
            "event": "request",
        },
    )


@lru_cache(maxsize=4096)
def _seconds_of(service: str, method: str, route: str, status: int) -> Timing:
    # Looking the labels up takes as long as counting.
    return REQUEST_SECONDS.labels(service, method, route, str(status))


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A ready answer, serialised once; for hot reads, past the response model."""
    return Response(dump_json(value), status, headers, media_type="application/json")


def cacheable(request: Request, value: Any, *, max_age_s: int = 30) -> Response:
    """A public answer with an ETag over its content; 304 when the caller holds it already (RFC 9110 13.1.2)."""
    content = value if isinstance(value, bytes) else dump_json(value)
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={max_age_s}", "Vary": "Accept-Language"}
    held = {item.strip().removeprefix("W/") for item in request.headers.get("if-none-match", "").split(",")}
    if tag in held or "*" in held:
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, media_type="application/json")


def version_tag(version: int) -> str:
    """The ETag of an admin resource: its version, quoted."""
    return f'"{version}"'


def require_version(request: Request, version: int) -> None:
    """Refuse with StaleVersion when the caller's If-Match (RFC 9110 13.1.1) names another version than the one held."""
    wanted = request.headers.get("if-match")
    if wanted is None:
        return
    tags = {item.strip() for item in wanted.split(",")}
    if "*" not in tags and version_tag(version) not in tags:
        raise StaleVersion
