"""Starting afresh: what Heika keeps in its data folder is deleted, and nothing else that may lie there."""

import contextlib
import shutil

from onebox.child import FolderLock
from onebox.environment import Place
from onebox.stores import Postgres, Valkey

OURS = ("postgres", "valkey", "uploads", "media", "secrets.json")


def erase(where: Place) -> None:
    """Delete the data; raises FolderInUse while a Heika runs on it."""
    if not where.data.exists():
        return
    lock = FolderLock(where.data)
    lock.take()
    try:
        Postgres(where.data / "postgres").erase()
        Valkey(where.data / "valkey").erase()
        for name in OURS:
            path = where.data / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (where.data / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something that is not ours stays
            where.data.rmdir()
    finally:
        lock.release()
