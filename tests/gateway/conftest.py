"""Fixtures of the gateway's tests: one toy upstream behind every name, in this process or over HTTP."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from gateway.app import Gateway, build
from gateway.http_upstream import HttpUpstream
from gateway.routes import SERVICES
from gateway.ways import known
from kit.settings import Settings
from tests.gateway.toy import Toy, serving
from tests.onebox.conftest import Heika, any_heika


@dataclass
class Front:
    """A gateway under test, the toy behind it, and a client that talks to it over a real socket."""

    gateway: Gateway
    toy: Toy
    client: httpx.AsyncClient
    url: str


Start = Callable[..., AbstractAsyncContextManager[Front]]


@asynccontextmanager
async def _front(kind: str, upstreams: dict[str, ASGIApp] | None = None, **options: Any) -> AsyncIterator[Front]:
    toy = Toy()
    async with AsyncExitStack() as stack:
        app: ASGIApp = toy
        if kind == "http":
            upstream = HttpUpstream(await stack.enter_async_context(serving(toy)))
            stack.push_async_callback(upstream.close)
            app = upstream
        settings = Settings(**({"env": "sandbox"} | options))
        gateway = build(dict.fromkeys(SERVICES, app) | (upstreams or {}), settings)
        url = await stack.enter_async_context(serving(gateway))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=10.0, trust_env=False))
        yield Front(gateway, toy, client, url)


@pytest.fixture(autouse=True)
def _routes_found_anew() -> Iterator[None]:
    """Tests put routes of their own into the table, and what was found once is kept."""
    known.cache_clear()
    yield
    known.cache_clear()


@pytest.fixture(params=["in this process", "http"])
def start(request: pytest.FixtureRequest) -> Start:
    """A gateway over either kind of upstream; options are settings by field name."""

    def starts(**options: Any) -> AbstractAsyncContextManager[Front]:
        return _front(request.param, **options)

    return starts


@pytest.fixture
async def front(start: Start) -> AsyncIterator[Front]:
    """A gateway with default settings of the sandbox."""
    async with start() as front:
        yield front


@pytest.fixture
def start_here() -> Start:
    """Like `start`, only in this process; `upstreams` replaces some of them."""

    def starts(**options: Any) -> AbstractAsyncContextManager[Front]:
        return _front("in this process", **options)

    return starts


@pytest.fixture(scope="session")
def heika() -> Iterator[Heika]:
    """A whole Heika, started as a newcomer starts it; its tests share it and leave each other's things alone."""
    with any_heika() as started:
        started.start()
        yield started
