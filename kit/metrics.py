"""Prometheus metrics, served on a port of their own."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

log = structlog.get_logger(__name__)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Timing(Histogram):
    """The library's histogram for a third of the time: every request is counted at the front and by its service.

    It is counted in the loop's own thread, and only read in that of the metrics' server, so that it needs no lock.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._seconds = 0.0
        self._counts = [0] * len(self._upper_bounds)

    def observe(self, amount: float, exemplar: Any = None) -> None:  # noqa: ARG002 - none are kept
        """Count one observation, of one set of labels."""
        self._seconds += amount
        self._counts[bisect_left(self._upper_bounds, amount)] += 1

    def _child_samples(self) -> Iterable[Sample]:
        named = zip(map(floatToGoString, self._upper_bounds), accumulate(self._counts), strict=True)
        yield from (Sample("_bucket", {"le": bound}, count, None, None) for bound, count in named)
        yield Sample("_count", {}, sum(self._counts), None, None)
        yield Sample("_sum", {}, self._seconds, None, None)


REQUEST_SECONDS = Timing(
    "heika_request_seconds", "Time to answer", ["service", "method", "route", "status"], buckets=BUCKETS
)
EVENT_SECONDS = Histogram("heika_event_seconds", "From told to handled", ["service", "type"], buckets=BUCKETS)
EVENT_FAILURES = Counter("heika_event_failures_total", "Events whose handler failed", ["service", "type"])
RELAY_PUBLISHED = Counter("heika_relay_published_total", "Events moved from the outbox to the stream", ["service"])
DUE_ROWS = Counter("heika_due_rows_total", "Rows done by periodic work", ["service", "job"])
GROUP_ROWS = Histogram(
    "heika_group_commit_rows",
    "Rows written in one group commit",
    ["name"],
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500),
)
READY = Gauge("heika_ready", "1 while every dependency answers", ["service"])

_serving: set[int] = set()


def serve_metrics(port: int | None, address: str) -> None:
    """Serve /metrics on its own port, once a process; a taken port is logged and the process goes on without."""
    if port is None or port in _serving:
        return
    _serving.add(port)
    try:
        start_http_server(port, addr=address)
    except OSError as failure:
        log.warning("metrics port is taken; set HEIKA_METRICS_PORT to a free one", port=port, error=str(failure))
