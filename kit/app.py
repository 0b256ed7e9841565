"""The application factory: a service is a name, its routers, its event handlers and its periodic work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy import MetaData, text
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from kit import auth, clock, garbage, health, sandbox, spans
from kit.consume import FAILED, Consumer, Handler
from kit.db import Database
from kit.due import Due, keep_running
from kit.error_answers import install_errors
from kit.events import Event
from kit.export import Export, export_router
from kit.http import Envelope, Inner, json_response
from kit.idempotency import IdempotentRoute, purge_keys
from kit.log import configure_logs
from kit.metrics import serve_metrics
from kit.openapi import operation_id, service_document
from kit.relay import Relay
from kit.revocations import revocations
from kit.routing import Entrance, FoundRoute, shortcut
from kit.settings import Network, ServiceSettings
from kit.strict import StrictRoute

log = structlog.get_logger(__name__)

REVOCATIONS_EVERY_S = 1.0

__all__ = ["Due", "Runtime", "RuntimeDep", "Service", "create_app", "json_response", "router", "shortcut"]


@dataclass(frozen=True)
class Service:
    """A service's table of contents.

    `listeners` names the services that listen to this one (its stream is trimmed only behind all of them); `start` are
    context managers entered with the runtime for the life of the process; `seed` fills the sandbox's world, idempotently.
    A member's export holds the rows with their `member_id`; `personal` names others by table, as SQL conditions, and
    `export` replaces the whole. `webhooks` documents what this service calls, by routes that nobody can call.
    """

    name: str
    title: str
    settings: type[ServiceSettings]
    metadata: MetaData
    routers: Sequence[APIRouter]
    handlers: Mapping[type[Event], Sequence[Handler]] = field(default_factory=dict)
    due: Sequence[Due] = ()
    seed: "Callable[[Runtime], Awaitable[None]] | None" = None
    start: "Sequence[Callable[[Runtime], AbstractAsyncContextManager[Any]]]" = ()
    listeners: frozenset[str] = frozenset()
    sandbox_routers: Sequence[APIRouter] = ()
    webhooks: APIRouter | None = None
    export: Export | None = None
    personal: Mapping[str, str] = field(default_factory=dict)


class Runtime:
    """What a running service holds: settings, connections, relay and consumer; and whatever its `start` adds to `state`.

    `done` counts the rows that periodic work did in this process.
    """

    def __init__(self, service: Service, settings: Any) -> None:
        self.service = service.name
        self.settings = settings
        self.db = Database(settings.database_url, name=service.name, pool_size=settings.pool_size)
        self.redis = _redis(settings.redis_url, socket_timeout=2.0)
        # A blocking read must outlast its own BLOCK, and must not hold back the quick commands of the others.
        self.blocking_redis = _redis(settings.redis_url, socket_timeout=5.0)
        self.relay = Relay(self, service.listeners)
        self.consumer = Consumer(self, service.handlers)
        self.state: dict[str, Any] = {}
        self.done = 0
        self.due: tuple[Due, ...] = (
            *service.due,
            Due("retry events", _retry_events, next_at=_next_retry, waits=FAILED),
            *_HOUSEKEEPING,
        )

    async def close(self) -> None:
        """Give back the connections."""
        await self.redis.aclose()
        await self.blocking_redis.aclose()
        await self.db.close()


async def _retry_events(runtime: Runtime) -> int:
    return await runtime.consumer.retry_due()


async def _next_retry(runtime: Runtime) -> datetime | None:
    return await runtime.consumer.next_retry()


async def _purge_keys(runtime: Runtime) -> int:
    async with runtime.db.session() as session, session.begin():
        return await purge_keys(session)


async def _forget_inbox(runtime: Runtime) -> int:
    return await runtime.consumer.forget()


_HOUSEKEEPING = (
    Due("purge idempotency keys", _purge_keys, every_s=300.0, by_portions=True),
    Due("forget handled events", _forget_inbox, every_s=3600.0, by_portions=True),
)


def _redis(url: str, *, socket_timeout: float) -> Redis:
    # redis-py's own retry writes an XADD twice when a reply is cut; we retry above it, deduplicating by event id.
    return Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=socket_timeout,
        socket_connect_timeout=2.0,
        health_check_interval=0,
    )


def runtime_of(request: Request) -> Runtime:
    """The running service that this request came to."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


