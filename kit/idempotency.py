"""`Idempotency-Key` (the IETF draft's header): the first answer is stored with its effect, in one transaction, and replayed."""

import hmac
import os
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import timedelta
from hashlib import sha256
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import Any

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit import audit, clock
from kit.auth import caller_of
from kit.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotAuthenticated,
    PayloadTooLarge,
    Problem,
    Unprocessable,
    ValidationFailed,
    request_language,
)
from kit.http import client_address

KEEP = timedelta(hours=48)
MAX_KEY_LENGTH = 255
JSON_LIMIT = 1 << 20
PIECE = 1 << 16
EXAMPLE_KEY = "6f1d7c0e-7a52-4b0e-9d7e-2c1f4a5b8e90"
KEY_REQUIRED: dict[str, Any] = {"x-idempotency-key": "required"}
"""`openapi_extra=` of a POST that refuses to run without a key."""

_NONCE = 12
_BOUNDARY = re.compile(r'multipart/[^;]+;(?:.*;)?\s*boundary="?([^";]+)', re.IGNORECASE)
_STORED_HEADERS = frozenset({"content-type", "location", "etag", "cache-control"})


class IdempotencyKeyRequired(BadRequest):
    """This call moves money: send an Idempotency-Key header (a fresh UUID per attempt to buy, the same one on retries)."""

    zh = "这个接口涉及资金：请带上 Idempotency-Key 请求头（每次购买换新的 UUID，重试时用同一个）。"


class IdempotencyKeyInvalid(BadRequest):
    """An Idempotency-Key has 1 to 255 characters."""

    zh = "Idempotency-Key 的长度应为 1 到 255 个字符。"


class IdempotencyKeyReused(Unprocessable):
    """This Idempotency-Key was used with another request; take a fresh one for a new request."""

    zh = "这个 Idempotency-Key 已用于另一个请求，新请求请换一个新的。"


class IdempotencyInFlight(Conflict):
    """The first request with this Idempotency-Key is still running; ask again in a moment with the same key."""

    zh = "使用这个 Idempotency-Key 的请求还在处理，请稍后用同一个键重试。"
    action = "retry_after"


_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")
_FIND = text(
    "SELECT fingerprint, status, headers, body FROM idempotency_key WHERE scope = :scope AND created_at > :since"
)
_STORE = text(
    "INSERT INTO idempotency_key (scope, fingerprint, status, headers, body, created_at) "
    "VALUES (:scope, :fingerprint, :status, CAST(:headers AS jsonb), :body, :now) ON CONFLICT (scope) DO UPDATE SET "
    "fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers, body = excluded.body, "
    "created_at = excluded.created_at WHERE idempotency_key.created_at <= :since"
)
_PURGE = text(
    "DELETE FROM idempotency_key WHERE scope IN "
    "(SELECT scope FROM idempotency_key WHERE created_at <= :since LIMIT 5000 FOR UPDATE SKIP LOCKED)"
)

# The advisory lock ends with a transaction; an endpoint that commits midway (to call a provider) is covered by this
# set in its own process, and elsewhere by the constraint that makes its own rows unique.
_running: set[bytes] = set()


async def purge_keys(session: AsyncSession) -> int:
    """Forget answers older than `KEEP`; how many."""
    result = await session.execute(_PURGE, {"since": clock.now() - KEEP})
    return int(getattr(result, "rowcount", 0))


