"""What passes through the gateway, for both kinds of upstream."""

import asyncio
import gzip
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from gateway import proxy, routes, ways
from gateway.http_upstream import HttpUpstream
from kit.http import HEAD_ONLY
from tests.gateway.conftest import Front, Start
from tests.gateway.toy import Toy, leaked, serving


def headers_of(answer: httpx.Response, name: str) -> list[str]:
    return [value for key, value in answer.json()["headers"] if key == name]


def with_route(monkeypatch: pytest.MonkeyPatch, prefix: str, **changes: object) -> None:
    key = tuple(prefix.split("/")[1:])
    monkeypatch.setitem(routes._BY_SEGMENTS, key, replace(routes._BY_SEGMENTS[key], **changes))  # type: ignore[arg-type]
    ways.known.cache_clear()


async def test_method_path_query_headers_and_body_arrive_as_sent(front: Front) -> None:
    body = bytes(range(256)) * 100
    answer = await front.client.request(
        "PATCH",
        "/v1/plans/%E9%BB%91-%41?a=1&a=2&b=%00%2F&c=+",
        content=body,
        headers=[("X-Thing", "one"), ("X-Thing", "two"), ("Content-Type", "application/x-odd")],
    )
    assert answer.status_code == 200
    seen = answer.json()
    assert seen["method"] == "PATCH"
    assert seen["path"] == "/v1/plans/黑-A"
    assert seen["raw_path"] == "/v1/plans/%E9%BB%91-%41"
    assert seen["query"] == "a=1&a=2&b=%00%2F&c=+"
    assert b64decode(seen["body"]) == body
    assert headers_of(answer, "x-thing") == ["one", "two"]
    assert headers_of(answer, "content-type") == ["application/x-odd"]
    assert headers_of(answer, "content-length") == ["25600"]


async def test_a_chunked_body_arrives_whole(front: Front) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"0123456789"

    answer = await front.client.post("/v1/plans/echo", content=parts())
    assert b64decode(answer.json()["body"]) == b"0123456789" * 10


