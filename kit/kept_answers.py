"""Kept answers: what a request with an Idempotency-Key was answered, sealed with its key, found again and stored."""

import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Request, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from kit import clock
from kit.errors import Conflict, Problem, Unprocessable, request_language
from kit.strict import JSON_LIMIT

KEEP = timedelta(hours=48)

_NONCE = 12
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
_BOUNDARY = re.compile(r'multipart/[^;]+;(?:.*;)?\s*boundary="?([^";]+)', re.IGNORECASE)
_STORED_HEADERS = frozenset({"content-type", "location", "etag", "cache-control"})


class IdempotencyKeyReused(Unprocessable):
    """This Idempotency-Key was used with another request; take a fresh one for a new request."""

    zh = "这个 Idempotency-Key 已用于另一个请求，新请求请换一个新的。"
    loc = ("header", "Idempotency-Key")


class IdempotencyInFlight(Conflict):
    """The first request with this Idempotency-Key is still running; ask again in a moment with the same key."""

    zh = "使用这个 Idempotency-Key 的请求还在处理，请稍后用同一个键重试。"
    action = "retry_after"


_FIND = text(
    "SELECT scope, fingerprint, status, headers, body FROM idempotency_key "
    "WHERE scope = ANY(CAST(:scopes AS bytea[])) AND created_at > :since"
)
# Sorted, so that two processes never wait for one another in a ring.
_STORE = text(
    "INSERT INTO idempotency_key (scope, fingerprint, status, headers, body, created_at) "
    "SELECT scope, fingerprint, status, CAST(headers AS jsonb), body, :now FROM unnest(CAST(:scopes AS bytea[]), "
    "CAST(:fingerprints AS bytea[]), CAST(:statuses AS smallint[]), CAST(:headers AS text[]), CAST(:bodies AS bytea[])) "
    "AS answer (scope, fingerprint, status, headers, body) ORDER BY scope ON CONFLICT (scope) DO UPDATE SET "
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

    async def fingerprints(self, request: Request) -> tuple[bytes, bytes]:
        """What tells one request from another, its query and its body: as it is meant, and as it was sent.

        A boundary, which a form has anew each time, is no part of it. JSON is meant as its values: whoever writes it anew
        for a retry may order and space it otherwise.
        """
        kind = request.headers.get("content-type", "")
        if _JSON.match(kind):
            return await self._of_json(request)
        boundary = _BOUNDARY.match(kind)
        digest = self._digest(request)
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
        return digest.digest(), digest.digest()

    async def _of_json(self, request: Request) -> tuple[bytes, bytes]:
        digest, content = self._digest(request), b""
        meant = digest.copy()
        async for chunk in request.stream():
            digest.update(chunk)
            # More than that is no JSON that any endpoint takes, whatever it says of itself.
            content = content + chunk if len(content) <= JSON_LIMIT else content
        as_sent = digest.digest()
        if len(content) > JSON_LIMIT:
            return as_sent, as_sent
        try:
            said = orjson.dumps(orjson.loads(content), option=orjson.OPT_SORT_KEYS)
        except (ValueError, TypeError):  # no JSON, or deeper than can be written
            return as_sent, as_sent
        if said == content:
            return as_sent, as_sent
        meant.update(said)
        return meant.digest(), as_sent

    def _digest(self, request: Request) -> hmac.HMAC:
        return hmac.new(self._fingerprinting, request.scope["query_string"] + b"\0", sha256)

    def seal(self, body: bytes) -> bytes:
        """AES-256-GCM, its nonce in front."""
        nonce = os.urandom(_NONCE)
        return nonce + self._sealing.encrypt(nonce, body, None)

    def unseal(self, sealed: bytes) -> bytes:
        """What `seal` was given."""
        return self._sealing.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)


def begin(place: Place) -> None:
    """Refuse a second request for the same place while one runs in this process."""
    if place.scope in _running:
        raise IdempotencyInFlight(retry_after=1)
    _running.add(place.scope)


def end(place: Place) -> None:
    """The request that ran has its answer, or will have none."""
    _running.discard(place.scope)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with a key, as far as its answer needs to know it."""

    place: Place
    fingerprint: bytes
    as_sent: bytes
    language: str
    request_id: str | None

    def refusal(self, problem: Problem) -> Response:
        """A problem as the answer to this request."""
        return problem.response(self.language, self.request_id)


async def asked_of(request: Request, place: Place) -> Asked:
    """The request that wants its answer kept there; its body is read once, however often an endpoint tries."""
    asked: Asked | None = request.scope.get("heika.asked")
    if asked is None:
        fingerprints = await place.fingerprints(request)
        asked = Asked(place, *fingerprints, request_language(request), request.scope.get("heika.request_id"))
        request.scope["heika.asked"] = asked
    return asked


async def find(connection: AsyncConnection, requests: Sequence[Asked]) -> dict[bytes, Response | IdempotencyKeyReused]:
    """Earlier answers to these requests by scope; IdempotencyKeyReused where the key answered something else."""
    values = {"scopes": [asked.place.scope for asked in requests], "since": clock.now() - KEEP}
    kept = {row.scope: row for row in await connection.execute(_FIND, values)}
    found: dict[bytes, Response | IdempotencyKeyReused] = {}
    for asked in requests:
        row = kept.get(asked.place.scope)
        # Those kept by an earlier release are of bodies as they were sent.
        if row is not None and row.fingerprint not in {asked.fingerprint, asked.as_sent}:
            found[row.scope] = IdempotencyKeyReused()
        elif row is not None:
            headers = row.headers | {"Idempotency-Replayed": "true"}
            found[row.scope] = Response(asked.place.unseal(row.body), row.status, headers)
    return found


async def store(connection: AsyncConnection, answers: Sequence[tuple[Asked, Response]]) -> int:
    """Keep these answers; how many: none is put in the place of one that is there already."""
    now = clock.now()
    heads = ({name: value for name, value in item.headers.items() if name in _STORED_HEADERS} for _, item in answers)
    stored = await connection.execute(
        _STORE,
        {
            "scopes": [asked.place.scope for asked, _ in answers],
            "fingerprints": [asked.fingerprint for asked, _ in answers],
            "statuses": [response.status_code for _, response in answers],
            "headers": [orjson.dumps(head).decode() for head in heads],
            "bodies": [asked.place.seal(bytes(response.body)) for asked, response in answers],
            "now": now,
            "since": now - KEEP,
        },
    )
    return int(stored.rowcount)
