"""What commands do to the data of a Heika that runs or does not: seeding, reading, erasing."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from importlib import import_module

from kit.app import Runtime, Service
from onebox.box import Box
from onebox.child import FolderLock
from onebox.environment import UPSTREAMS, Place

OURS = ("postgres", "valkey", "uploads", "media", "secrets.json")


def service_of(name: str) -> Service:
    """The service's table of contents."""
    service: Service = import_module(f"services.{name}.app").service
    return service


@contextlib.asynccontextmanager
async def runtime(name: str) -> AsyncIterator[Runtime]:
    """A service's connections, without its background work."""
    service = service_of(name)
    held = Runtime(service, service.settings())
    try:
        yield held
    finally:
        await held.close()


async def seed_all() -> None:
    """Start and end every service once: in the sandbox that seeds what is missing."""
    from onebox.one import alive, build, migrate  # noqa: PLC0415 - imports every service

    # Only the seeds: events wait in the outboxes for whoever runs next, or runs now.
    os.environ["HEIKA_BACKGROUND"] = "false"
    await migrate()
    apps, _ = build()
    async with alive(apps):
        pass
    print(f"seeded: {', '.join(UPSTREAMS)}")


def erase(where: Place) -> None:
    """Delete what Heika keeps in its data folder, and nothing else that may lie there; raises FolderInUse."""
    if not where.data.exists():
        return
    lock = FolderLock(where.data)
    lock.take()
    try:
        box = Box(where)
        box.postgres.erase()
        box.valkey.erase()
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
