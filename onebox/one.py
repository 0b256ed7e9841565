"""Everything in one process: the gateway calls the services' apps directly."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable
from importlib import import_module

import uvicorn
import uvloop
from starlette.types import ASGIApp

from onebox.box import Box
from onebox.environment import UPSTREAMS, Place
from onebox.lifespan import Life
from onebox.reach import reaching
from onebox.trouble import Trouble

KEEP_ALIVE_S = 75
GRACE_S = 5


class PortInUse(Trouble):
    """Something else listens where we should."""


def reserve(where: Place) -> socket.socket:
    """The listening socket, taken before anything slow starts; callers who come early wait in its queue."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((where.host, where.port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise PortInUse(
            f"Cannot listen on {where.host}:{where.port} ({error.strerror or error}). Stop what uses it, or choose "
            f"another port: HEIKA_PORT={where.port + 1} make up",
            f"无法监听 {where.host}:{where.port}。请停止占用它的程序,或换一个端口:HEIKA_PORT={where.port + 1} make up",
        ) from error
    return listening


def load_migrations() -> None:
    """Import what migrating needs, which is less than the services are."""
    import_module("kit.migrations")
    for name in UPSTREAMS:
        import_module(f"services.{name}.settings")


def load_services() -> None:
    """Import everything a start needs: a second or two, spent while the stores start."""
    load_migrations()
    for name in UPSTREAMS:
        import_module(f"services.{name}.app")
    import_module("gateway.app")


async def migrate() -> None:
    """Bring every service's database to the newest revision, one after the other: alembic is global in a process."""
    from kit.migrations import upgrade  # noqa: PLC0415 - see load_services

    for name in UPSTREAMS:
        with reaching(name):
            await upgrade(name, import_module(f"services.{name}.settings").Settings().database_url)


def build() -> tuple[dict[str, ASGIApp], ASGIApp]:
    """The services' apps by name, and the gateway in front of them."""
    from gateway.app import build as build_gateway  # noqa: PLC0415 - see load_services
    from kit.settings import Settings  # noqa: PLC0415

    apps: dict[str, ASGIApp] = {name: import_module(f"services.{name}.app").app() for name in UPSTREAMS}
    return apps, build_gateway(apps, Settings())


@contextlib.asynccontextmanager
async def alive(apps: dict[str, ASGIApp]) -> AsyncIterator[None]:
    """All apps started, at the same time; all ended when left, the last started first."""
    lives = [Life(name, app) for name, app in apps.items()]
    try:
        results = await asyncio.gather(*(life.start() for life in lives), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        yield
    finally:
        for life in reversed(lives):
            await life.stop()


async def serve(box: Box, listening: socket.socket, greet: Callable[[], None]) -> None:
    """Migrate, start everything and answer requests until a signal comes."""
    from kit import connection, garbage  # noqa: PLC0415 - see load_services

    task = asyncio.current_task()
    _on_signals(lambda *_: task.cancel() if task is not None else None)
    await migrate()
    apps, gateway = build()
    watching = asyncio.create_task(box.watch())
    try:
        async with alive({**apps, "gateway": gateway}):
            garbage.settle()
            gc.enable()
            config = uvicorn.Config(
                gateway,
                http=connection.CLASS,
                ws=connection.SOCKETS,
                ws_max_size=connection.LARGEST_FRAME,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
            )
            # uvicorn ends on these by itself, and afterwards raises them once more for us.
            _on_signals(lambda *_: None)
            settling = asyncio.create_task(box.settle())
            await _Server(config, greet).serve([listening])
            await settling
    finally:
        watching.cancel()


def run(box: Box, greet: Callable[[], None]) -> None:
    """`up`: returns after SIGINT or SIGTERM, when everything has ended in order."""
    with contextlib.closing(reserve(box.where)) as listening:
        signal.signal(signal.SIGTERM, _leave)
        # Little of what a start makes is garbage, and looking for it takes half of the time.
        gc.disable()
        with (
            box.opened(meanwhile=load_services),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            contextlib.suppress(asyncio.CancelledError),
        ):
            runner.run(serve(box, listening, greet))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, greet: Callable[[], None]) -> None:
        super().__init__(config)
        self._greet = greet

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._greet()


def _on_signals(handler: Callable[..., object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _leave(*_: object) -> None:
    raise SystemExit(0)