async def test_a_large_upload_streams_through_and_a_larger_one_is_413(front: Front) -> None:
    body = b"z" * (20 * 1024 * 1024)
    answer = await front.client.post("/v1/uploads", content=body)
    assert answer.status_code == 200
    assert len(b64decode(answer.json()["body"])) == len(body)

    async def more() -> AsyncIterator[bytes]:
        for _ in range(22):
            yield b"z" * (1024 * 1024)

    for content in (body + b"z" * (2 * 1024 * 1024), more()):
        # Who sends everything before they read gets the answer, too.
        answer = await front.client.post("/v1/uploads", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_a_json_body_over_one_mebibyte_is_413_and_reaches_nobody(front: Front) -> None:
    for size in (1024 * 1024 + 1, 10 * 1024 * 1024):
        answer = await front.client.post("/v1/orders/echo", content=b" " * size)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert front.toy.seen == []


async def test_several_cookies_and_redirects_pass_untouched(front: Front) -> None:
    answer = await front.client.get("/v1/plans/cookies")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2; Path=/"]
    # Another caller over the same pooled connection brings none of them.
    async with httpx.AsyncClient(base_url=front.url, trust_env=False) as fresh:
        assert headers_of(await fresh.get("/v1/plans/echo"), "cookie") == []
    moved = await front.client.get("/v1/plans/redirect")
    assert (moved.status_code, moved.headers["location"]) == (307, "https://elsewhere.example/")


async def test_what_a_caller_says_about_itself_is_replaced(front: Front) -> None:
    answer = await front.client.get(
        "/v1/plans/echo",
        headers={
            "X-Heika-Client-Address": "9.9.9.9",
            "X-Heika-Caller": "admin",
            "X-Forwarded-For": "8.8.8.8",
            "X-Forwarded-Proto": "https",
            "X-Real-IP": "7.7.7.7",
            "Forwarded": "for=6.6.6.6",
            "Connection": "close, X-Secret",
            "X-Secret": "for this hop",
            "TE": "trailers",
        },
    )
    seen = dict(answer.json()["headers"])
    assert seen["x-heika-client-address"] == "127.0.0.1"
    assert headers_of(answer, "x-forwarded-for") == ["127.0.0.1"]
    assert answer.json()["client"] == "127.0.0.1"
    assert seen.keys().isdisjoint(
        {"x-heika-caller", "x-forwarded-proto", "x-real-ip", "forwarded", "x-secret", "te", "connection"}
    )


async def test_behind_a_trusted_proxy_the_rightmost_untrusted_hop_is_the_caller(start: Start) -> None:
    async with start(trusted_proxies=("127.0.0.0/8", "10.0.0.0/8")) as front:
        answer = await front.client.get("/v1/plans/echo", headers={"X-Forwarded-For": "1.1.1.1, 2.2.2.2, 10.0.0.7"})
    assert dict(answer.json()["headers"])["x-heika-client-address"] == "2.2.2.2"


async def test_a_sane_request_id_is_kept_and_another_replaced(front: Front) -> None:
    kept = await front.client.get("/v1/plans/echo", headers={"X-Request-Id": "mine-1"})
    assert kept.headers.get_list("x-request-id") == ["mine-1"]
    assert headers_of(kept, "x-request-id") == ["mine-1"]
    for odd in ("has space", "x" * 129, "é"):
        answer = await front.client.get("/v1/nowhere", headers=[(b"X-Request-Id", odd.encode())])
        assert len(answer.headers["x-request-id"]) == 36
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_trace_goes_on_and_one_is_begun_where_there_is_none(front: Front) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await front.client.get("/v1/plans/echo", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    (passed,) = headers_of(answer, "traceparent")
    assert passed.startswith(f"00-{trace}-")
    assert "b7ad6b7169203331" not in passed
    (begun,) = headers_of(await front.client.get("/v1/plans/echo", headers={"traceparent": "odd"}), "traceparent")
    assert len(begun) == 55


async def test_events_arrive_one_by_one_and_are_not_compressed(front: Front) -> None:
    async with front.client.stream("GET", "/v1/orders/1/events", headers={"Accept-Encoding": "gzip"}) as answer:
        assert "content-encoding" not in answer.headers
        chunks = answer.aiter_raw()
        assert await asyncio.wait_for(anext(chunks), 2) == b"event: status\ndata: 1\n\n"
        front.toy.release.set()
        assert await asyncio.wait_for(anext(chunks), 2) == b"event: status\ndata: 2\n\n"


async def test_a_caller_who_leaves_ends_the_stream_behind_and_it_is_no_failure(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", "uvicorn.error")
    async with front.client.stream("GET", "/v1/orders/1/events") as answer:
        await anext(answer.aiter_raw())
    assert await asyncio.wait_for(front.toy.ended.wait(), 3)
    assert (await front.client.get("/v1/plans/small")).status_code == 200
    assert caplog.text == ""


async def test_a_stream_outlives_the_deadline_of_its_start(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    with_route(monkeypatch, "/v1/orders", deadline=0.2)
    async with front.client.stream("GET", "/v1/orders/1/events") as answer:
        chunks = answer.aiter_raw()
        await anext(chunks)
        await asyncio.sleep(0.4)
        front.toy.release.set()
        assert await anext(chunks) == b"event: status\ndata: 2\n\n"


async def test_head_is_get_without_the_body(front: Front) -> None:
    async with asyncio.timeout(3):
        got, head = await front.client.get("/v1/plans/small"), await front.client.head("/v1/plans/small")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"] == "15"
        assert head.headers["etag"] == got.headers["etag"]
        page = await front.client.head("/docs")
        assert (page.status_code, page.content) == (200, b"")
        stream = await front.client.head("/v1/orders/1/events", headers={HEAD_ONLY: "2"})
    assert stream.headers["content-type"] == "text/event-stream"
    assert front.toy.seen == ["GET /v1/plans/small", "GET /v1/plans/small", "GET /v1/orders/1/events"]
    # A service that would use something up by answering is told; nobody else can say so.
    assert front.toy.asked_for_head == [False, True, True]
    await front.client.get("/v1/plans/small", headers={HEAD_ONLY: "1"})
    assert front.toy.asked_for_head[-1] is False
    assert await asyncio.wait_for(front.toy.ended.wait(), 3)


async def test_nothing_stays_nothing(front: Front) -> None:
    answer = await front.client.delete("/v1/plans/nothing")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert "transfer-encoding" not in answer.headers


async def test_large_answers_compress_on_request_only(front: Front) -> None:
    async def get(word: str, accepts: str) -> tuple[str | None, bytes]:
        request = front.client.build_request("GET", f"/v1/plans/{word}", headers={"Accept-Encoding": accepts})
        answer = await front.client.send(request, stream=True)
        return answer.headers.get("content-encoding"), b"".join([part async for part in answer.aiter_raw()])

    encoding, packed = await get("big", "br, gzip")
    assert encoding == "gzip"
    assert gzip.decompress(packed) == b'"' + b"x" * 5000 + b'"'
    assert len(packed) < 200
    assert (await get("big", "identity"))[0] is None
    assert (await get("big", "gzip;q=0"))[0] is None
    assert (await get("small", "gzip"))[0] is None
    assert await get("packed", "gzip") == ("br", b"x" * 5000)
    plain = await front.client.get("/v1/plans/big", headers={"Accept-Encoding": "identity"})
    packed_too = await front.client.get("/v1/plans/big", headers={"Accept-Encoding": "gzip"})
    assert plain.headers["vary"] == packed_too.headers["vary"] == "Accept-Encoding"
    encoding, packed = await get("huge", "gzip")
    assert encoding == "gzip"
    assert gzip.decompress(packed) == b"y" * (64 * 65536)


async def test_public_answers_get_a_tag_and_private_ones_do_not(front: Front) -> None:
    first = await front.client.get("/v1/plans/small")
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    again = await front.client.get("/v1/plans/small", headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "content-length" not in again.headers
    tagged = await front.client.get("/v1/plans/tagged", headers={"If-None-Match": 'W/"3"'})
    assert (tagged.status_code, tagged.headers["etag"]) == (304, '"3"')
    private = await front.client.get("/v1/auth/small", headers={"Authorization": "Bearer x"})
    assert private.headers["cache-control"] == "private, no-store"
    assert "etag" not in private.headers
    assert "etag" not in (await front.client.post("/v1/plans/small")).headers


async def test_a_crash_is_an_error_and_the_next_call_works(front: Front) -> None:
    for word in ("crash", "silent"):
        answer = await front.client.get(f"/v1/plans/{word}", headers={"Accept-Language": "en"})
        # Behind a server of its own a crash is that server's 500; the gateway passes on what it is given.
        assert answer.status_code == (500 if isinstance(front.gateway.upstreams["billing"], HttpUpstream) else 502)
        assert answer.headers["x-request-id"]
    assert (await front.client.get("/v1/plans/small")).status_code == 200


async def test_half_an_answer_does_not_look_whole(front: Front) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await front.client.get("/v1/plans/half")
    assert (await front.client.get("/v1/plans/small")).status_code == 200


async def test_a_service_that_dawdles_is_504(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    with_route(monkeypatch, "/v1/plans", deadline=0.2)
    answer = await front.client.post("/v1/plans/slow", headers={"Accept-Language": "en"})
    assert (answer.status_code, answer.json()["code"]) == (504, "upstream_timeout")
    assert answer.json()["detail"].startswith("The service behind this address did not answer in time")
    assert (await front.client.get("/v1/plans/small")).status_code == 200


async def test_a_service_that_ignores_its_deadline_holds_up_nobody(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_route(monkeypatch, "/v1/plans", deadline=0.1)
    began = asyncio.get_running_loop().time()
    answer = await front.client.get("/v1/plans/stubborn")
    assert (answer.status_code, answer.json()["code"]) == (504, "upstream_timeout")
    # Its own answer comes later, and to nobody: the connection goes on with the next one.
    assert (await front.client.get("/v1/plans/small")).json() == {"hello": "you"}
    assert asyncio.get_running_loop().time() - began < 0.5
    await asyncio.sleep(0.6)
    assert (await front.client.get("/v1/plans/small")).json() == {"hello": "you"}


@pytest.mark.parametrize("path", ["/v1/orders/echo", "/v1/uploads", "/v1/sandbox/clock"])
async def test_a_body_that_does_not_arrive_is_408(front: Front, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(proxy, "BODY_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(front.url.rsplit(":", 1)[1]))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


@pytest.mark.parametrize("path", ["/v1/orders/echo", "/v1/uploads", "/v1/sandbox/clock"])
async def test_a_body_announced_too_large_is_413_before_it_is_sent(front: Front, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(front.url.rsplit(":", 1)[1]))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 209715200\r\n\r\nhalf".encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_nothing_leaks_through_context_variables(start_here: Start) -> None:
    leaked.set("from the test")
    async with start_here() as front:
        answer = await front.client.get("/v1/plans/echo")
        assert answer.json()["leaked"] == "from the toy"
        assert leaked.get() == "from the test"


async def test_a_stopped_service_is_503_at_once_others_answer_and_it_is_back_when_started(start_here: Start) -> None:
    async with serving(Toy()) as address:
        port = int(address.rsplit(":", 1)[1])
        dead = HttpUpstream(address)
    async with start_here(upstreams={"billing": dead}) as front:
        started = asyncio.get_running_loop().time()
        for method in ("GET", "POST"):
            answer = await front.client.request(method, "/v1/plans/small")
            assert (answer.status_code, answer.json()["code"]) == (503, "upstream_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert asyncio.get_running_loop().time() - started < 2
        assert (await front.client.get("/v1/courses/small")).status_code == 200
        ready = await front.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["services"]["billing"] == {"status": "unavailable"}
        async with serving(Toy(), port=port):
            assert (await front.client.get("/v1/plans/small")).status_code == 200
        await dead.close()


async def test_header_bytes_that_are_not_utf8_do_no_harm(front: Front) -> None:
    answer = await front.client.get("/v1/plans/echo", headers=[(b"Stripe-Signature", b"t=\xff\xfe\xe9")])
    assert answer.status_code == 200
    assert len(headers_of(answer, "stripe-signature")) == 1
