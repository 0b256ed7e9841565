"""Every answer's last step: names and security headers on it, a HEAD without body, one log line."""

import time
from typing import Any, Final

from starlette.types import Message, Scope, Send

from gateway.inbound import Headers, Inbound
from kit.http import log_request

_OURS: Final = frozenset({b"x-request-id", b"server", b"date"})
_SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)
_PRODUCTION: Final = (*_SECURITY, (b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
_PRIVATE: Final = (b"cache-control", b"private, no-store")


class Stamp:
    """The outermost `send` of one request."""

    __slots__ = ("_head", "_inbound", "_names_origins", "_production", "_send", "done", "started_at", "status")

    def __init__(self, inbound: Inbound, send: Send, *, head: bool, production: bool, names_origins: bool) -> None:
        self._inbound = inbound
        self._send = send
        self._head = head
        self._production = production
        self._names_origins = names_origins
        self.status = 0
        self.done = False
        self.started_at = time.perf_counter()

    async def send(self, message: Message) -> None:
        """Send one message of the answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send({"type": "http.response.start", "status": self.status, "headers": self._headers(message)})
            return
        if self.done:
            return
        if self._head and message["type"] == "http.response.body":
            message = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        self.done = not message.get("more_body", False)
        await self._send(message)

    def _headers(self, message: Message) -> Headers:
        inbound = self._inbound
        headers: Headers = [pair for pair in message.get("headers", ()) if pair[0] not in _OURS]
        present = {pair[0] for pair in headers}
        headers.append((b"x-request-id", inbound.request_id.encode()))
        for pair in _PRODUCTION if self._production else _SECURITY:
            if pair[0] not in present:
                headers.append(pair)
        if b"ratelimit" not in present:
            headers += inbound.rate_limit
        if b"cache-control" not in present and inbound.authorization is not None:
            headers.append(_PRIVATE)
        # With an origin the CORS layer has said so already; caches must know that the answer to one differs.
        if self._names_origins and inbound.origin is None:
            headers.append((b"vary", b"Origin"))
        return headers

    def log(self, scope: Scope, prefix: str | None) -> None:
        """Write the request's line: the service's own route when it was found in this process, else the prefix."""
        served: dict[str, Any] = self._inbound.served or {
            "method": scope["method"],
            "heika.request_id": self._inbound.request_id,
            "heika.traceparent": self._inbound.traceparent,
        }
        if prefix is not None and "route" not in served and "fastapi" not in served:
            served["heika.route"] = prefix
        log_request("gateway", served, self.status, time.perf_counter() - self.started_at)
