"""What the gateway reads from a request's headers, in one pass, and the headers it passes on."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope

from kit.auth import Caller
from kit.http import resolve_client
from kit.settings import Network
from kit.trace import is_request_id, new_request, next_traceparent

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
    """A request as the gateway sees it; `headers` are those of the caller's own that go on to the service."""

    __slots__ = (
        *(
            "_read",
            "address",
            "ambiguous",
            "authorization",
            "caller",
            "closes",
            "content_length",
            "has_body",
            "headers",
        ),
        *("id_header", "if_none_match", "judged", "origin", "parent", "rate_limit", "request_id", "served"),
        *("may_be_tagged", "prefix", "traceparent"),
    )

    def __init__(self, scope: Scope, trusted: Sequence[Network]) -> None:
        self.headers: Headers = []
        self.rate_limit: Headers = []
        self.served: dict[str, Any] | None = None
        self.caller: Caller | None = None
        self.prefix: str | None = None
        self.ambiguous = self.closes = self.judged = False
        keep = self.headers.append
        self._read: dict[bytes, bytes] = {}
        read = self._read
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
        take = read.get
        self.authorization = take(b"authorization")
        self.if_none_match = take(b"if-none-match")
        self.origin = take(b"origin")
        # A tag is looked for in what the caller may hold, and given to what everybody sees.
        may_hold = self.authorization is None or self.if_none_match is not None
        self.may_be_tagged = may_hold and scope["method"] in ("GET", "HEAD")
        length = take(b"content-length")
        # The server in front has refused anything but digits; another one may not have.
        self.content_length = int(length) if length is not None and length.isdigit() else 0
        self.has_body = self.content_length > 0 or b"transfer-encoding" in read
        if (connection := take(b"connection")) is not None:
            self._drop_named(connection.strip().lower())
        said = take(b"x-request-id")
        parent = take(b"traceparent")
        self.request_id, self.traceparent = new_request()
        if said is not None and is_request_id(text := said.decode("latin-1")):
            self.request_id = text
        self.parent = ""
        if parent is not None:
            self.parent = parent.decode("latin-1")
            self.traceparent = next_traceparent(self.parent)
        self.address = _address(scope, trusted) if trusted else scope["client"][0] if scope.get("client") else ""
        self.id_header = (b"x-request-id", self.request_id.encode())

    def _drop_named(self, connection: bytes) -> None:
        """Drop what Connection names: it is meant for this hop only (RFC 9110 7.6.1)."""
        if connection not in (b"", b"keep-alive", b"close"):
            named = {token.strip() for token in connection.split(b",")}
            self.headers[:] = [pair for pair in self.headers if pair[0] not in named]

    @property
    def accept_language(self) -> str:
        """What the caller reads, as they said it."""
        return self._read.get(b"accept-language", b"").decode("latin-1")

    @property
    def gzip(self) -> bool:
        """Whether the caller takes compressed answers."""
        accepted = self._read.get(b"accept-encoding")
        return accepted is not None and _accepts_gzip(accepted[:_LONGEST_CODINGS])

    def named(self, method: str) -> dict[str, Any]:
        """What names this request in a scope, a log and a trace."""
        return {
            "method": method,
            "heika.request_id": self.request_id,
            "heika.traceparent": self.traceparent,
            "heika.parent": self.parent,
        }


def naming(scope: Scope) -> Headers:
    """What tells a service in another process what one in this process reads in the scope: which request it is, and whose."""
    address = scope["client"][0].encode("latin-1", "replace") if scope.get("client") else b""
    return [
        (b"x-request-id", scope["heika.request_id"].encode()),
        (b"traceparent", scope["heika.traceparent"].encode()),
        (CLIENT_ADDRESS, address),
        (b"x-forwarded-for", address),
    ]


def _address(scope: Scope, trusted: Sequence[Network]) -> str:
    peer: str = scope["client"][0] if scope.get("client") else ""
    hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return resolve_client(peer, hops.decode("latin-1"), trusted)


@lru_cache(maxsize=256)
def _accepts_gzip(value: bytes) -> bool:
    """Whether an Accept-Encoding takes gzip; a quality of zero means it does not (RFC 9110 12.5.3)."""
    match = _GZIP.search(value)
    return match is not None and match[1] is None
