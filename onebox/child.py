"""Store processes: started with a guard that ends them when this process dies, found again when both died."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from onebox.trouble import FolderBroken, FolderInUse

LOG_LIMIT = 10 * 2**20


class FolderLock:
    """An exclusive lock on a folder; the kernel lets go of it however this process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Own the folder, created when missing; raises FolderInUse or FolderBroken."""
        if self._file is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("a+")
        except OSError as error:
            raise FolderBroken(
                f"Cannot write to {self.folder} ({error.strerror}). Make it writable, or set HEIKA_DATA to another folder.",
                f"无法写入 {self.folder}({error.strerror})。请修改权限,或把 HEIKA_DATA 设为别的目录。",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "?"
            file.close()
            raise FolderInUse(
                f"{self.folder} is in use by process {owner}. Stop it first, or set HEIKA_DATA to another folder.",
                f"{self.folder} 正被进程 {owner} 使用。请先停止它,或把 HEIKA_DATA 设为别的目录。",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let the next one in."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Child:
    """A process of our own, in its own session so that Ctrl-C reaches only us and we end it in order."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        stop_signal: signal.Signals,
        env: Mapping[str, str],
        user: tuple[int, int] | None = None,
    ) -> None:
        self._stop_signal = stop_signal
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))
        uid, gid, groups = identity(user)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                start_new_session=True,
                user=uid,
                group=gid,
                extra_groups=groups,
            )
        # Not PR_SET_PDEATHSIG: it fires when the *thread* that forked ends, and Linux alone has it. The guard reads a
        # pipe that only we hold open; when it closes unasked, we are gone, and the store gets its ordinary stop signal.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -s "$1" "$2"', "heika-guard", stop_signal.name[3:], str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=plain_environment(),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self, seconds: float = 20) -> None:
        """End the process in order, by force after `seconds`; the guard goes with it."""
        if self.running:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()


def identity(user: tuple[int, int] | None) -> tuple[int | None, int | None, list[int] | None]:
    """What subprocess wants as user, group and extra_groups to run a command as (uid, gid); None: as we are."""
    return (None, None, None) if user is None else (user[0], user[1], [])


def plain_environment() -> dict[str, str]:
    """Our environment without what would change how PostgreSQL's programs behave (PGHOST, PGOPTIONS, LC_ALL ...).

    Every program gets this copy. One that inherits ours instead reads it while it is started, and fails with "Bad
    address" when another thread sets a variable at that moment, as the start does while the stores come up.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))} | {
        "LC_ALL": "C",
        "TZ": "UTC",
    }


def end_leftovers(name: str, folder: Path, first: int | None, stop_signal: signal.Signals) -> None:
    """Stop what an earlier run left running in `folder`: process `first` in order, then whatever else works there."""
    import psutil  # noqa: PLC0415 - slow to import and needed only after a crash

    def here() -> Iterator[psutil.Process]:
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if process.info["name"] == name and Path(process.cwd()) == folder:
                    yield process

    found = list(here())
    for process in found:
        if process.pid == first:
            with contextlib.suppress(psutil.Error):
                process.send_signal(stop_signal)
                process.wait(20)
    # A server's helpers notice its death by themselves, most of them at once.
    _, alive = psutil.wait_procs(found, timeout=2)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def tail(log: Path, lines: int = 3) -> str:
    """The last lines of a log, for a message."""
    try:
        return " | ".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def first_number(path: Path) -> int | None:
    """The number a pid file begins with."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def until(ready: Callable[[], bool], child: Child, seconds: float) -> bool:
    """Wait until `ready()` is true; False when the child ended or the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return True
        if not child.running:
            return False
        time.sleep(0.005)
    return False
