"""A newcomer buys a black card: in one process, in six, and with the power cut in the middle."""

import json
import signal
from contextlib import closing

import pytest

from tests.journeys.first_light import Journey
from tests.onebox.conftest import Heika, eventually, working_in


def journey_of(heika: Heika) -> Journey:
    """A journey through this Heika, as its admin."""
    kept = json.loads((heika.data / "secrets.json").read_text())
    return Journey(heika.address, "admin@heika.local", kept["HEIKA_ADMIN_PASSWORD"])


# How several processes end in order is among their own tests; here their supervisor is killed.
@pytest.mark.parametrize(
    ("shape", "end"),
    [((), signal.SIGTERM), (("--split",), signal.SIGKILL)],
    ids=["one process", "a process for each service"],
)
def test_a_newcomer_buys_a_black_card_and_everything_follows(
    heika: Heika, shape: tuple[str, ...], end: signal.Signals
) -> None:
    heika.start(*shape)
    with closing(journey_of(heika)) as journey:
        journey.walk()
    assert heika.end(end) == (-end if end == signal.SIGKILL else 0)
    assert eventually(lambda: not working_in(heika.data), 15), working_in(heika.data)


# Eleven starts: longer than other tests may take when the machine has something else to do.
@pytest.mark.timeout(300)
def test_a_power_cut_at_any_step_loses_nothing(heika: Heika) -> None:
    heika.start()
    with closing(journey_of(heika)) as journey:
        for step in journey.steps():
            step()
            heika.end(signal.SIGKILL)
            heika.start()
    assert heika.end(signal.SIGTERM) == 0
