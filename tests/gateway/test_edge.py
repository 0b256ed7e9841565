"""The edge: nginx with the configuration that the route table makes, in front of a gateway and of every service."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.app import build
from gateway.edge import UPSTREAMS, configuration
from gateway.limits import POLICIES, Policy
from gateway.routes import MIB, ROUTES, SERVICES, find
from kit.settings import Settings
from onebox import documents
from tests import nginx
from tests.gateway.toy import Toy, serving
from tests.onebox.conftest import free_port

ORIGIN = "https://h5.example.com"
AWAY = "http://127.0.0.1:9"


class Named:
    """An app whose answers say in a header whose they are, and which can be slower than one may wait."""

    def __init__(self, name: str, app: ASGIApp) -> None:
        self.name = name
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-answered-by", self.name.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, named)


@dataclass
class Edge:
    """nginx over real sockets, and what it wrote about requests."""

    client: httpx.AsyncClient
    port: int
    requests: Path

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.requests.read_text().splitlines()]


@asynccontextmanager
async def edge(folder: Path, *, away: str = "", **options: Any) -> AsyncIterator[Edge]:
    """A toy of its own behind each service's prefixes, a gateway behind what is left; `away` is a service that is not there."""
    settings = Settings(**({"env": "production", "limits_mode": "strict"} | options))
    toys: dict[str, ASGIApp] = {name: Toy() for name in SERVICES}
    behind = Settings(env="sandbox", limits_mode="off", allowed_origins=settings.allowed_origins)
    toys["gateway"] = build(toys, behind)
    port = free_port()
    async with AsyncExitStack() as stack:
        addresses = {
            name: AWAY if name == away else await stack.enter_async_context(serving(Named(name, toys[name])))
            for name in UPSTREAMS
        }
        stack.enter_context(nginx.running(folder, configuration(settings, addresses, f"127.0.0.1:{port}")))
        base = f"http://127.0.0.1:{port}"
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=base, timeout=10.0, trust_env=False))
        for _ in range(100):
            try:
                await client.get("/healthz")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
        yield Edge(client, port, folder / "requests.log")


def test_the_committed_configuration_is_what_the_route_table_says() -> None:
    assert documents.NGINX.read_text() == documents.edge()


def test_addresses_origins_and_ports_that_would_break_the_file_are_refused() -> None:
    addresses = {name: f"http://{name}:8000" for name in UPSTREAMS}
    for bad in ("https://members:8000", "members:8000", "http://members:8000/v1", "http://a;b"):
        with pytest.raises(ValueError, match="no address of members"):
            configuration(Settings(), addresses | {"members": bad})
    with pytest.raises(ValueError, match="HEIKA_ALLOWED_ORIGINS"):
        configuration(Settings(allowed_origins=('https://a" "x',)), addresses)
    with pytest.raises(ValueError, match="listen on"):
        configuration(Settings(), addresses, "80; root /")
    with pytest.raises(ValueError, match="HEIKA_LIMITS=off"):
        configuration(Settings(limits_mode="off"), addresses)
    relaxed = configuration(Settings(env="sandbox"), addresses)
    assert "zone=auth:10m rate=12000r/m;" in relaxed
    assert "Strict-Transport-Security" not in relaxed
    assert "limit_req_zone" not in configuration(Settings(env="sandbox", limits_mode="off"), addresses)
    trusting = configuration(Settings(trusted_proxies=("10.1.2.3/8", "::1")), addresses)
    assert "set_real_ip_from 10.0.0.0/8;\n  set_real_ip_from ::1/128;\n  real_ip_header X-Forwarded-For;" in trusting


@nginx.needed
async def test_every_prefix_goes_straight_to_its_service_and_all_else_to_the_gateway(tmp_path: Path) -> None:
    async with edge(tmp_path, limits_mode="relaxed", env="sandbox") as front:
        for route in ROUTES:
            # The gateway's own answers are composed of others', and take their time over toys.
            exact = () if route.service == "gateway" or route.prefix == "/.well-known" else (route.prefix,)
            for path in (*exact, f"{route.prefix.rstrip('/')}/17/more"):
                answer = await front.client.get(path)
                found = find(path)
                assert answer.headers["x-answered-by"] == (found.service if found else "gateway"), path
                if found is None:
                    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        # Whatever two readers could understand differently is the gateway's to judge, as it came.
        tricks = (
            "/v1/plans/../internal/clock",
            "/v1/plans/%2e%2e/x",
            "//internal/clock",
            "/v1/plans%2fx",
            "/.refused/400",
        )
        for path in (*tricks, "/internal/clock", "/internal/export", "/v1/nothing", "/v1/me/nothing", "/metrics"):
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            said = (await reader.read()).decode()
            writer.close()
            assert said.startswith("HTTP/1.1 40"), (path, said)
            assert "application/problem+json" in said
            assert "x-answered-by: members" not in said
        escaped = await front.client.get("/v1/plans/%E9%BB%91?q=%2F&a=1")
        assert (escaped.headers["x-answered-by"], escaped.json()["raw_path"]) == ("gateway", "/v1/plans/%E9%BB%91")
        assert (await front.client.get("/v1/plans?q=%2F..%2F&a=//")).json()["query"] == "q=%2F..%2F&a=//"
        # Nothing was refused by nginx itself, and nothing else is its to tell.
        assert {line["status"] for line in front.logged()} <= {404, 400}


