"""`python -m onebox up --split`: six processes that are started again when they die and end together."""

import contextlib
import os
import signal

import psutil

from tests.onebox.conftest import Heika, eventually, working_in

NAMES = ("gateway", "members", "billing", "courses", "referrals", "showcase")


def processes(heika: Heika) -> dict[str, int]:
    """The uvicorn processes by service."""
    assert heika.process is not None
    found = {}
    for child in psutil.Process(heika.process.pid).children():
        with contextlib.suppress(psutil.Error, StopIteration):
            app = next(word for word in child.cmdline() if word.endswith(".app:app"))
            found[app.removesuffix(".app:app").removeprefix("services.")] = child.pid
    return found


def test_what_dies_comes_back_and_a_signal_ends_all(heika: Heika) -> None:
    heika.start("--split")
    before = processes(heika)
    assert set(before) == set(NAMES)
    for victim in ("showcase", "gateway"):
        os.kill(before[victim], signal.SIGKILL)
        assert eventually(lambda victim=victim: processes(heika).get(victim) not in (None, before[victim]), 10)  # type: ignore[misc]
        assert eventually(heika.ready, 20), heika.said()
    for store in ("postgres", "valkey-server"):
        pid = heika.store_pid(store)
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda pid=pid: not psutil.pid_exists(pid), 5)  # type: ignore[misc]
        assert eventually(heika.ready, 20), heika.said()
    assert processes(heika)["members"] == before["members"]
    assert heika.end(signal.SIGTERM) == 0
    assert working_in(heika.data) == []
    assert "showcase  | ended with status -9" in heika.output.read_text()
