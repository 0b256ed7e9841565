"""The route table, and paths that try to get around it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes import ROUTES, SERVICES, PathTrick, clean_path, find
from tests.gateway.conftest import Front


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/v1/me", "members"),
        ("/v1/me/membership/segments", "members"),
        ("/v1/me/subscription/cancel", "billing"),
        ("/v1/me/learning", "courses"),
        ("/v1/me/coupons", "referrals"),
        ("/v1/me/invite/poster.png", "referrals"),
        ("/v1/me/dashboard", "gateway"),
        ("/v1/admin/members/1/membership-grants", "members"),
        ("/v1/admin/orders/1/refunds", "billing"),
        ("/v1/admin/courses/import", "courses"),
        ("/v1/admin/payout-runs/1/items.csv", "referrals"),
        ("/v1/admin/contests/1/settle", "showcase"),
        ("/v1/sandbox/otp", "members"),
        ("/v1/sandbox/checkout/cs_1/pay", "billing"),
        ("/v1/sandbox/clock", "gateway"),
        ("/v1/live-lessons.ics", "courses"),
        ("/v1/live-lessons/1/entry", "courses"),
        ("/.well-known/jwks.json", "members"),
        ("/openapi.json", "gateway"),
    ],
)
def test_a_path_leads_to_its_owner(path: str, service: str) -> None:
    route = find(path)
    assert route is not None
    assert route.service == service


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/internal/clock",
        "/internal/clock",
        "/internal",
        "/v1/me/nothing",
        "/v1/me/",
        "/v1/admin",
        "/v1/admin/nothing",
        "/v1/sandbox",
        "/v1/plansx",
        "/V1/plans",
        "/v2/plans",
        "/metrics",
        "/plans",
    ],
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert find(path) is None


def test_every_prefix_is_named_once_and_by_a_known_service() -> None:
    prefixes = [route.prefix for route in ROUTES]
    assert len(prefixes) == len(set(prefixes))
    assert {route.service for route in ROUTES} == {*SERVICES, "gateway"}


TRICKS = [
    "//v1/plans",
    "/v1//plans",
    "/v1/plans/../../internal/clock",
    "/v1/plans/..",
    "/v1/./plans",
    "/v1/plans/%2e%2e/%2e%2e/internal/clock",
    "/v1/plans/.%2E/x",
    "/v1/plans/..;/internal",
    "/v1/plans/..%3b/internal",
    "/v1/plans%2f..%2finternal",
    "/v1/plans%2Fx",
    "/v1/plans%5c..%5cinternal",
    "/v1/plans\\..\\internal",
    "/v1/plans/%252e%252e/internal",
    "/v1/plans/%00",
    "/v1/plans/%0d%0aSet-Cookie:x",
    "/v1/plans/%7f",
    "/v1/plans/%ff",
    "/v1/plans/%c0%ae%c0%ae/",
    "/v1/plans/%",
    "/v1/plans/%zz",
    "/v1/plans/<script>",
]


@pytest.mark.parametrize("path", TRICKS)
def test_a_path_trick_is_refused(path: str) -> None:
    with pytest.raises(PathTrick):
        clean_path(path.encode())


async def test_path_tricks_over_the_wire_are_400_or_404_and_reach_nobody(front: Front) -> None:
    for path in (*TRICKS, "/%69nternal/clock", "/internal/settle", "/v1/%69nternal", "/v1/x/../plans", "*", "x"):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(front.url.rsplit(":", 1)[1]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        status = int((await asyncio.wait_for(reader.read(), 5)).split(b" ", 2)[1])
        writer.close()
        assert status in (400, 404), path
    assert front.toy.seen == []


def test_ordinary_paths_are_read_as_written() -> None:
    assert clean_path(b"/v1/plans/black-card-1m") == "/v1/plans/black-card-1m"
    assert clean_path(b"/v1/plans/%E9%BB%91%20a;b") == "/v1/plans/黑 a;b"
    assert clean_path(b"/.well-known/jwks.json") == "/.well-known/jwks.json"
    assert clean_path(b"/v1/uploads/files/a..b/c.") == "/v1/uploads/files/a..b/c."


@given(st.binary(max_size=60))
def test_whatever_the_bytes_a_path_is_clean_or_refused(raw: bytes) -> None:
    try:
        path = clean_path(b"/" + raw)
    except PathTrick:
        return
    segments = path.split("/")[1:]
    assert all(segment not in (".", "..") for segment in segments)
    assert all(segments[:-1])
    assert all(ord(letter) > 31 and letter not in "\\\x7f" for letter in path)