@nginx.needed
async def test_a_request_arrives_whole_and_says_nothing_of_its_own_about_who_calls(tmp_path: Path) -> None:
    async with edge(tmp_path, allowed_origins=(ORIGIN,)) as front:
        claimed = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "X-Heika-Client-Address", "Forwarded"), "9.9.9.9")
        body = bytes(range(256)) * 100
        answer = await front.client.patch(
            "/v1/plans/echo",
            content=body,
            headers=claimed | {"X-Thing": "one", "X-Request-Id": "mine", "If-Match": '"3"'},
        )
        seen = answer.json()
        headers = dict(seen["headers"])
        assert (seen["method"], seen["client"], b64decode(seen["body"])) == ("PATCH", "127.0.0.1", body)
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert not {"x-real-ip", "x-heika-client-address", "forwarded", "x-heika-head", "upgrade"} & headers.keys()
        assert (headers["x-thing"], headers["if-match"], headers["x-request-id"]) == ("one", '"3"', "mine")
        assert answer.headers["x-request-id"] == "mine"
        assert (await front.client.get("/v1/plans/echo", headers={"X-Request-Id": 'a"b'})).headers[
            "x-request-id"
        ] != 'a"b'
        # What a service did not say is added, what it said stands.
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "access-control-allow-origin" not in answer.headers
        for path in ("/v1/plans/echo", "/v1/home"):
            private = await front.client.get(path, headers={"Authorization": "Basic x", "Origin": ORIGIN})
            assert private.headers.get_list("cache-control") == ["private, no-store"]
            assert private.headers.get_list("access-control-allow-origin") == [ORIGIN]
            assert private.headers.get_list("access-control-allow-credentials") == ["true"]
            assert "RateLimit" in private.headers["access-control-expose-headers"]
            assert private.headers.get_list("x-content-type-options") == ["nosniff"]
            assert "Origin" in private.headers["vary"]
            foreign = await front.client.get(path, headers={"Origin": "https://evil.example"})
            assert "access-control-allow-origin" not in foreign.headers
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        preflight = await front.client.options("/v1/orders", headers=asked)
        assert (preflight.status_code, preflight.headers["x-answered-by"]) == (200, "gateway")
        assert preflight.headers.get_list("access-control-allow-origin") == [ORIGIN]
        head = await front.client.head("/v1/plans/small")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "15")
        packed = await front.client.get("/v1/plans/big", headers={"Accept-Encoding": "gzip"})
        assert (packed.headers["content-encoding"], len(packed.json())) == ("gzip", 5000)
        tagged = await front.client.get("/v1/admin/plans/tagged", headers={"Accept-Encoding": "gzip"})
        assert tagged.headers["etag"] == '"3"'
        socket = f"http://127.0.0.1:{front.port}/v1/live-lessons/1/chat?a=1"
        async with aiohttp.ClientSession() as session, session.ws_connect(socket, protocols=["chat"]) as ours:
            assert json.loads(await ours.receive_str(timeout=3))["path"] == "/v1/live-lessons/1/chat"
            await ours.send_str("你好")
            assert await ours.receive_str(timeout=3) == "你好"


@nginx.needed
async def test_what_nginx_refuses_is_a_problem_like_any_other(tmp_path: Path) -> None:
    async with edge(tmp_path, away="referrals") as front:
        answer = await front.client.post("/v1/orders", content=b"x" * (MIB + 1), headers={"X-Request-Id": "large"})
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["request_id"]) == (413, "payload_too_large", "large")
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["detail"].startswith("内容超过")
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert (await front.client.post("/v1/uploads/small", content=b"x" * 20 * MIB)).status_code == 200
        assert (await front.client.post("/v1/uploads/small", content=b"x" * 22 * MIB)).status_code == 413
        english = {"Accept-Language": "en-GB, zh;q=0.5"}
        answer = await front.client.get("/v1/me/coupons?secret=1", headers=english)
        assert (answer.status_code, answer.json()["code"], answer.json()["title"]) == (
            502,
            "bad_upstream",
            "Bad gateway",
        )
        swollen = await front.client.get("/v1/plans", headers={"X-Long": "x" * 40_000})
        assert (swollen.status_code, swollen.json()["code"]) == (431, "head_too_large")
        long = await front.client.get("/v1/plans?" + "x" * 40_000)
        assert (long.status_code, long.json()["code"]) == (431, "head_too_large")
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"nonsense\r\n\r\n")
        said = (await reader.read()).decode()
        writer.close()
        assert '"code": "bad_request"' in said
        # The others go on, and the log names neither a query nor an address.
        assert (await front.client.get("/v1/plans")).status_code == 200
        lines = front.logged()
        assert sorted(line["status"] for line in lines) == [400, 413, 413, 431, 431, 502]
        assert "secret" not in json.dumps(lines)
        assert "127.0.0.1" not in json.dumps(lines)


@nginx.needed
async def test_logins_from_one_address_are_limited_as_at_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(POLICIES, "auth", (Policy("login", "address", 2),))
    async with edge(tmp_path) as front:
        answers = [await front.client.post("/v1/auth/token") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (answers[2].json()["code"], answers[2].json()["action"]) == ("rate_limited", "retry_after")
        assert answers[2].headers["retry-after"] == "1"
        assert (await front.client.get("/v1/plans")).status_code == 200
