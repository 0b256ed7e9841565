"""The route table: which service answers which first path segments, and within which limits."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

MIB: Final = 1024 * 1024

SERVICES: Final = ("members", "billing", "courses", "referrals", "showcase")
"""Every upstream, in the order in which documents and states list them."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a prefix leads: `deadline` is seconds until the answer must start, `body_limit` is in bytes."""

    prefix: str
    service: str
    deadline: float = 20.0
    body_limit: int = MIB
    limit_class: str = "general"
    # Off where a stale Authorization header must not stop the caller: logging in again, and public pictures.
    checks_bearer: bool = True


def _routes(service: str, prefixes: str, **options: float | str | bool) -> list[Route]:
    return [Route(f"/v1/{prefix}", service, **options) for prefix in prefixes.split()]  # type: ignore[arg-type]


UPLOAD: Final = 21 * MIB
"""20 MiB of picture or table, and room for the multipart frame around it."""

ROUTES: Final[tuple[Route, ...]] = (
    *_routes("members", "auth", limit_class="auth", checks_bearer=False),
    *_routes(
        "members", "me me/sessions me/membership me/check-ins me/points me/phone me/certificates me/notices tiers"
    ),
    *_routes("members", "admin/members admin/members.csv admin/certificates admin/audit"),
    *_routes("members", "sandbox/otp sandbox/wechat sandbox/notices"),
    *_routes("members", "admin/members/imports", deadline=60.0, body_limit=UPLOAD),
    Route("/.well-known", "members", checks_bearer=False),
    *_routes("billing", "plans me/subscription admin/subscriptions"),
    *_routes("billing", "redemptions", limit_class="codes"),
    *_routes("billing", "orders", deadline=40.0),
    *_routes("billing", "webhooks", deadline=30.0, limit_class="webhook", checks_bearer=False),
    *_routes("billing", "admin/plans admin/disputes admin/invoice-requests admin/ledger"),
    *_routes("billing", "admin/orders admin/redeem-code-batches admin/reconciliations admin/metrics", deadline=30.0),
    *_routes("billing", "sandbox/checkout", deadline=40.0, checks_bearer=False),
    *_routes("billing", "sandbox/payers sandbox/disputes sandbox/faults", deadline=20.0),
    *_routes("courses", "categories courses lessons live-lessons live-lessons.ics arrivals questions lesson-requests"),
    *_routes(
        "courses", "me/learning admin/lessons admin/live-lessons series instructors admin/series admin/instructors"
    ),
    *_routes("courses", "attachments", checks_bearer=False),
    *_routes("courses", "admin/attachments", deadline=60.0, body_limit=UPLOAD),
    *_routes("courses", "webhooks/livekit", limit_class="webhook", checks_bearer=False),
    *_routes("courses", "sandbox/rooms"),
    *_routes("courses", "admin/courses", deadline=60.0),
    *_routes("courses", "admin/courses/import", deadline=60.0, body_limit=UPLOAD),
    *_routes("referrals", "me/invite me/invitees me/coupons touches partner"),
    *_routes("referrals", "coupons", limit_class="codes"),
    *_routes("referrals", "coupon-campaigns", limit_class="coupons"),
    Route("/i", "referrals", checks_bearer=False),
    Route("/c", "referrals", checks_bearer=False),
    *_routes("referrals", "admin/channels admin/referral-rules admin/attributions admin/fraud-cases"),
    # Files of grants come below a campaign's id; all other bodies there are held to their own limit by the service.
    *_routes("referrals", "admin/coupon-campaigns", deadline=60.0, body_limit=UPLOAD),
    *_routes("referrals", "admin/partners admin/payout-runs", deadline=30.0),
    *_routes("showcase", "contests entries features admin/entries admin/features admin/reports"),
    *_routes("showcase", "admin/contests", deadline=30.0),
    *_routes("showcase", "uploads", deadline=180.0, body_limit=UPLOAD),
    *_routes("showcase", "uploads/files", checks_bearer=False),
    *_routes("gateway", "home me/dashboard"),
    *_routes("gateway", "me/export", deadline=30.0),
    *_routes("gateway", "sandbox/clock", deadline=120.0),
    Route("/", "gateway", checks_bearer=False),
    Route("/docs", "gateway", checks_bearer=False),
    Route("/redoc", "gateway", checks_bearer=False),
    Route("/openapi.json", "gateway", checks_bearer=False),
    Route("/healthz", "gateway", limit_class="none", checks_bearer=False),
    Route("/readyz", "gateway", limit_class="none", checks_bearer=False),
)

_BY_SEGMENTS: Final = {tuple(route.prefix.split("/")[1:]): route for route in ROUTES}
_DEEPEST: Final = max(map(len, _BY_SEGMENTS))

# These are divided among services by their next segment, so they lead nowhere but to themselves.
_DIVIDED: Final = frozenset({("v1", "me"), ("v1", "admin"), ("v1", "sandbox")})


def find(path: str) -> Route | None:
    """The route of a decoded, clean path: the longest prefix of whole segments; None where nothing answers."""
    segments = tuple(path.split("/", _DEEPEST + 1)[1 : _DEEPEST + 1])
    for length in range(len(segments), 0, -1):
        prefix = segments[:length]
        if (route := _BY_SEGMENTS.get(prefix)) is not None:
            return None if prefix in _DIVIDED and length < len(segments) else route
    return None


PLAIN: Final = re.compile(rb"(?:/(?!\.)[A-Za-z0-9_~.@:,=+!$&'()*-]+)+/?")
"""What a well-behaved client sends. Everything else takes the slow look below."""
_FORBIDDEN_ENCODED: Final = re.compile(r"%(?:[01][0-9A-F]|2F|5C|7F|25)", re.IGNORECASE)
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FORBIDDEN_BYTES: Final = re.compile(rb"[\x00-\x20\x7f\\\"<>^`{|}#?]")


class PathTrick(ValueError):
    """A path that two readers could understand differently."""


def clean_path(raw: bytes) -> str:
    """The decoded path of a raw one (RFC 3986 3.3); PathTrick for whatever could be read in two ways.

    Refused: control characters, backslashes and NUL in any spelling, encoded slashes and percent signs, empty and dot
    segments, broken escapes, bytes that are not UTF-8.
    """
    if PLAIN.fullmatch(raw):
        return raw.decode("ascii")
    if not raw.startswith(b"/") or b"//" in raw or _FORBIDDEN_BYTES.search(raw):
        raise PathTrick
    try:
        text = raw.decode("ascii")
        if _FORBIDDEN_ENCODED.search(text) or _BROKEN_ESCAPE.search(text):
            raise PathTrick
        path = unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise PathTrick from error
    # `..;` is how a path parameter hides a dot segment from readers that strip parameters.
    if any(segment.partition(";")[0] in (".", "..") for segment in path.split("/")):
        raise PathTrick
    return path
