"""Finding a route by a table, and shortcuts: the hottest calls go from the door straight to their function."""

import inspect
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from fastapi import FastAPI, Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.error_answers import answer_to
from kit.idempotency import is_in_group

Answer = Callable[[Request], Awaitable[Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])

_FOUND = "heika.found"
_KEY = b"idempotency-key"

# Another spelling of an id, or no id at all, is for the framework to read or to refuse.
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_short: set[Callable[..., Any]] = set()


def shortcut(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint to be called without the framework's steps between the door and it; its documentation stays.

    It takes the request, UUIDs of its path, and what `Depends` makes of the request alone with nothing to close, and
    answers a Response. A request with a body goes the long way, and a POST with an Idempotency-Key unless it is answered
    in a group.
    """
    _short.add(endpoint)
    return endpoint


class Found(NamedTuple):
    """A route, and its shortcut if it has one."""

    route: APIRoute
    answer: Answer | None
    keyed: bool
    """Whether a request with a key takes the shortcut, too."""


class Routes:
    """The routes of an app by method and path, so that the last is found as fast as the first.

    A path without parameters comes before those with some. What is not found here the framework's own search may find.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._plain: dict[tuple[str, str], Found] = {}
        self._shaped: defaultdict[tuple[str, int], list[Found]] = defaultdict(list)
        for route in routes:
            # A parameter with a converter may hold slashes.
            if not isinstance(route, APIRoute) or ":" in route.path:
                continue
            answer = _answer_of(route) if route.endpoint in _short else None
            for method in route.methods or ():
                found = Found(route, answer, method != "POST" or is_in_group(route.endpoint))
                if route.param_convertors:
                    self._shaped[method, route.path.count("/")].append(found)
                else:
                    self._plain.setdefault((method, route.path), found)

    def find(self, method: str, path: str) -> tuple[Found, dict[str, str]] | None:
        """Who answers, and the path's parameters."""
        if plain := self._plain.get((method, path)):
            return plain, {}
        for shaped in self._shaped.get((method, path.count("/")), ()):
            if match := shaped.route.path_regex.match(path):
                return shaped, match.groupdict()
        return None


class Entrance:
    """The way in behind the door: finds the route, and takes the shortcut where there is one."""

    def __init__(self, app: FastAPI, long_way: ASGIApp) -> None:
        self.app = app
        self.long_way = long_way
        self.routes = Routes(app.router.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        match = self.routes.find(scope["method"], scope["path"])
        if match is None:
            await self.long_way(scope, receive, send)
            return
        found, scope["path_params"] = match
        scope["route"] = found.route
        if found.answer is None or _is_long(scope, keyed=found.keyed):
            scope[_FOUND] = found.route
            await self.long_way(scope, receive, send)
            return
        scope["app"] = self.app
        request = Request(scope, receive)
        try:
            response = await found.answer(request)
        except Exception as failure:  # noqa: BLE001 - what is no refusal is raised again
            response = await answer_to(request, failure)
        await response(scope, receive, send)


class FoundRoute:
    """Where the framework would search: goes on with the route that was found, or lets it search."""

    def __init__(self, router: ASGIApp) -> None:
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route: APIRoute | None = scope.get(_FOUND)
        # The framework's telemetry learns the route by its own search.
        if route is None or "fastapi.telemetry" in scope:
            await self.router(scope, receive, send)
            return
        scope["router"], scope["endpoint"] = self.router, route.endpoint
        await route.app(scope, receive, send)


def _is_long(scope: Scope, *, keyed: bool) -> bool:
    """Whether something is left to do that is the framework's or the route's: with a body, a key, an id spelled otherwise."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
        if name == _KEY and not keyed:
            return True
    return not all(_ID.fullmatch(value) for value in scope["path_params"].values())


def _answer_of(route: APIRoute) -> Answer:
    """Call the route's endpoint with what it takes; TypeError when it takes something that is not to be had here."""
    endpoint = route.endpoint
    needed: dict[str, Callable[[Request], Awaitable[Any]]] = {}
    ids: list[str] = []
    own: str | None = None
    for name, kind in get_type_hints(endpoint, include_extras=True).items():
        dependency = _dependency_of(kind)
        if dependency is not None:
            needed[name] = dependency
        elif kind is UUID and name in route.param_convertors:
            ids.append(name)
        elif kind is Request:
            own = name
        elif name != "return":
            raise TypeError(f"{endpoint.__name__} is no shortcut: it takes {name}")

    async def answer(request: Request) -> Response:
        values: dict[str, Any] = {name: UUID(request.path_params[name]) for name in ids}
        for name, dependency in needed.items():
            values[name] = await dependency(request)
        if own is not None:
            values[own] = request
        return cast("Response", await endpoint(**values))

    return answer


def _dependency_of(kind: Any) -> Callable[[Request], Awaitable[Any]] | None:
    """What `Annotated[..., Depends(what)]` calls, if it takes the request alone and is awaited for its value."""
    marks = [mark for mark in get_args(kind)[1:] if isinstance(mark, Depends)] if get_origin(kind) is Annotated else []
    if not marks:
        return None
    dependency: Any = marks[-1].dependency
    called = dependency if inspect.isfunction(dependency) else type(dependency).__call__
    if list(inspect.signature(dependency).parameters) != ["request"] or not inspect.iscoroutinefunction(called):
        raise TypeError(f"{dependency} needs more than the request")
    return cast("Callable[[Request], Awaitable[Any]]", dependency)
