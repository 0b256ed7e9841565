"""`python -m onebox up --split`: six processes that are started again when they die and end together."""

import contextlib
import os
import signal
import socket
from functools import partial
from pathlib import Path

import httpx
import psutil

from onebox.split import free_ports
from tests import nginx
from tests.onebox.conftest import Heika, eventually, free_port, working_in

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


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def behind_nginx(heika: Heika, folder: Path) -> None:
    """The same services, asked past the gateway: plans, a stream that is not held back, and what nobody may reach."""
    port = free_port()
    words = {name: psutil.Process(pid).cmdline() for name, pid in processes(heika).items()}
    addresses = {
        f"HEIKA_UPSTREAM_{name.upper()}": f"http://127.0.0.1:{line[line.index('--port') + 1]}"
        for name, line in words.items()
    }
    asked = heika.command("edge", "--listen", f"127.0.0.1:{port}", HEIKA_ENV="sandbox", **addresses)
    assert asked.returncode == 0, asked.stderr
    with (
        nginx.running(folder, asked.stdout),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as edge,
    ):
        assert eventually(partial(_listens, port), 10)
        plans = edge.get("/v1/plans")
        assert [plan["amount"] for plan in plans.json()["items"]] == [1990, 4900, 18900]
        head = edge.head("/v1/plans")
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", plans.headers["etag"])
        assert edge.get("/v1/plans", headers={"If-None-Match": plans.headers["etag"]}).status_code == 304
        assert edge.get("/v1/me").json()["code"] == "not_authenticated"
        assert edge.get("/internal/clock").status_code == 404
        assert edge.get("/v1/home").json()["degraded"] == []
        contest = edge.get("/v1/contests?phase=open").json()["items"][0]["id"]
        with edge.stream("GET", f"/v1/contests/{contest}/leaderboard/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert any(line.startswith("data:") for line in stream.iter_lines())
        upload = edge.post("/v1/uploads", files={"file": b"x"})
        assert (upload.status_code, upload.json()["code"]) == (401, "not_authenticated")


def test_services_get_ports_that_are_nobody_elses_now_or_while_they_start_again() -> None:
    found = free_ports(50)
    assert len(set(found)) == 50
    assert max(found) < 32_768  # where Linux begins to give away ports by itself


def test_what_dies_comes_back_and_a_signal_ends_all(heika: Heika, tmp_path: Path) -> None:
    heika.start("--split")
    before = processes(heika)
    assert set(before) == set(NAMES)
    if nginx.PROGRAM is not None:
        behind_nginx(heika, tmp_path)
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
