"""Heika as a newcomer starts it: a real process on a data folder and a port of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from onebox.split import free_ports
from tests.harness import new_folder

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = ("HEIKA_", "REDIS_", "STRIPE_", "MEMBERS_", "BILLING_", "COURSES_", "REFERRALS_", "SHOWCASE_", "SANDBOX_")


def free_port() -> int:
    """One that stays free until something is started on it: other tests' servers and connections get others."""
    return free_ports(1)[0]


def working_in(folder: Path) -> list[str]:
    """The processes that have anything to do with a folder: they work in it, or it is in their arguments or settings."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), process.environ().get("HEIKA_DATA", ""), f"{process.cwd()}/"]
            if process.pid != os.getpid() and any(str(folder) in text for text in told):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


def eventually(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Heika:
    """`python -m onebox` with a folder and a port."""

    def __init__(self, data: Path, port: int) -> None:
        self.data = data
        self.port = port
        self.address = f"http://127.0.0.1:{port}"
        self.output = data.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self, **more: str) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        return plain | {"HEIKA_DATA": str(self.data), "HEIKA_PORT": str(self.port)} | more

    def command(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "onebox", *words],
            check=False,
            cwd=ROOT,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, *words: str, **more: str) -> None:
        """Start it, with more settings, and wait until it is ready."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "onebox", "up", *words],
                cwd=ROOT,
                env=self.environment(**more),
                stdout=output,
                stderr=output,
            )
        assert eventually(self.ready, 60), self.said()

    def said(self) -> str:
        """The end of what it printed, without the requests."""
        lines = self.output.read_text().splitlines()
        return "\n".join([line for line in lines if '"route":"/readyz"' not in line][-40:])

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        try:
            return httpx.get(f"{self.address}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def end(self, number: int) -> int:
        """Send a signal and wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def store_pid(self, name: str) -> int:
        """The process of postgres or valkey-server."""
        assert self.process is not None
        return next(child.pid for child in psutil.Process(self.process.pid).children() if child.name() == name)


@contextmanager
def any_heika() -> Iterator[Heika]:
    """A folder and a port; what still runs at the end is killed."""
    folder = new_folder()
    found = Heika(folder / "data", free_port())
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.wait()
    eventually(lambda: not working_in(folder), 10)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def heika() -> Iterator[Heika]:
    """A Heika of this test's own, not started yet."""
    with any_heika() as found:
        yield found
