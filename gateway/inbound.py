"""What the gateway reads from a request's headers, in one pass, and the headers it passes on."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope

from kit.auth import Caller
from kit.http import resolve_client
from kit.ids import new_name
from kit.settings import Network
from kit.trace import is_request_id, next_traceparent

Headers = list[tuple[bytes, bytes]]

CLIENT_ADDRESS: Final = b"x-heika-client-address"

# RFC 9110 7.6.1, and Expect, which the server in front has answered already.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What says who is calling: never taken from a caller.
_CLAIMED: Final = (b"x-heika-", b"x-forwarded-", b"x-real-ip", b"x-client-ip", b"x-original-", b"x-rewrite-")
# Read here and passed on all the same.
_SHARED: Final = frozenset({b"accept-language", b"authorization", b"content-length", b"if-none-match", b"origin"})
_READ: Final = HOP_BY_HOP | _SHARED | {b"accept-encoding", b"forwarded", b"traceparent", b"x-request-id"}
_GZIP: Final = re.compile(rb"(?:^|,)\s*gzip\s*(?:;\s*q=(0(?:\.0{0,3})?(?![.\d]))?[^,]*)?(?:,|$)", re.IGNORECASE)
# Enough for every coding there is; bounds what the cache of them holds.
_LONGEST_CODINGS: Final = 200


class Inbound:
    """A request as the gateway sees it; `headers` are those that go on to the service."""

    __slots__ = (
        "accept_language",
        "address",
        "ambiguous",
        "authorization",
        "caller",
        "content_length",
        "gzip",
        "has_body",
        "headers",
        "if_none_match",
        "origin",
        "parent",
        "rate_limit",
        "request_id",
        "served",
        "tagging",
        "traceparent",
    )

    def __init__(self, scope: Scope, trusted: Sequence[Network]) -> None:
        self.headers: Headers = []
        self.rate_limit: Headers = []
        self.served: dict[str, Any] | None = None
        self.caller: Caller | None = None
        self.ambiguous = False
        self.tagging = scope["method"] in ("GET", "HEAD")
        keep = self.headers.append
        read: dict[bytes, bytes] = {}
        for pair in scope["headers"]:
            name = pair[0]
            if name not in _READ:
                if name[:2] != b"x-" or not name.startswith(_CLAIMED):
                    keep(pair)
                continue
            if name in _SHARED:
                keep(pair)
            if name in read:
                self.ambiguous = self.ambiguous or name == b"authorization"
                read[name] += b", " + pair[1]
            else:
                read[name] = pair[1]
        self.authorization = read.get(b"authorization")
        self.accept_language = read.get(b"accept-language", b"").decode("latin-1")
        self.if_none_match = read.get(b"if-none-match")
        self.origin = read.get(b"origin")
        self.gzip = b"accept-encoding" in read and _accepts_gzip(read[b"accept-encoding"][:_LONGEST_CODINGS])
        length = read.get(b"content-length", b"0")
        # The server in front has refused anything but digits; another one may not have.
        self.content_length = int(length) if length.isdigit() else 0
        self.has_body = self.content_length > 0 or b"transfer-encoding" in read
        if (connection := read.get(b"connection", b"").strip().lower()) not in (b"", b"keep-alive", b"close"):
            # What Connection names is meant for this hop only (RFC 9110 7.6.1).
            named = {token.strip() for token in connection.split(b",")}
            self.headers[:] = [pair for pair in self.headers if pair[0] not in named]
        request_id = read.get(b"x-request-id", b"").decode("latin-1")
        self.request_id = request_id if is_request_id(request_id) else new_name()
        self.parent = read.get(b"traceparent", b"").decode("latin-1")
        self.traceparent = next_traceparent(self.parent)
        self.address = _address(scope, trusted)
        address = self.address.encode("latin-1", "replace")
        self.headers += (
            (b"x-request-id", self.request_id.encode()),
            (b"traceparent", self.traceparent.encode()),
            (CLIENT_ADDRESS, address),
            (b"x-forwarded-for", address),
        )

    def named(self, method: str) -> dict[str, Any]:
        """What names this request in a scope, a log and a trace."""
        return {
            "method": method,
            "heika.request_id": self.request_id,
            "heika.traceparent": self.traceparent,
            "heika.parent": self.parent,
        }


def _address(scope: Scope, trusted: Sequence[Network]) -> str:
    peer: str = scope["client"][0] if scope.get("client") else ""
    if not trusted:
        return peer
    hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return resolve_client(peer, hops.decode("latin-1"), trusted)


@lru_cache(maxsize=256)
def _accepts_gzip(value: bytes) -> bool:
    """Whether an Accept-Encoding takes gzip; a quality of zero means it does not (RFC 9110 12.5.3)."""
    match = _GZIP.search(value)
    return match is not None and match[1] is None
