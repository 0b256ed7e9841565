"""One trace from the gateway over the service to the event's handler, and what logs and metrics say of the same request."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import REGISTRY
from starlette.types import ASGIApp

from gateway import routes
from gateway.http_upstream import HttpUpstream
from gateway.routes import Route
from kit import spans
from kit.log import configure_logs
from tests.gateway.conftest import Start
from tests.gateway.toy import serving
from tests.harness import Run
from tests.kit.conftest import heard, service, trouble

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    monkeypatch.setitem(routes._BY_SEGMENTS, ("v1", "notes"), Route("/v1/notes", "billing"))
    heard.clear()
    trouble.clear()
    exporter = InMemorySpanExporter()
    yield exporter
    spans.switch_off()


def counted(**labels: str) -> float:
    return REGISTRY.get_sample_value("heika_request_seconds_count", labels) or 0.0


def answers_of_billing() -> float:
    labels = {"upstream": "billing", "outcome": "2xx"}
    return REGISTRY.get_sample_value("heika_upstream_seconds_count", labels) or 0.0


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


@pytest.mark.parametrize("kind", ["in this process", "http"])
async def test_a_request_its_service_and_its_event_are_one_trace(
    kind: str, run: Run, start_here: Start, exported: InMemorySpanExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(run(service, background=True))
        app: ASGIApp = api.client._transport.app  # type: ignore[attr-defined]
        if kind == "http":
            app = HttpUpstream(await stack.enter_async_context(serving(app)))
            stack.push_async_callback(app.close)
        front = await stack.enter_async_context(start_here(upstreams={"billing": app}))
        spans.switch_on(SimpleSpanProcessor(exported))
        labels = {"service": "gateway", "method": "POST", "route": "/v1/notes", "status": "201"}
        before, answered = counted(**labels), answers_of_billing()
        configure_logs("info")
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-Id": "mine-7"}
        answer = await front.client.post("/v1/notes?phone=13800138000", json={"words": "traced"}, headers=headers)
        assert answer.status_code == 201
        assert "x-heika-route" not in answer.headers
        async with asyncio.timeout(10):
            while len(exported.get_finished_spans()) < 3:  # noqa: ASYNC110 - the consumer has a pace of its own
                await asyncio.sleep(0.01)
        configure_logs("error")
        assert counted(**labels) == before + 1
        assert answers_of_billing() == answered + 1
        await front.client.get("/v1/notes/crash", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        await front.client.get("/v1/notes", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"})
    by_name = {(span.resource.attributes["service.name"], span.name): span for span in exported.get_finished_spans()}
    assert by_name.keys() == {
        ("heika-gateway", "POST /v1/notes"),
        ("heika-probe", "POST /v1/notes"),
        ("heika-probe", "process probe.note.written"),
        ("heika-gateway", "GET /v1/notes/crash"),
        ("heika-probe", "GET /v1/notes/crash"),
    }
    front_span, behind = by_name["heika-gateway", "POST /v1/notes"], by_name["heika-probe", "POST /v1/notes"]
    handled = by_name["heika-probe", "process probe.note.written"]
    assert {span.context.trace_id for span in by_name.values()} == {int(TRACE, 16)}
    assert parent_of(front_span) == int("b7ad6b7169203331", 16)
    assert parent_of(behind) == front_span.context.span_id
    assert parent_of(handled) == behind.context.span_id
    assert (front_span.kind, behind.kind, handled.kind) == (SpanKind.SERVER, SpanKind.SERVER, SpanKind.CONSUMER)
    assert behind.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/notes",
        "http.response.status_code": 201,
    }
    assert by_name["heika-probe", "GET /v1/notes/crash"].status.status_code is StatusCode.ERROR
    assert front_span.status.status_code is StatusCode.UNSET
    assert (behind.start_time or 0) <= (behind.end_time or 0) <= (handled.end_time or 0)
    printed = capsys.readouterr().err
    assert "13800138000" not in printed
    line = next(line for line in printed.splitlines() if '"service":"gateway"' in line)
    assert '"route":"/v1/notes"' in line
    assert '"request_id":"mine-7"' in line
    assert f'"trace":["{TRACE}"]' in line


async def test_a_handler_that_fails_is_a_failed_span(run: Run, exported: InMemorySpanExporter) -> None:
    async with run(service, background=True) as api:
        spans.switch_on(SimpleSpanProcessor(exported))
        trouble.append(RuntimeError("as asked"))
        assert (await api.client.post("/v1/notes", json={"words": "troubled"})).status_code == 201
        async with asyncio.timeout(10):
            while not await api.sql("SELECT 1 FROM event_failure"):  # noqa: ASYNC110 - the consumer has its pace
                await asyncio.sleep(0.01)
    handled = next(span for span in exported.get_finished_spans() if span.kind is SpanKind.CONSUMER)
    assert handled.status.status_code is StatusCode.ERROR


def test_a_share_of_all_traces_is_the_same_for_every_process(exported: InMemorySpanExporter) -> None:
    spans.switch_on(SimpleSpanProcessor(exported), 0.5)
    for number in range(16):
        trace = f"{'a' * 16}{number:x}{'0' * 15}"
        for name in ("gateway", "billing"):
            spans.request(name, "GET", "/v1/plans", 200, 0.001, f"00-{trace}-b7ad6b7169203331-01", None)
    told = [span.context.trace_id for span in exported.get_finished_spans()]
    assert len(told) == 16
    assert all(told.count(trace) == 2 for trace in told)


def test_traces_that_are_off_load_nothing() -> None:
    code = "import sys, gateway.app, kit.app; sys.exit('opentelemetry.sdk.trace' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
