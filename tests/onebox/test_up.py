"""`python -m onebox up`: one process that keeps its data and its stores, whatever is killed."""

import os
import signal
import socket

import httpx
import psutil
import pytest

from services.showcase.seed import CONTEST_ID
from tests.onebox.conftest import Heika, eventually, free_port, working_in

PHONE = "+8613800138000"


def register(heika: Heika) -> str:
    """A member's access token."""
    with httpx.Client(base_url=heika.address) as client:
        assert client.post("/v1/auth/otp", json={"phone": PHONE}).status_code == 202
        code = client.get("/v1/sandbox/otp", params={"phone": PHONE}).json()["code"]
        answer = client.post("/v1/auth/otp/verify", json={"phone": PHONE, "code": code})
        assert answer.status_code == 200
        return str(answer.json()["access_token"])


def nickname(heika: Heika, token: str) -> str:
    answer = httpx.get(f"{heika.address}/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["nickname"])


def test_it_greets_survives_kills_and_leaves_nothing_behind(heika: Heika) -> None:
    heika.start()
    assert heika.process is not None
    said = heika.output.read_text()
    assert f"{heika.address}/docs" in said
    assert "admin@heika.local" in said
    assert (heika.data / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert psutil.Process(heika.process.pid).memory_info().rss < 250 * 2**20
    token = register(heika)
    name = nickname(heika, token)

    # Another one on the same folder, and one on the same port.
    second = heika.command("up", HEIKA_PORT=str(free_port()))
    assert (second.returncode, "Traceback" in second.stderr) == (1, False)
    assert f"is in use by process {heika.process.pid}" in second.stderr
    third = heika.command("up", HEIKA_DATA=f"{heika.data}-other")
    assert (third.returncode, "Traceback" in third.stderr) == (1, False)
    assert f"Cannot listen on 127.0.0.1:{heika.port}" in third.stderr

    # Commands work beside it.
    lag = heika.command("events", "lag")
    assert (lag.returncode, lag.stderr) == (0, "")
    assert [line.split(":")[0] for line in lag.stdout.splitlines()] == [
        "members",
        "billing",
        "courses",
        "referrals",
        "showcase",
    ]
    assert heika.command("admin", "create", "second@heika.local", "--password", "long enough").returncode == 0
    assert heika.command("admin", "rotate-keys").returncode == 0
    assert len(httpx.get(f"{heika.address}/.well-known/jwks.json").json()["keys"]) == 3
    counted = heika.command("recount", str(CONTEST_ID))
    assert (counted.returncode, counted.stdout.splitlines()[-1]) == (0, "tallies agree with the rows; not settled yet")
    unknown = heika.command("recount", "0199aaaa-0000-7000-8000-000000000000")
    assert (unknown.returncode, "Traceback" in unknown.stderr) == (1, False)
    refused = heika.command("reset", "--yes")
    assert refused.returncode == 1
    assert "is in use" in refused.stderr

    # Stores that die are started again.
    for store in ("postgres", "valkey-server"):
        pid = heika.store_pid(store)
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda pid=pid: not psutil.pid_exists(pid), 5)  # type: ignore[misc]
        assert eventually(heika.ready, 20)
        assert heika.store_pid(store) != pid
    assert nickname(heika, token) == name

    # Killed, it loses nothing and leaves nothing.
    assert heika.end(signal.SIGKILL) == -signal.SIGKILL
    assert eventually(lambda: not working_in(heika.data), 10), working_in(heika.data)
    heika.start()
    assert nickname(heika, token) == name
    assert heika.end(signal.SIGTERM) == 0
    assert working_in(heika.data) == []
    assert "Traceback" not in heika.output.read_text()


def test_a_used_port_is_told_before_anything_starts(heika: Heika) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = heika.command("up", HEIKA_PORT=str(port), HEIKA_DATA=f"{heika.data}-other")
    assert answer.returncode == 1
    assert answer.stdout == ""
    zh, en = answer.stderr.splitlines()
    assert f"HEIKA_PORT={port + 1} make up" in zh
    assert en.startswith(f"Cannot listen on 127.0.0.1:{port}")
    assert not heika.data.with_name(f"{heika.data.name}-other").exists()


def test_a_bad_port_names_the_setting(heika: Heika) -> None:
    answer = heika.command("up", HEIKA_PORT="eight")
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[1] == "HEIKA_PORT is 'eight'; it must be a number from 1 to 65535."


@pytest.mark.parametrize(
    ("variable", "value"), [("HEIKA_ZONE", "Asia"), ("HEIKA_LOG_LEVEL", "loud"), ("REDIS_URL", "redis://user:secret")]
)
def test_a_setting_that_cannot_be_is_named_before_any_process_is_started(
    heika: Heika, variable: str, value: str
) -> None:
    answer = heika.command("up", "--split", **{variable: value})
    assert answer.returncode == 1
    told, named = answer.stderr.splitlines()
    assert told == "设置有误 / wrong settings:"
    assert named.startswith(f"  {variable}: ")
    assert "secret" not in answer.stdout + answer.stderr
    assert working_in(heika.data) == []


def test_a_broken_folder_says_what_to_do(heika: Heika) -> None:
    (heika.data / "postgres" / "pgdata").mkdir(parents=True)
    answer = heika.command("up")
    assert answer.returncode == 1
    zh, en = answer.stderr.splitlines()
    assert "python -m onebox reset" in zh
    assert "no PG_VERSION" in en
    assert working_in(heika.data) == []


def test_a_folder_that_is_a_file_says_what_to_do(heika: Heika) -> None:
    file = heika.data.with_name(f"{heika.data.name}-file")
    file.write_text("not a folder")
    answer = heika.command("up", HEIKA_DATA=str(file), HEIKA_PORT=str(free_port()))
    file.unlink()
    assert answer.returncode == 1
    zh, en = answer.stderr.splitlines()
    assert "HEIKA_DATA" in zh
    assert en.startswith(f"Cannot write to {file}")


def test_reset_asks_and_deletes_only_what_is_ours(heika: Heika) -> None:
    heika.data.mkdir()
    (heika.data / "notes.txt").write_text("mine")
    (heika.data / "secrets.json").write_text("{}")
    assert heika.command("reset").returncode == 1
    assert (heika.data / "secrets.json").exists()
    assert heika.command("reset", "--yes").returncode == 0
    assert [path.name for path in heika.data.iterdir()] == ["notes.txt"]
