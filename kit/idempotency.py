"""`Idempotency-Key` (the IETF draft's header): the first answer is stored with its effect, in one transaction, and replayed."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response
from sqlalchemy import text

from kit import audit
from kit.auth import caller_of, wants_caller
from kit.errors import BadRequest, Forbidden, NotAuthenticated, Problem, ValidationFailed
from kit.http import client_address
from kit.kept_answers import (
    IdempotencyInFlight,
    IdempotencyKeyReused,
    Place,
    asked_of,
    begin,
    end,
    find,
    purge_keys,
    store,
)
from kit.strict import JSON_LIMIT, StrictRequest, StrictRoute

__all__ = ["IdempotencyInFlight", "IdempotencyKeyReused", "IdempotentRoute", "purge_keys"]

MAX_KEY_LENGTH = 255
EXAMPLE_KEY = "6f1d7c0e-7a52-4b0e-9d7e-2c1f4a5b8e90"


class IdempotencyKeyRequired(BadRequest):
    """This call moves money: send an Idempotency-Key header (a fresh UUID per attempt to buy, the same one on retries)."""

    zh = "这个接口涉及资金：请带上 Idempotency-Key 请求头（每次购买换新的 UUID，重试时用同一个）。"


class IdempotencyKeyInvalid(BadRequest):
    """A request has one Idempotency-Key, of 1 to 255 characters."""

    zh = "一次请求只带一个 Idempotency-Key，长度为 1 到 255 个字符。"


async def _given(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    if key is None:
        raise IdempotencyKeyRequired
    return key


KeyDep = Annotated[str, Depends(_given)]
"""The key of a POST that refuses to run without one. Name it after the caller: who may not call learns that first."""

_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_in_groups: set[Callable[..., Any]] = set()


def answers_in_group(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint whose answers to requests with keys are stored by its group (`GroupCommit.answer`), many at once.

    It has no transaction of its own, and leaves every refusal that is to be kept to the group.
    """
    _in_groups.add(endpoint)
    return endpoint


def is_in_group(endpoint: Callable[..., Any]) -> bool:
    """Whether an endpoint is marked so."""
    return endpoint in _in_groups


class IdempotentRoute(StrictRoute):
    """A route whose POSTs honour `Idempotency-Key`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["openapi_extra"] = {"x-idempotency-key": "optional"} | (options.get("openapi_extra") or {})
        super().__init__(path, endpoint, **options)
        if self.openapi_extra and any(needed.call is _given for needed in self.dependant.dependencies):
            self.openapi_extra["x-idempotency-key"] = "required"

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, run once for each key."""
        original = super().get_route_handler()
        if "POST" not in (self.methods or set()):
            return original
        limit, in_group = self.body_limit, is_in_group(self.endpoint)
        closed = wants_caller(self.dependant)

        async def handle(request: Request) -> Response:
            if closed and await caller_of(request) is None:
                raise NotAuthenticated
            place = await place_of(request)
            if place is None:
                return await original(request)
            strict = StrictRequest(request.scope, request.receive)
            if in_group:
                await strict.read(JSON_LIMIT)
                return await _earlier(strict, place) or await original(strict)
            begin(place)
            try:
                await strict.read(limit)
                return await _once(original, strict, place)
            finally:
                strict.put_away()
                end(place)

        return handle


async def place_of(request: Request) -> Place | None:
    """Where the answer to this request is kept; None for one without a key."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    key = keys[0]
    if len(keys) > 1 or not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise IdempotencyKeyInvalid
    caller = await caller_of(request)
    owner = str(caller.id) if caller else f"address {client_address(request)}"
    return Place(request.app.state.runtime.service, owner, request.method, request.scope["path"], key)


async def _earlier(request: Request, place: Place) -> Response | None:
    asked, database = await asked_of(request, place), request.app.state.runtime.db
    async with database.session() as session:
        found = (await find(await database.connect(session), [asked])).get(place.scope)
    if isinstance(found, Problem):
        raise found
    return found


async def _once(
    original: Callable[[Request], Coroutine[Any, Any, Response]], request: Request, place: Place
) -> Response:
    asked = await asked_of(request, place)
    database = request.app.state.runtime.db
    async with database.session() as session:
        connection = await database.connect(session)
        lock = int.from_bytes(place.scope[:8], signed=True)
        if not (await session.execute(_LOCK, {"lock": lock})).scalar_one():
            raise IdempotencyInFlight(retry_after=1)
        earlier = (await find(connection, [asked])).get(place.scope)
        if isinstance(earlier, Problem):
            raise earlier
        if earlier is not None:
            return earlier
        request.scope["heika.session"] = session
        try:
            response = await original(request)
            await audit.complete(request, session)
        except Problem as refusal:
            if not is_final(refusal):
                raise
            await session.rollback()
            response = asked.refusal(refusal)
        if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and isinstance(
            getattr(response, "body", None), bytes
        ):
            # An endpoint may have committed midway, and goes on with another connection.
            await store(await session.connection(), [(asked, response)])
        await session.commit()
        return response


def is_final(refusal: Problem) -> bool:
    """Whether a refusal is an answer to keep: a rule said no, rather than the form, the caller's login or a limit."""
    if isinstance(refusal, (NotAuthenticated, ValidationFailed)) or type(refusal) is Forbidden:
        return False
    return refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR and refusal.status not in (408, 413, 429)
