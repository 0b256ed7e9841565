"""Upstreams that refuse, hang up or hang: what is tried again, and when nobody has to wait any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import circuit
from gateway.circuit import Circuit
from gateway.http_upstream import HttpUpstream
from tests.gateway.conftest import Start
from tests.gateway.test_proxy import with_route
from tests.gateway.toy import Toy, serving


class Rude:
    """A server that takes requests and hangs up, or says nothing at all; `heads` are the lines it has read."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs
        self.heads: list[str] = []

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n", 1)[0])
            if self.hangs:
                await reader.read()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def rude(*, hangs: bool = False) -> AsyncIterator[tuple[Rude, HttpUpstream]]:
    server = Rude(hangs=hangs)
    listening = await asyncio.start_server(server.meet, "127.0.0.1", 0)
    upstream = HttpUpstream(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    try:
        yield server, upstream
    finally:
        await upstream.close()
        listening.close()


async def test_only_what_may_be_repeated_is_tried_again_and_only_once(start_here: Start) -> None:
    async with rude() as (server, upstream), start_here(upstreams={"billing": upstream}) as front:
        for method, tries in (("GET", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1)):
            server.heads.clear()
            answer = await front.client.request(method, "/v1/plans/x", content=b"{}" if method != "GET" else None)
            assert (answer.status_code, answer.json()["code"]) == (502, "bad_upstream"), method
            assert server.heads == [f"{method} /v1/plans/x HTTP/1.1"] * tries
        server.heads.clear()
        # A body that streams cannot be sent again.
        assert (await front.client.put("/v1/uploads/x", content=b"z" * 2_000_000)).status_code == 200
        assert server.heads == []


async def test_a_circuit_opens_when_nothing_answers_and_closes_with_the_first_answer(
    start_here: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit, "PATIENCE_S", 0.1)
    monkeypatch.setattr(circuit, "TRIAL_S", 0.1)
    with_route(monkeypatch, "/v1/plans", deadline=0.6)
    async with rude(hangs=True) as (server, upstream):
        guarded = Circuit("billing", upstream)
        async with start_here(upstreams={"billing": guarded}) as front:
            assert (await front.client.get("/v1/plans/x")).status_code == 504
            assert guarded.open
            assert circuit.OPEN.labels("billing")._value.get() == 1
            server.heads.clear()
            with_route(monkeypatch, "/v1/plans", deadline=20.0)
            loop = asyncio.get_running_loop()
            began = loop.time()
            answers = await asyncio.gather(*(front.client.post("/v1/plans/x") for _ in range(20)))
            assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
                (503, "upstream_unavailable")
            }
            assert all(answer.headers["retry-after"] == "1" for answer in answers)
            assert loop.time() - began < 10
            # They shared the question, and none of them reached the service.
            assert set(server.heads) == {"GET /healthz HTTP/1.1"}
            assert len(server.heads) < 20
            assert (await front.client.get("/v1/courses/small")).status_code == 200
            async with serving(Toy()) as address:
                guarded.upstream = back = HttpUpstream(address)
                assert (await front.client.get("/v1/plans/small")).status_code == 200
                assert circuit.OPEN.labels("billing")._value.get() == 0
                await back.close()


async def test_a_slow_route_does_not_open_the_circuit(start_here: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit, "PATIENCE_S", 0.1)
    with_route(monkeypatch, "/v1/plans", deadline=0.3)
    async with serving(Toy()) as address:
        guarded = Circuit("billing", HttpUpstream(address))
        async with start_here(upstreams={"billing": guarded}) as front:
            assert (await front.client.get("/v1/plans/slow")).status_code == 504
            assert not guarded.open
            assert (await front.client.get("/v1/plans/small")).status_code == 200
            await guarded.close()


async def test_a_refused_connection_opens_the_circuit_and_a_start_closes_it(start_here: Start) -> None:
    async with serving(Toy()) as address:
        pass
    guarded = Circuit("billing", HttpUpstream(address))
    async with start_here(upstreams={"billing": guarded}) as front:
        assert (await front.client.get("/v1/plans/small")).status_code == 503
        while not guarded.open:  # noqa: ASYNC110 - the question is under way
            await asyncio.sleep(0.01)
        assert (await front.client.get("/v1/plans/small")).status_code == 503
        async with serving(Toy(), port=int(address.rsplit(":", 1)[1])):
            assert (await front.client.get("/v1/plans/small")).status_code == 200
        await guarded.close()
