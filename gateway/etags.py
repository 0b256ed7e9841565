"""Tags of public answers, and whether a caller holds them already (RFC 9110 8.8.3 and 13.1.2)."""

from hashlib import blake2b
from typing import Final

from starlette.types import Message

from gateway.inbound import Headers, Inbound

_LARGEST_TAGGED: Final = 256 * 1024


def tag(start: Message, body: bytes, inbound: Inbound) -> bool:
    """Give a public answer a weak ETag when it has none; True when the caller has it already and 304 is the answer."""
    headers: Headers = start["headers"]
    etag = next((value for name, value in headers if name == b"etag"), None)
    if etag is None:
        private = any(
            name == b"set-cookie" or (name == b"cache-control" and b"no-store" in value) for name, value in headers
        )
        if inbound.authorization is not None or private or len(body) > _LARGEST_TAGGED:
            return False
        etag = b'W/"' + blake2b(body, digest_size=9).hexdigest().encode() + b'"'
        headers.append((b"etag", etag))
    if inbound.if_none_match is None or not matches(inbound.if_none_match, etag):
        return False
    start["status"] = 304
    start["headers"] = [pair for pair in headers if pair[0] not in (b"content-length", b"content-type")]
    return True


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Weak comparison of a tag with a list of them (RFC 9110 13.1.2)."""
    if if_none_match.strip() == b"*":
        return True
    return etag.removeprefix(b"W/") in {item.strip().removeprefix(b"W/") for item in if_none_match.split(b",")}
