"""The circuit: a payment provider that keeps failing is left alone for some seconds, then tried by one call before all others."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter, Gauge

from kit import clock

log = structlog.get_logger(__name__)

WINDOW = timedelta(seconds=30)
LATEST = 20
FAILURES = 5
"""So many failures in `WINDOW`, and at least half of the `LATEST` calls in it, open the circuit."""
PAUSE = timedelta(seconds=5)

OPEN = Gauge("heika_provider_circuit_open", "1 while the payment provider is left alone")
OPENED = Counter("heika_provider_circuit_opened_total", "How often the payment provider was found to be away")


class CircuitOpen(Exception):
    """The call was not made; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"open for {retry_after:.1f} s more")
        self.retry_after = retry_after


class CallFailed(Exception):
    """The call got no answer that means anything; its cause says why."""


class Circuit:
    """Lets calls pass while the provider answers; judged by the product's clock, as all that waits for it is."""

    def __init__(self) -> None:
        self._latest: deque[tuple[datetime, bool]] = deque(maxlen=LATEST)
        self._opened_at: datetime | None = None
        self._probing = False

    def room(self, most: int) -> int:
        """How many calls are welcome now: `most`, one when the next is the probe, none while the circuit is open."""
        if self._opened_at is None:
            return most
        return 0 if self._wait() else 1

    def check(self) -> None:
        """Raise CircuitOpen when a call made now would not pass."""
        if self._opened_at is not None and (wait := self._wait()):
            raise CircuitOpen(wait)

    @contextmanager
    def passage(self) -> Iterator[None]:
        """Around one call: CircuitOpen when it may not be made; CallFailed out of it is a failure, anything else an answer."""
        self.check()
        probe = self._opened_at is not None
        self._probing = probe
        try:
            yield
        except CallFailed:
            self._note(answered=False, probe=probe)
            raise
        except Exception:
            self._note(answered=True, probe=probe)
            raise
        else:
            self._note(answered=True, probe=probe)
        finally:
            # A caller who went away leaves no verdict; the next call is the probe then.
            if probe:
                self._probing = False

    def _wait(self) -> float:
        """Seconds until a call may pass an open circuit."""
        left = (self._opened_at or clock.now()) + PAUSE - clock.now()
        if left > timedelta(0):
            return min(left, PAUSE).total_seconds()
        return PAUSE.total_seconds() if self._probing else 0.0

    def _note(self, *, answered: bool, probe: bool) -> None:
        now = clock.now()
        self._latest.append((now, answered))
        if self._opened_at is not None:
            if probe and answered:
                self._close()
            elif probe:
                self._opened_at = now
            return
        recent = [good for at, good in self._latest if at > now - WINDOW]
        failures = recent.count(False)
        if not answered and failures >= FAILURES and failures * 2 >= len(recent):
            self._opened_at = now
            OPEN.set(1)
            OPENED.inc()
            log.error("payment provider left alone", failures=failures, of=len(recent))

    def _close(self) -> None:
        self._opened_at = None
        self._latest.clear()
        OPEN.set(0)
        log.warning("payment provider answers again")
