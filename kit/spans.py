"""Spans: what OpenTelemetry is told of each request and each handled event, once they are over, where it is switched on."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kit import trace
from kit.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


class Span(NamedTuple):
    """Work that is over; its ids are those that requests and events carry anyway."""

    service: str
    kind: Literal["server", "consumer"]
    name: str
    attributes: dict[str, Any]
    failed: bool
    seconds: float
    traceparent: str | None
    parent: str | None


tell: Callable[[Span], None] | None = None
"""None while traces are off, which is all that they cost then."""

_finish: Callable[[], None] | None = None


def switch_on(processor: "SpanProcessor", ratio: float = 1.0) -> None:
    """Tell this processor from now on, of this share of all traces; each process chooses the same ones."""
    global tell, _finish
    # Loading it takes as long as starting a service.
    from kit.telemetry import Teller  # noqa: PLC0415

    teller = Teller(processor, ratio)
    tell, _finish = teller.tell, teller.finish


def switch_off() -> None:
    """Send what is left, and tell nothing any more."""
    global tell, _finish  # noqa: PLW0603
    if _finish is not None:
        _finish()
    tell = _finish = None


def start(settings: Settings) -> None:
    """Switch on where an endpoint is set; a second service of the same process changes nothing."""
    if not settings.traces_endpoint or tell is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    endpoint = f"{settings.traces_endpoint.rstrip('/')}/v1/traces"
    switch_on(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)), settings.traces_ratio)


def child_of(traceparent: str | None) -> str | None:
    """A traceparent for work that this one caused; the same one while traces are off."""
    return traceparent if tell is None else trace.next_traceparent(traceparent)


def request(
    service: str, method: str, route: str, status: int, seconds: float, traceparent: str | None, parent: str | None
) -> None:
    """A request is over; `route` is its template, never its path."""
    if tell is not None:
        attributes = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        tell(Span(service, "server", f"{method} {route}", attributes, failed, seconds, traceparent, parent))


def event(service: str, kind: str, began: float, traceparent: str | None, parent: str | None, *, failed: bool) -> None:
    """An event was handled, or was not; `began` is of `time.perf_counter`."""
    if tell is not None:
        attributes = {"messaging.operation.type": "process", "messaging.destination.name": kind}
        seconds = time.perf_counter() - began
        tell(Span(service, "consumer", f"process {kind}", attributes, failed, seconds, traceparent, parent))