RuntimeDep = Annotated[Runtime, Depends(_runtime)]


def router(*, idempotent: bool = True, **options: Any) -> APIRouter:
    """A router of strict routes; its POSTs honour Idempotency-Key unless their answers must not be stored."""
    kind = IdempotentRoute if idempotent else StrictRoute
    return APIRouter(route_class=kind, generate_unique_id_function=operation_id, **options)


class App(FastAPI):
    """FastAPI behind the envelope: routes are found by a table, and shortcuts taken, before its own steps begin."""

    door: ASGIApp
    inner: ASGIApp

    def build_middleware_stack(self) -> ASGIApp:
        """What lies behind the door; what FastAPI puts around it, the envelope does."""
        within = AsyncExitStackMiddleware(FoundRoute(self.router))
        return ExceptionMiddleware(within, handlers=self.exception_handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif "heika.request_id" in scope:
            await self.inner(scope, receive, send)
        else:
            await self.door(scope, receive, send)

    def open(self, service: str, proxies: Sequence[Network]) -> None:
        """Let requests in; every route must be there."""
        entrance = Entrance(self, super().__call__)
        self.door = Envelope(entrance, service=service, proxies=proxies)
        self.inner = Inner(entrance, service=service)


def create_app(service: Service, settings: ServiceSettings | None = None) -> FastAPI:
    """The service as an ASGI app; settings come from the environment unless given."""
    settings = settings or service.settings()
    app = App(
        title=service.title,
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
        separate_input_output_schemas=False,
        # A redirect would name the host that the caller named.
        redirect_slashes=False,
        webhooks=service.webhooks,
    )
    app.state.service = service
    app.state.settings = settings
    install_errors(app)
    routers = [*service.routers, health.router, export_router(service, runtime_of)]
    if settings.sandbox:
        routers += [*service.sandbox_routers, sandbox.router]
    # Their routes themselves: to include a router is to build, and to search, each of its routes twice.
    app.router.routes += [route for item in routers for route in item.routes]
    app.openapi = lambda: service_document(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    app.open(service.name, settings.proxy_networks)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    settings: ServiceSettings = app.state.settings
    configure_logs(settings.log_level)
    clock.set_zone(settings.zone)
    settings.limits  # noqa: B018 - a forbidden combination must stop the start, not a request
    runtime = app.state.runtime = Runtime(service, settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runtime.close)
        auth.keys.fetch_from(settings.jwks_url)
        if settings.sandbox:
            await sandbox.restore_clock(runtime)
        for start in service.start:
            await stack.enter_async_context(start(runtime))
        if settings.sandbox and service.seed is not None:
            await _seed(runtime, service.seed)
        if settings.background:
            await stack.enter_async_context(_background(runtime))
        serve_metrics(settings.metrics_port, settings.metrics_host)
        spans.start(settings)
        stack.callback(spans.switch_off)
        if settings.background:
            garbage.settle()
        yield


async def _seed(runtime: Runtime, seed: Callable[[Runtime], Awaitable[None]]) -> None:
    """Fill the sandbox's world; processes that start at once do it one after the other."""
    async with runtime.db.engine.connect() as connection:
        await connection.execute(text("SELECT pg_advisory_lock(hashtext('heika seed'))"))
        try:
            await seed(runtime)
        finally:
            await connection.execute(text("SELECT pg_advisory_unlock(hashtext('heika seed'))"))


@asynccontextmanager
async def _background(runtime: Runtime) -> AsyncIterator[None]:
    work = [
        runtime.db.pulse.watch(runtime.db.raw),
        runtime.relay.run(),
        runtime.consumer.run(),
        _poll_revocations(runtime),
    ]
    work += keep_running(runtime, runtime.due)
    tasks = [asyncio.create_task(item) for item in work]
    try:
        yield
    finally:
        # Before Python 3.12 asyncio.wait_for, which the drivers use, can swallow a cancellation: ask until all have heard.
        left = set(tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.5)


async def _poll_revocations(runtime: Runtime) -> None:
    while True:
        # Of several services in one process one asks for all.
        if revocations.is_old(REVOCATIONS_EVERY_S / 2):
            await revocations.poll(runtime.redis)
        await asyncio.sleep(REVOCATIONS_EVERY_S)
