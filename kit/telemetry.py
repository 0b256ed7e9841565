"""OpenTelemetry's side of traces, loaded only where they are switched on."""

import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from kit.spans import Span
from kit.trace import is_traceparent

KINDS: Mapping[str, SpanKind] = {"server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER}
SAMPLED = "01"


class _Given(IdGenerator):
    """The ids that a request or an event carried while it was under way."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class Teller:
    """Makes spans of what is over; each service is a resource of its own, also where several share a process."""

    def __init__(self, processor: SpanProcessor, ratio: float) -> None:
        self._processor = processor
        self._ratio = ratio
        self._given = _Given()
        self._tracers: dict[str, Tracer] = {}

    def tell(self, told: Span) -> None:
        """One span that has just ended; what its caller did not want sampled is left out."""
        if told.traceparent is None:
            return
        _, trace_id, span_id, flags = told.traceparent.split("-")
        if flags != SAMPLED:
            return
        self._given.trace_id, self._given.span_id = int(trace_id, 16), int(span_id, 16)
        ended = time.time_ns()
        span = self._tracer(told.service).start_span(
            told.name,
            context=_above(told.parent, trace_id),
            kind=KINDS[told.kind],
            attributes=told.attributes,
            start_time=ended - int(told.seconds * 1e9),
        )
        if told.failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)

    def finish(self) -> None:
        """Send what is left."""
        self._processor.shutdown()

    def _tracer(self, service: str) -> Tracer:
        if service not in self._tracers:
            provider = TracerProvider(
                resource=Resource.create({"service.name": f"heika-{service}"}),
                sampler=TraceIdRatioBased(self._ratio),
                id_generator=self._given,
                shutdown_on_exit=False,
            )
            provider.add_span_processor(self._processor)
            self._tracers[service] = provider.get_tracer("heika")
        return self._tracers[service]


def _above(parent: str | None, trace_id: str) -> Context:
    """The context in which `parent` is the span above, if it belongs to the same trace."""
    if not parent or not is_traceparent(parent) or parent.split("-")[1] != trace_id:
        return Context()
    above = SpanContext(int(trace_id, 16), int(parent.split("-")[2], 16), is_remote=True, trace_flags=TraceFlags(1))
    return set_span_in_context(NonRecordingSpan(above), Context())