class StrictRequest(Request):
    """A request whose JSON is RFC 8259 to the letter: no NaN, no Infinity, no lone surrogates."""

    async def json(self) -> Any:
        """The body; JSONDecodeError when it is not JSON."""
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json

    _aside: SpooledTemporaryFile[bytes] | None = None

    async def read(self, limit: int) -> None:
        """Take the whole body, one of files to disk; PayloadTooLarge past `limit` bytes, announced or real."""
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise PayloadTooLarge(extra={"limit_bytes": limit})
        size, memory = 0, bytearray()
        # Many who bring files at once shall not fill the memory with them while each waits for its turn.
        if limit > JSON_LIMIT:
            self._aside = SpooledTemporaryFile(max_size=JSON_LIMIT)  # noqa: SIM115 - put_away closes it
        async for chunk in super().stream():
            size += len(chunk)
            if size > limit:
                raise PayloadTooLarge(extra={"limit_bytes": limit})
            if self._aside is None:
                memory += chunk
            else:
                self._aside.write(chunk)
        if self._aside is None:
            self._body = bytes(memory)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces, as often as it is asked for."""
        if self._aside is None:
            async for chunk in super().stream():
                yield chunk
            return
        self._aside.seek(0)
        while chunk := self._aside.read(PIECE):
            yield chunk
        yield b""

    def put_away(self) -> None:
        """Let go of a body that lies on disk."""
        if self._aside is not None:
            self._aside.close()


class StrictRoute(APIRoute):
    """A route that reads bounded bodies (1 MiB unless `max_body_size` says otherwise) and strict JSON."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        # FastAPI's own limit answers in plain text; ours is a problem.
        self.body_limit: int = options.pop("max_body_size", None) or JSON_LIMIT
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a strict request."""
        original = super().get_route_handler()
        limit, bodiless = self.body_limit, (self.methods or set()) <= {"GET", "HEAD"}

        async def handle(request: Request) -> Response:
            if isinstance(request, StrictRequest):
                return await original(request)
            strict = StrictRequest(request.scope, request.receive)
            try:
                if not bodiless:
                    await strict.read(limit)
                response = await original(strict)
            finally:
                strict.put_away()
            if response.status_code == HTTPStatus.NO_CONTENT and "content-type" in response.headers:
                # FastAPI empties the body and leaves the type of what is not there.
                del response.headers["content-type"]
            return response

        return handle


class IdempotentRoute(StrictRoute):
    """A route whose POSTs honour `Idempotency-Key`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["openapi_extra"] = {"x-idempotency-key": "optional"} | (options.get("openapi_extra") or {})
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, run once for each key."""
        original = super().get_route_handler()
        if "POST" not in (self.methods or set()):
            return original
        limit = self.body_limit
        required = (self.openapi_extra or {}).get("x-idempotency-key") == "required"

        async def handle(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None:
                if required:
                    if await caller_of(request) is None:
                        raise NotAuthenticated
                    raise IdempotencyKeyRequired
                return await original(request)
            if not 1 <= len(key) <= MAX_KEY_LENGTH:
                raise IdempotencyKeyInvalid
            caller = await caller_of(request)
            owner = str(caller.id) if caller else f"address {client_address(request)}"
            place = Place(request.app.state.runtime.service, owner, request.method, request.scope["path"], key)
            if place.scope in _running:
                raise IdempotencyInFlight(retry_after=1)
            _running.add(place.scope)
            strict = StrictRequest(request.scope, request.receive)
            try:
                await strict.read(limit)
                return await _once(original, strict, place)
            finally:
                strict.put_away()
                _running.discard(place.scope)

        return handle


class Place:
    """Where an answer is kept, and what seals it: both are made of the caller's key, which itself is not kept.

    An answer may hold a partner's secret or a login's tokens. Whoever reads the table without the key, a UUID as the
    draft asks for, learns neither the answer nor, by trying, the request.
    """

    def __init__(self, *parts: str) -> None:
        said = orjson.dumps(parts)
        self.scope = sha256(said).digest()
        self._fingerprinting = hmac.digest(said, b"request", sha256)
        self._sealing = AESGCM(hmac.digest(said, b"answer", sha256))

    async def fingerprint(self, request: Request) -> bytes:
        """What tells one request from another: its query and its body; not the boundary, which a form has anew each time."""
        digest = hmac.new(self._fingerprinting, request.scope["query_string"] + b"\0", sha256)
        boundary = _BOUNDARY.match(request.headers.get("content-type", ""))
        between = b"--" + boundary[1].encode() if boundary else b""
        rest = b""
        async for chunk in request.stream():
            rest += chunk
            if between:
                *parts, rest = rest.split(between)
                for part in parts:
                    digest.update(part + b"\0")
            # The beginning of a boundary may wait for the rest of it.
            done = max(0, len(rest) - len(between) + 1)
            digest.update(rest[:done])
            rest = rest[done:]
        digest.update(rest)
        return digest.digest()

    def seal(self, body: bytes) -> bytes:
        """AES-256-GCM, its nonce in front."""
        nonce = os.urandom(_NONCE)
        return nonce + self._sealing.encrypt(nonce, body, None)

    def unseal(self, sealed: bytes) -> bytes:
        """What `seal` was given."""
        return self._sealing.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)


async def _once(
    original: Callable[[Request], Coroutine[Any, Any, Response]], request: Request, place: Place
) -> Response:
    scope = place.scope
    fingerprint = await place.fingerprint(request)
    database = request.app.state.runtime.db
    since = clock.now() - KEEP
    async with database.session() as session:
        await database.connect(session)
        lock = int.from_bytes(scope[:8], signed=True)
        if not (await session.execute(_LOCK, {"lock": lock})).scalar_one():
            raise IdempotencyInFlight(retry_after=1)
        stored = (await session.execute(_FIND, {"scope": scope, "since": since})).one_or_none()
        if stored is not None:
            if stored.fingerprint != fingerprint:
                raise IdempotencyKeyReused
            return Response(place.unseal(stored.body), stored.status, stored.headers | {"Idempotency-Replayed": "true"})
        request.scope["heika.session"] = session
        try:
            response = await original(request)
            await audit.complete(request, session)
        except Problem as refusal:
            if not _is_final(refusal):
                raise
            await session.rollback()
            response = refusal.response(request_language(request), request.scope.get("heika.request_id"))
        if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and isinstance(
            getattr(response, "body", None), bytes
        ):
            headers = {name: value for name, value in response.headers.items() if name in _STORED_HEADERS}
            await session.execute(
                _STORE,
                {
                    "scope": scope,
                    "fingerprint": fingerprint,
                    "status": response.status_code,
                    "headers": orjson.dumps(headers).decode(),
                    "body": place.seal(bytes(response.body)),
                    "now": clock.now(),
                    "since": since,
                },
            )
        await session.commit()
        return response


def _is_final(refusal: Problem) -> bool:
    """Whether a refusal is an answer to keep: a rule said no, rather than the form, the caller's login or a limit."""
    if isinstance(refusal, (NotAuthenticated, ValidationFailed)) or type(refusal) is Forbidden:
        return False
    return refusal.status < HTTPStatus.INTERNAL_SERVER_ERROR and refusal.status not in (408, 413, 429)
