"""What commands do to the data of a Heika that runs or does not: seeding and reading."""

import contextlib
import os
from collections.abc import AsyncIterator
from importlib import import_module

from kit.app import Runtime, Service
from onebox.environment import UPSTREAMS
from onebox.reach import reaching


def service_of(name: str) -> Service:
    """The service's table of contents."""
    service: Service = import_module(f"services.{name}.app").service
    return service


@contextlib.asynccontextmanager
async def runtime(name: str) -> AsyncIterator[Runtime]:
    """A service's connections, without its background work."""
    with reaching(name):
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
