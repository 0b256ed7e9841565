"""What the gateway adds to a request of its own process when the processor's caches are full of what a service did before.

Run: `python -m bench.gateway.cold` (half a minute). Called in a loop, gateway and envelope are as fast as they never are
between the work of services, which fills caches and predictors anew for every request. Here as much is done between two
calls, outside of what is timed: three statements are compiled, and three megabytes looked through.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import uvloop
from fastapi.routing import APIRoute
from sqlalchemy.dialects import postgresql
from sqlmodel import col, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.app import build
from gateway.routes import SERVICES
from kit import auth
from kit.http import Envelope, Inner
from kit.log import configure_logs
from kit.settings import Settings
from services.members.models import CheckIn

CALLS = 1500
CALLERS = 64
PATH = "/v1/me/check-ins"
BODY = b'{"items":[],"streak":0}'

_more_than_a_cache = bytearray(3 << 20)


async def _endpoint() -> None:
    """Stands where the service's own would."""


class Service:
    """Answers at once; with both ways in that a service has."""

    def __init__(self) -> None:
        self.inner = Inner(self._answer, service="members")
        self.door = Envelope(self._answer, service="members")
        self._route = APIRoute(PATH, _endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.door(scope, receive, send)

    async def _answer(self, scope: Scope, _: Receive, send: Send) -> None:
        scope["route"] = self._route
        headers = [(b"content-length", b"%d" % len(BODY)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})


def known_tokens() -> list[bytes]:
    """Tokens as long as real ones, of callers that were checked before."""
    tokens = [f"{number:0600x}" for number in range(CALLERS)]
    soon = int(time.time()) + 3600
    for token in tokens:
        auth.verified[token] = auth.Caller(uuid4(), "member", frozenset(), uuid4(), "", soon)
    return [token.encode() for token in tokens]


def scope_of(token: bytes) -> dict[str, Any]:
    """A request as uvicorn tells of it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
        "root_path": "",
        "method": "GET",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "state": {},
        "headers": [(b"host", b"127.0.0.1:8000"), (b"authorization", b"Bearer " + token)],
    }


def fill_the_caches() -> None:
    """Something else, and more of it than any cache near the processor holds."""
    for number in range(3):
        statement = select(CheckIn).where(col(CheckIn.streak) > number).order_by(col(CheckIn.day).desc()).limit(number)
        str(statement.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    _more_than_a_cache.count(b"x")


async def receive() -> Message:
    """No body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_: Message) -> None:
    """Nobody reads it."""


async def main() -> None:
    """Run it."""
    configure_logs("warning")
    service = Service()
    upstreams: dict[str, ASGIApp] = dict.fromkeys(SERVICES, service)
    apps: dict[str, ASGIApp] = {"service": service, "gateway": build(upstreams, Settings(env="sandbox"))}
    between: dict[str, Callable[[], Any]] = {"at once, again and again": bool, "after other work": fill_the_caches}
    tokens = known_tokens()
    for name, do in between.items():
        took: dict[str, list[float]] = {name: [] for name in apps}
        for number in range(CALLS):
            for way, app in apps.items():
                scope = scope_of(tokens[number % CALLERS])
                do()
                began = time.perf_counter()
                asked: Awaitable[None] = app(scope, receive, send)
                await asked
                took[way].append((time.perf_counter() - began) * 1e6)
        alone, through = (statistics.median(took[way]) for way in apps)
        print(f"{name:28}{alone:7.1f} µs alone{through:7.1f} through the gateway{through - alone:7.1f} more")


if __name__ == "__main__":
    uvloop.run(main())
