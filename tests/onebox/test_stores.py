"""The embedded stores lose nothing and leave nothing behind, however they or we end."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from onebox.stores import Postgres, Valkey
from onebox.trouble import FolderBroken, FolderInUse


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's system user may enter too, unlike pytest's own temporary folder."""
    made = Path(f"/tmp/heika-test-{os.getpid()}-{time.monotonic_ns()}")  # noqa: S108
    made.mkdir(mode=0o755)
    yield made
    subprocess.run(["rm", "-rf", str(made)], check=True)


@pytest.fixture
def postgres(folder: Path) -> Iterator[Postgres]:
    store = Postgres(folder / "postgres")
    yield store
    store.stop()


@pytest.fixture
def valkey(folder: Path) -> Iterator[Valkey]:
    store = Valkey(folder / "valkey")
    yield store
    store.stop()


def working_in(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder.resolve()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def ask(valkey: Valkey, command: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(valkey.url.removeprefix("unix://"))
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(1000)


def gone_within(seconds: float, folder: Path) -> bool:
    deadline = time.monotonic() + seconds
    while working_in(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


OTHER = """
import sys, time
from pathlib import Path
from onebox.stores import Postgres, Valkey
postgres, valkey = Postgres(Path(sys.argv[1]) / "postgres"), Valkey(Path(sys.argv[1]) / "valkey")
postgres.start()
valkey.start()
postgres.query("CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
print(postgres.pid, valkey.pid, flush=True)
time.sleep(60)
"""


def start_another(folder: Path) -> tuple[subprocess.Popen[str], int, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OTHER), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        first, second = lines.readline().split()
    return process, int(first), int(second)


def guards_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "heika-guard" in child.cmdline()]


def test_a_stop_leaves_no_process_and_the_next_start_finds_the_rows(
    folder: Path, postgres: Postgres, valkey: Valkey
) -> None:
    # This process may have other stores, those that the tests of the services use.
    others = guards_of(os.getpid())
    postgres.start()
    valkey.start()
    postgres.ensure_database("one", "two")
    postgres.ensure_database("one")
    postgres.query("CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1), (2)", database="one")
    assert ask(valkey, "SET kept 1") == b"+OK\r\n"
    address = (postgres.url("one"), valkey.url)
    postgres.stop()
    valkey.stop()
    assert working_in(folder) == []
    assert not postgres.running
    assert not valkey.running
    assert guards_of(os.getpid()) == others

    postgres.start()
    valkey.start()
    assert (postgres.url("one"), valkey.url) == address
    assert postgres.query("SELECT n FROM kept ORDER BY n", database="one") == "1\n2\n"
    assert ask(valkey, "GET kept") == b"$1\r\n1\r\n"


def test_both_stores_start_again_within_a_second_and_a_half(postgres: Postgres, valkey: Valkey) -> None:
    postgres.start()
    valkey.start()
    postgres.stop()
    valkey.stop()
    began = time.monotonic()
    postgres.start()
    valkey.start()
    assert time.monotonic() - began < 1.5


def test_the_stores_start_while_another_thread_sets_the_environment(postgres: Postgres, valkey: Valkey) -> None:
    names = [f"HEIKA_GROWS_{number}" for number in range(200)]
    done = threading.Event()

    def grow() -> None:
        while not done.is_set():
            os.environ.update(dict.fromkeys(names, "1"))
            for name in names:
                del os.environ[name]

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        for _ in range(2):
            postgres.start()
            valkey.start()
            assert (postgres.running, valkey.running) == (True, True)
            postgres.stop()
            valkey.stop()
    finally:
        done.set()
        growing.join()


def test_databases_are_copied_and_dropped(postgres: Postgres) -> None:
    postgres.start()
    postgres.ensure_database("template")
    postgres.query("CREATE TABLE kept (n int)", database="template")
    postgres.copy_database("template", "copy")
    assert postgres.query("SELECT count(*) FROM kept", database="copy") == "0\n"
    postgres.drop_database("copy")
    postgres.drop_database("copy")
    assert postgres.query("SELECT count(*) FROM pg_database WHERE datname = 'copy'") == "0\n"


def test_text_is_ordered_by_code_point_on_every_machine(postgres: Postgres) -> None:
    postgres.start()
    assert postgres.query("SELECT string_agg(t, '' ORDER BY t) FROM unnest('{b,B,a,Z,蛋}'::text[]) t") == "BZab蛋\n"
    assert postgres.query("SHOW timezone") == "UTC\n"
    assert postgres.query("SHOW fsync") == "on\n"


def test_a_second_instance_on_the_same_folder_is_refused(folder: Path, postgres: Postgres, valkey: Valkey) -> None:
    postgres.start()
    valkey.start()
    with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"):
        Postgres(folder / "postgres").start()
    with pytest.raises(FolderInUse, match="HEIKA_DATA"):
        Valkey(folder / "valkey").start()
    assert postgres.running
    assert valkey.running


def test_killing_us_stops_the_stores_and_loses_nothing(folder: Path, postgres: Postgres, valkey: Valkey) -> None:
    process, _, _ = start_another(folder)
    process.kill()
    process.wait()
    assert gone_within(10, folder)
    postgres.start()
    valkey.start()
    assert postgres.query("SELECT n FROM kept") == "7\n"


def test_stores_left_running_by_a_killed_owner_and_guard_are_replaced(
    folder: Path, postgres: Postgres, valkey: Valkey
) -> None:
    process, first, second = start_another(folder)
    for guard in guards_of(process.pid):
        guard.kill()
    process.kill()
    process.wait()
    assert psutil.pid_exists(first)
    assert psutil.pid_exists(second)
    postgres.start()
    valkey.start()
    assert not psutil.pid_exists(first)
    assert not psutil.pid_exists(second)
    assert postgres.query("SELECT n FROM kept") == "7\n"


def test_a_killed_store_starts_again_with_what_was_committed(postgres: Postgres, valkey: Valkey) -> None:
    postgres.start()
    valkey.start()
    postgres.query("CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    for store in (postgres, valkey):
        pid = store.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while store.running:
            time.sleep(0.01)
        store.start()
        assert store.pid not in (None, pid)
    assert postgres.query("SELECT n FROM kept") == "7\n"
    assert ask(valkey, "PING") == b"+PONG\r\n"


def test_a_stale_pid_file_that_names_a_stranger_stops_nobody(postgres: Postgres, valkey: Valkey) -> None:
    postgres.start()
    postgres.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    pid_file = postgres.folder / "pgdata" / "postmaster.pid"
    pid_file.write_text(f"{stranger.pid}\n{postgres.folder / 'pgdata'}\n1\n5432\n/tmp\n\n  1 1\nready   \n")
    valkey.folder.mkdir()
    (valkey.folder / "valkey.pid").write_text(f"{stranger.pid}\n")
    postgres.start()
    valkey.start()
    assert postgres.query("SELECT 1") == "1\n"
    assert ask(valkey, "PING") == b"+PONG\r\n"
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_half_made_cluster_is_made_anew(postgres: Postgres) -> None:
    (postgres.folder / "pgdata.new" / "base").mkdir(parents=True)
    postgres.start()
    assert postgres.query("SELECT 1") == "1\n"


def test_a_folder_without_pg_version_is_refused_and_left_alone(postgres: Postgres) -> None:
    postgres.start()
    postgres.stop()
    version = postgres.folder / "pgdata" / "PG_VERSION"
    kept = version.read_text()
    version.unlink()
    with pytest.raises(FolderBroken, match="no PG_VERSION"):
        postgres.start()
    version.write_text("15\n")
    with pytest.raises(FolderBroken, match="written by PostgreSQL 15"):
        postgres.start()
    version.write_text(kept)
    postgres.start()
    assert postgres.query("SELECT 1") == "1\n"


def test_an_unreadable_valkey_file_is_put_aside(valkey: Valkey) -> None:
    valkey.start()
    ask(valkey, "SET kept 1")
    valkey.stop()
    (next(valkey.folder.glob("appendonlydir/*.manifest"))).write_text("nonsense\n")
    valkey.start()
    assert ask(valkey, "GET kept") == b"$-1\r\n"
    assert len(list(valkey.folder.glob("appendonlydir.unreadable-*"))) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that PostgreSQL's user may not enter")
def test_a_closed_data_folder_of_root_keeps_its_mode(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.chmod(0o700)
    store = Postgres(folder / "postgres")
    store.start()
    outside = (folder / "postgres" / "pgdata").resolve().parent
    try:
        assert store.query("SELECT 1") == "1\n"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert str(outside) in capsys.readouterr().err
    finally:
        store.stop()
        subprocess.run(["rm", "-rf", str(outside)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that PostgreSQL's user may not enter")
def test_a_forgetful_cluster_outside_its_folder_goes_when_it_stops(folder: Path) -> None:
    folder.chmod(0o700)
    store = Postgres(folder / "postgres", durable=False)
    store.start()
    outside = (folder / "postgres" / "pgdata").resolve().parent
    assert outside.exists()
    store.stop()
    assert not outside.exists()
    store.start()
    assert store.query("SHOW fsync") == "off\n"
    store.stop()
