"""Every answer's last step: compressed on request, named and guarded by headers, without body for HEAD, one log line."""

import time
from collections.abc import Awaitable
from typing import Any, Final

from starlette.middleware.gzip import GZipResponder
from starlette.types import Message, Receive, Scope, Send

from gateway.inbound import HOP_BY_HOP, Headers, Inbound
from kit.http import log_request

SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"x-frame-options", b"DENY"),
)
SECURITY_IN_PRODUCTION: Final = (*SECURITY, (b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
PAGE: Final = (b"content-security-policy", b"frame-ancestors 'none'")
NO_PAGE: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_PRIVATE: Final = (b"cache-control", b"private, no-store")
# Of one hop only (who is refused may be told that the connection ends), or said by the gateway and its server.
_DROPPED: Final = HOP_BY_HOP | {b"x-request-id", b"server", b"date"}
_CLOSE: Final = (b"connection", b"close")
_GUARDED: Final = frozenset({NO_PAGE[0], *(name for name, _ in SECURITY_IN_PRODUCTION)})
_NOTED: Final = _DROPPED | _GUARDED | {b"cache-control", b"content-length", b"content-type", b"ratelimit"}

COMPRESSED_FROM: Final = 1024
EXPOSED: Final = (
    *("Content-Disposition", "ETag", "Idempotency-Replayed", "RateLimit", "RateLimit-Policy", "Retry-After"),
    "X-Request-Id",
)
"""What a page of another origin may read of an answer's headers."""


async def _nothing(_: Scope, __: Receive, ___: Send) -> None:
    """Stands where the responder's own app would."""


async def silence() -> None:
    """What is awaited where nothing is sent."""


class Stamp:
    """The outermost `send` of one request."""

    __slots__ = (
        *(
            "_bare",
            "_guard",
            "_inbound",
            "_names_origins",
            "_packer",
            "_send",
            "done",
            "seconds",
            "started_at",
            "status",
        ),
    )

    def __init__(self, inbound: Inbound, send: Send, *, head: bool, production: bool, names_origins: bool) -> None:
        self._inbound = inbound
        self._send = send
        self._bare = head
        self._guard = SECURITY_IN_PRODUCTION if production else SECURITY
        self._names_origins = names_origins
        self._packer: GZipResponder | None = None
        self.status = 0
        self.done = False
        self.started_at = time.perf_counter()
        self.seconds: float | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Send one message of the answer on, compressed where the caller takes that and it pays."""
        # These are called for every message and await nothing themselves: coroutines of their own would double their cost.
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {"type": "http.response.start", "status": self.status, "headers": self._headers(message)}
        if self._packer is None:
            return self._out(message)
        return self._packer.send_with_compression(message)

    def _out(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.body":
            if self.done:
                return silence()
            if not message.get("more_body", False):
                self.done = True
                # It holds this, and this holds it: a ring that only a search for garbage would end.
                self._packer = None
                self.seconds = time.perf_counter() - self.started_at
            if self._bare:
                message = {"type": "http.response.body", "body": b"", "more_body": not self.done}
        return self._send(message)

    def _headers(self, message: Message) -> Headers:
        headers: Headers = []
        noted: dict[bytes, bytes] = {}
        for pair in message.get("headers", ()):
            if (name := pair[0]) in _NOTED:
                if name in _DROPPED:
                    continue
                noted[name] = pair[1]
            headers.append(pair)
        self._add_ours(headers, noted)
        length = noted.get(b"content-length")
        # Where the length says that compressing does not pay, nothing else has to be looked at.
        if length is None or int(length) >= COMPRESSED_FROM:
            if self._inbound.gzip:
                # Starlette's middleware would cost every small answer what only large ones need.
                self._packer = GZipResponder(_nothing, COMPRESSED_FROM, compresslevel=5)
                self._packer.send = self._out
            else:
                # The responder says the same of what it packs: a cache must not take one for the other.
                headers.append((b"vary", b"Accept-Encoding"))
        return headers

    def _add_ours(self, headers: Headers, noted: dict[bytes, bytes]) -> None:
        inbound = self._inbound
        headers.append(inbound.id_header)
        if noted.keys().isdisjoint(_GUARDED):
            headers += self._guard
        else:
            headers += [pair for pair in self._guard if pair[0] not in noted]
        if inbound.closes:
            headers.append(_CLOSE)
        if b"content-security-policy" not in noted:
            headers.append(PAGE if noted.get(b"content-type", b"").startswith(b"text/html") else NO_PAGE)
        if b"ratelimit" not in noted:
            headers += inbound.rate_limit
        if b"cache-control" not in noted and inbound.authorization is not None:
            headers.append(_PRIVATE)
        # With an origin the CORS layer has said so already; caches must know that the answer to one differs.
        if self._names_origins and inbound.origin is None:
            headers.append((b"vary", b"Origin"))

    def log(self, scope: Scope) -> None:
        """Write the request's line: the service's own route where it told us, else the prefix."""
        inbound = self._inbound
        served: dict[str, Any] = inbound.served or inbound.named(scope["method"])
        if inbound.prefix is not None and "route" not in served:
            served.setdefault("heika.route", inbound.prefix)
        # What a service does behind its whole answer is not what the caller waited for.
        seconds = self.seconds if self.seconds is not None else time.perf_counter() - self.started_at
        log_request("gateway", served, self.status, seconds)
