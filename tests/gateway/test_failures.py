"""What a caller and the log are told of a service that fails, wherever it runs and whether it is traced or not."""

from contextlib import AsyncExitStack

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
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
from tests.kit.conftest import service


def failures_of_billing() -> float:
    labels = {"upstream": "billing", "outcome": "5xx"}
    return REGISTRY.get_sample_value("heika_upstream_seconds_count", labels) or 0.0


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kind", ["in this process", "http"])
async def test_a_service_that_fails_is_a_500_that_the_log_explains(
    kind: str,
    *,
    traced: bool,
    run: Run,
    start_here: Start,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(routes._BY_SEGMENTS, ("v1", "notes"), Route("/v1/notes", "billing"))
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(run(service))
        app: ASGIApp = api.client._transport.app  # type: ignore[attr-defined]
        if kind == "http":
            app = HttpUpstream(await stack.enter_async_context(serving(app)))
            stack.push_async_callback(app.close)
        front = await stack.enter_async_context(start_here(upstreams={"billing": app}))
        if traced:
            spans.switch_on(SimpleSpanProcessor(InMemorySpanExporter()))
            stack.callback(spans.switch_off)
        configure_logs("info")
        before = failures_of_billing()
        answer = await front.client.get("/v1/notes/crash", headers={"X-Request-Id": "mine-8", "Accept-Language": "en"})
        configure_logs("error")
    assert failures_of_billing() == before + 1
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["request_id"]) == (500, "internal", "mine-8")
    assert answer.headers.get_list("x-request-id") == ["mine-8"]
    assert "quote request_id" in problem["detail"]
    lines = [line for line in capsys.readouterr().err.splitlines() if '"request_id":"mine-8"' in line]
    [told] = [line for line in lines if "request failed" in line]
    assert "Traceback" in told
    assert '"route":"/v1/notes/crash"' in told
    [asked] = [line for line in lines if '"service":"gateway"' in line]
    assert '"status":500' in asked
