"""Which request this work belongs to: a request id and a W3C Trace Context, carried by context variables."""

import random
import re
from contextvars import ContextVar

_request_id: ContextVar[str | None] = ContextVar("heika_request_id", default=None)
_traceparent: ContextVar[str | None] = ContextVar("heika_traceparent", default=None)

_ids = random.Random()  # noqa: S311 - see _random_hex

# One by one they cost a request ten times as much: what draws them has left the processor's caches by then.
_DRAWN_AT_ONCE = 64
_drawn: list[tuple[str, str]] = []

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def current_request_id() -> str | None:
    """The id of the request being served, or that caused the event being handled."""
    return _request_id.get()


def current_traceparent() -> str | None:
    """The traceparent header (W3C Trace Context, version 00) of the work under way."""
    return _traceparent.get()


def enter(request_id: str | None, traceparent: str | None) -> None:
    """Take over the identity of a request, for this task."""
    _request_id.set(request_id)
    _traceparent.set(traceparent)


def is_request_id(text: str) -> bool:
    """Whether a caller's X-Request-Id is fit to be echoed and logged: 1 to 128 visible ASCII characters."""
    return _REQUEST_ID.fullmatch(text) is not None


def is_traceparent(text: str) -> bool:
    """Whether this is a traceparent header of version 00."""
    return _TRACEPARENT.fullmatch(text) is not None


def next_traceparent(incoming: str | None) -> str:
    """A traceparent for our own span: the caller's trace when its header is valid, else a new one."""
    if incoming and _TRACEPARENT.fullmatch(incoming):
        version, trace, _, flags = incoming.split("-")
        return f"{version}-{trace}-{_random_hex(8)}-{flags}"
    ids = _random_hex(24)
    return f"00-{ids[:32]}-{ids[32:]}-01"


def new_request() -> tuple[str, str]:
    """A request id, which is a UUID of version 4 (RFC 9562), and a traceparent; most requests need both."""
    if not _drawn:
        _drawn.extend(_draw() for _ in range(_DRAWN_AT_ONCE))
    return _drawn.pop()


def _draw() -> tuple[str, str]:
    drawn = _random_hex(40)
    request_id = f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-a{drawn[17:20]}-{drawn[20:32]}"
    return request_id, f"00-{drawn[32:64]}-{drawn[64:]}-01"


def _random_hex(size: int) -> str:
    # Unique is enough, nobody guards anything by it; asking the system's generator would cost each request a call.
    return f"{_ids.getrandbits(8 * size):0{2 * size}x}"
