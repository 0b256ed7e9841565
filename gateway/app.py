"""The gateway's app: what happens to a request between the socket and the service that answers it."""

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import structlog
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import clock, docs, export, health, home
from gateway.front import EXPOSED, Stamp
from gateway.identity import KeySource, caller_at_front
from gateway.inbound import Inbound
from gateway.limits import STRICT, Limits
from gateway.own import Own
from gateway.problems import AmbiguousPath, NoSuchPath
from gateway.proxy import forward
from gateway.public_parts import PublicParts
from gateway.refused import refuse
from gateway.routes import SERVICES, PathTrick
from gateway.sockets import deny, forward_socket, require_known_origin
from gateway.ways import Way, way_of
from kit import garbage, spans
from kit.errors import Internal, MethodNotAllowed, Problem
from kit.http import log_request
from kit.log import configure_logs
from kit.metrics import serve_metrics
from kit.settings import Settings
from kit.wording import language_of

log = structlog.get_logger(__name__)

_ALLOWED: Final = (
    *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "Traceparent"),
    *("X-Request-Id", "X-Visitor-Id"),
)
_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_INBOUND: Final = "heika.inbound"
_CHANGES_HOME: Final = ("/v1/admin/", "/v1/sandbox/")


class Gateway:
    """Routes, guards and names every request; `upstreams` maps each service's name to an ASGI app."""

    def __init__(self, upstreams: Mapping[str, ASGIApp], settings: Settings) -> None:
        self.upstreams = dict(upstreams)
        # A service in this process has a shorter way in for requests that come from here.
        self._ways_in: dict[str, ASGIApp] = {name: getattr(app, "inner", app) for name, app in upstreams.items()}
        self.settings = settings
        self.keys = KeySource()
        self._proxies = settings.proxy_networks
        self._production = not settings.sandbox
        self._names_origins = bool(settings.allowed_origins)
        self._limits = Limits(settings.limits, settings.redis_url)
        self._own: dict[str, Own] = {}
        for part in (health, docs, clock, export):
            self._own |= part.endpoints(self.upstreams, settings)
        self._public = PublicParts(self.upstreams)
        self._own |= home.endpoints(self.upstreams, self._public)
        self._with_origin: ASGIApp = CORSMiddleware(
            self._serve_origin,
            allow_origins=settings.allowed_origins,
            allow_methods=_METHODS,
            allow_headers=_ALLOWED,
            allow_credentials=True,
            expose_headers=EXPOSED,
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        inbound = Inbound(scope, self._proxies)
        stamp = Stamp(
            inbound,
            send,
            head=scope["method"] == "HEAD",
            production=self._production,
            names_origins=self._names_origins,
        )
        try:
            if inbound.origin is None:
                await self._serve(inbound, scope, receive, stamp.send)
            else:
                await self._with_origin({**scope, _INBOUND: inbound}, receive, stamp.send)
        except ConnectionAbortedError:
            # Ends in the server, which closes the connection: half an answer must not look whole.
            raise
        except Exception:
            log.exception("request failed", service="gateway", request_id=inbound.request_id)
            if stamp.status:
                raise
            await refuse(Internal(), inbound, scope, receive, stamp.send)
        finally:
            stamp.log(scope)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        inbound = Inbound({**scope, "method": "GET"}, self._proxies)
        began, status, prefix = time.perf_counter(), 500, "unmatched"
        try:
            way = self._find(scope, inbound)
            route, prefix = way.route, way.route.prefix
            if route.service == "gateway":
                raise NoSuchPath
            require_known_origin(scope, inbound, self.settings.allowed_origins)
            await self._admit(inbound, way, "GET")
            upstream = self.upstreams[route.service]
            status = await forward_socket(upstream, route, scope, inbound, receive, send)
        except Problem as problem:
            status = problem.status
            await deny(problem, inbound, scope, send)
        finally:
            log_request(
                "gateway", inbound.named("WEBSOCKET") | {"heika.route": prefix}, status, time.perf_counter() - began
            )

    async def _serve_origin(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope.pop(_INBOUND), scope, receive, send)

    async def _serve(self, inbound: Inbound, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            way = self._find(scope, inbound)
            route = way.route
            inbound.prefix = route.prefix
            await self._admit(inbound, way, scope["method"])
            if route.service == "gateway":
                await self._answer(scope["path"], scope, inbound, receive, send)
            else:
                await forward(self._ways_in[route.service], route, scope, inbound, receive, send)
        except Problem as problem:
            await refuse(problem, inbound, scope, receive, send)
            # What got no good answer may have changed something all the same.
            if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return
        if scope["method"] not in _SAFE and scope["path"].startswith(_CHANGES_HOME):
            self._public.forget()

    def _find(self, scope: Scope, inbound: Inbound) -> Way:
        """The way of the path, which `scope` then holds decoded; a path that leads nowhere is counted as well."""
        try:
            way = way_of(scope.get("raw_path") or scope["path"].encode())
        except PathTrick:
            inbound.rate_limit = self._limits.use("general", inbound.address, None)
            raise AmbiguousPath from None
        if way is None:
            inbound.rate_limit = self._limits.use("general", inbound.address, None)
            raise NoSuchPath
        scope["path"] = way.path
        return way

    async def _admit(self, inbound: Inbound, way: Way, method: str) -> None:
        """Count the request against the limits of its address and caller, and refuse what its token does not allow."""
        limit_class = way.reading if method in _SAFE else way.changing
        try:
            inbound.caller = caller = await caller_at_front(inbound, way.route, self.keys)
        except Problem:
            # Guessing tokens is counted as well, and so is knocking with a frozen account.
            inbound.rate_limit = await self._limits.admit(limit_class, inbound.address, None)
            raise
        name = caller.name if caller is not None else None
        if limit_class in STRICT:
            inbound.rate_limit = await self._limits.admit(limit_class, inbound.address, name)
        else:
            inbound.rate_limit = self._limits.use(limit_class, inbound.address, name)
        if caller is not None and caller.only_looks:
            caller.require_may(method)

    async def _answer(self, path: str, scope: Scope, inbound: Inbound, receive: Receive, send: Send) -> None:
        own = self._own.get(path)
        if own is None:
            raise NoSuchPath
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint = own.get(method)
        if endpoint is None:
            response = MethodNotAllowed().response(language_of(inbound.accept_language), inbound.request_id)
            response.headers["Allow"] = ", ".join(sorted({*own, "HEAD"} if "GET" in own else own))
        else:
            response = await endpoint(scope, inbound, receive)
        await response(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        serve_metrics(self.settings.metrics_port, self.settings.metrics_host)
        spans.start(self.settings)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._limits.close()
        spans.switch_off()
        for upstream in self.upstreams.values():
            close: Callable[[], Awaitable[None]] | None = getattr(upstream, "close", None)
            if close is not None:
                with contextlib.suppress(OSError):
                    await close()
        await send({"type": "lifespan.shutdown.complete"})


def build(upstreams: Mapping[str, ASGIApp], settings: Settings) -> Gateway:
    """The gateway in front of these upstreams; ValueError when a service of the route table is missing."""
    if missing := [name for name in SERVICES if name not in upstreams]:
        raise ValueError(f"no upstream for {', '.join(missing)}")
    return Gateway(upstreams, settings)


def app() -> Gateway:
    """The gateway of a process of its own; `HEIKA_UPSTREAM_<SERVICE>` holds each service's address."""
    settings = Settings()
    configure_logs(settings.log_level)
    garbage.settle()
    names = {name: f"HEIKA_UPSTREAM_{name.upper()}" for name in SERVICES}
    if missing := [variable for variable in names.values() if not os.environ.get(variable)]:
        raise ValueError(f"set {', '.join(missing)} to the addresses of the services, such as http://members:8000")
    # One process needs no HTTP client between gateway and services, and starts sooner without.
    from gateway.circuit import Circuit  # noqa: PLC0415
    from gateway.http_upstream import HttpUpstream  # noqa: PLC0415

    addresses = {name: os.environ[variable] for name, variable in names.items()}
    gateway = build({name: Circuit(name, HttpUpstream(address)) for name, address in addresses.items()}, settings)
    gateway.keys.fetch_through(gateway.upstreams["members"])
    return gateway
