"""Finding a route by a table, and shortcuts: the hottest calls go from the door straight to their function."""

import inspect
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kit.error_answers import answer_to
from kit.idempotency import is_in_group
from kit.strict import JSON_LIMIT

Answer = Callable[[Request, BaseModel | None], Awaitable[Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])

_FOUND = "heika.found"
_KEY = b"idempotency-key"

# Another spelling of an id, or no id at all, is for the framework to read or to refuse.
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_short: set[Callable[..., Any]] = set()


def shortcut(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint to be called without the framework's steps between the door and it; its documentation stays.

    It takes the request, UUIDs of its path, one JSON body of a pydantic model, and what `Depends` makes of the request
    alone with nothing to close, and answers a Response. A body that is not exactly what it takes goes the long way, where
    it is refused, and so does a POST with an Idempotency-Key unless it is answered in a group.
    """
    _short.add(endpoint)
    return endpoint


class Found(NamedTuple):
    """A route, and its shortcut if it has one."""

    route: APIRoute
    answer: Answer | None
    keyed: bool
    """Whether a request with a key takes the shortcut, too."""
    body: type[BaseModel] | None
    """What the shortcut takes as a body."""


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
            answer, body = _answer_of(route) if route.endpoint in _short else (None, None)
            for method in route.methods or ():
                found = Found(route, answer, method != "POST" or is_in_group(route.endpoint), body)
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
        body: BaseModel | None = None
        if found.answer is None or _is_long(scope, found):
            scope[_FOUND] = found.route
            await self.long_way(scope, receive, send)
            return
        if found.body is not None:
            body, receive = await _body_of(found.body, receive)
            if body is None:
                scope[_FOUND] = found.route
                await self.long_way(scope, receive, send)
                return
        scope["app"] = self.app
        request = Request(scope, receive)
        try:
            response = await found.answer(request, body)
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


def _is_long(scope: Scope, found: Found) -> bool:
    """Whether something is left to do that is the framework's or the route's: with a body, a key, an id spelled otherwise."""
    length, kind = b"0", b""
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"content-type":
            kind = value
        elif name == b"transfer-encoding" or (name == _KEY and not found.keyed):
            return True
    if found.body is None:
        fits = length == b"0"
    else:
        fits = kind == b"application/json" and length.isdigit() and 0 < int(length) <= JSON_LIMIT
    return not fits or not all(_ID.fullmatch(value) for value in scope["path_params"].values())


async def _body_of(kind: type[BaseModel], receive: Receive) -> tuple[BaseModel | None, Receive]:
    """The body, None for one that is not right; and where it is read again from its beginning."""
    messages: list[Message] = []
    size, more = 0, True
    while more and size <= JSON_LIMIT:
        messages.append(message := await receive())
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    told = iter(messages)

    async def again() -> Message:
        message = next(told, None)
        return message if message is not None else await receive()

    try:
        if more:
            return None, again
        said = orjson.loads(b"".join(message.get("body", b"") for message in messages))
        return kind.__pydantic_validator__.validate_python(said), again
    except ValueError:  # of JSON, and of pydantic
        return None, again


def _answer_of(route: APIRoute) -> tuple[Answer, type[BaseModel] | None]:
    """A call of the route's endpoint with what it takes, and its body; TypeError when it takes what is not to be had here."""
    endpoint = route.endpoint
    kinds = get_type_hints(endpoint, include_extras=True)
    kinds.pop("return", None)
    needed = {name: dependency for name, kind in kinds.items() if (dependency := _dependency_of(kind))}
    ids = [name for name, kind in kinds.items() if kind is UUID and name in route.param_convertors]
    own = [name for name, kind in kinds.items() if kind is Request]
    said = {name: kind for name, kind in kinds.items() if inspect.isclass(kind) and issubclass(kind, BaseModel)}
    if unknown := kinds.keys() - {*needed, *ids, *own, *list(said)[:1]}:
        raise TypeError(f"{endpoint.__name__} is no shortcut: it takes {', '.join(sorted(unknown))}")

    async def answer(request: Request, body: BaseModel | None) -> Response:
        values: dict[str, Any] = {name: UUID(request.path_params[name]) for name in ids}
        for name, dependency in needed.items():
            values[name] = await dependency(request)
        values |= dict.fromkeys(own, request) | dict.fromkeys(said, body)
        return cast("Response", await endpoint(**values))

    return answer, next(iter(said.values()), None)


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
