"""Every service as its own process, under a supervisor that starts again whatever ends."""

import asyncio
import contextlib
import ctypes
import errno
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from onebox.box import Box
from onebox.environment import UPSTREAMS, Place
from onebox.one import GRACE_S, KEEP_ALIVE_S, load_migrations, migrate, reserve

SHORTEST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 4.0
HEALTHY_AFTER_S = 10.0
PR_SET_PDEATHSIG = 1
_GIVEN_TO_NOBODY = range(15_000, 32_768)
WIDTH = max(map(len, (*UPSTREAMS, "gateway")))


class Process:
    """One uvicorn process, kept running; its output carries its name."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def keep(self) -> None:
        """Start it, and again whenever it ends: at once after a healthy life, later and later after short ones."""
        pause = SHORTEST_PAUSE_S
        while True:
            began = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
            await self._copy_output()
            status = await self._process.wait()
            pause = SHORTEST_PAUSE_S if time.monotonic() - began > HEALTHY_AFTER_S else min(pause * 2, LONGEST_PAUSE_S)
            say(self.name, f"ended with status {status}, starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        """End it in order, by force after its grace."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), GRACE_S + 3)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _copy_output(self) -> None:
        assert self._process is not None  # noqa: S101 - it was just started
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than the reader's limit; the rest follows
                continue
            if not line:
                return
            say(self.name, line.decode(errors="replace").rstrip())


def say(name: str, line: str) -> None:
    """A line of the shared log, under its process' name."""
    print(f"{name:<{WIDTH}} | {line}", flush=True)


def uvicorn_command(app: str, host: str, port: int) -> list[str]:
    """How one app is served."""
    from kit.connection import CLASS, LARGEST_FRAME, SOCKETS  # noqa: PLC0415 - the stores start before it is loaded

    options = ["--host", host, "--port", str(port), "--loop", "uvloop"]
    options += ["--http", CLASS, "--ws", SOCKETS, "--ws-max-size", str(LARGEST_FRAME)]
    options += ["--no-proxy-headers", "--no-server-header", "--no-access-log", "--log-level", "warning"]
    options += ["--timeout-keep-alive", str(KEEP_ALIVE_S), "--timeout-graceful-shutdown", str(GRACE_S)]
    return [sys.executable, "-m", "uvicorn", "--factory", app, *options]


def plan(where: Place, environment: Mapping[str, str]) -> list[Process]:
    """The six processes; each service on a loopback port of its own, chosen once, the gateway on the public one."""
    ports = dict(zip(UPSTREAMS, free_ports(len(UPSTREAMS)), strict=True))
    addresses = {f"HEIKA_UPSTREAM_{name.upper()}": f"http://127.0.0.1:{port}" for name, port in ports.items()}
    keys = {"HEIKA_JWKS_URL": f"{addresses['HEIKA_UPSTREAM_MEMBERS']}/.well-known/jwks.json"}
    planned = [(name, f"services.{name}.app:app", "127.0.0.1", port) for name, port in ports.items()]
    planned.append(("gateway", "gateway.app:app", where.host, where.port))
    processes = []
    for offset, (name, app, host, port) in enumerate(planned):
        own = dict(environment) | addresses | keys
        if name != "gateway":
            # The gateway is the only caller, and sends on one address that it has judged itself.
            own["HEIKA_TRUSTED_PROXIES"] = "127.0.0.0/8"
        if first := environment.get("HEIKA_METRICS_PORT"):
            own["HEIKA_METRICS_PORT"] = str(int(first) + (offset + 1) % len(planned))
        processes.append(Process(name, uvicorn_command(app, host, port), own))
    return processes


def free_ports(count: int) -> list[int]:
    """Ports that nobody on loopback uses now, all different, and that no system gives away by itself; OSError without.

    A port of the ephemeral range (RFC 6335 6; from 32768 on Linux, 49152 elsewhere) may be another's by the time a
    service begins, or begins again, to listen; and whoever got it would be sent that service's requests.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in secrets.SystemRandom().sample(_GIVEN_TO_NOBODY, len(_GIVEN_TO_NOBODY)):
            if len(found) == count:
                break
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
        if len(found) < count:
            raise OSError(errno.EADDRINUSE, "no port of 127.0.0.1 between 15000 and 32767 is free")
        return found


async def supervise(box: Box, greet: Callable[[], None]) -> None:
    """Keep everything running until a signal comes, then end it in order."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    processes = plan(box.where, os.environ)
    tasks = [asyncio.create_task(process.keep()) for process in processes]
    tasks.append(asyncio.create_task(box.watch()))
    tasks.append(asyncio.create_task(_greet_when_ready(box, greet)))
    try:
        await stopping.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # First nothing new comes in, then what it called may end.
        await processes[-1].stop()
        await asyncio.gather(*(process.stop() for process in processes))


def run(box: Box, greet: Callable[[], None]) -> None:
    """`up --split`: returns after SIGINT or SIGTERM, when every process has ended."""
    signal.signal(signal.SIGTERM, _leave)
    reserve(box.where).close()
    with box.opened(meanwhile=load_migrations):
        asyncio.run(migrate())
        asyncio.run(supervise(box, greet))


async def _greet_when_ready(box: Box, greet: Callable[[], None]) -> None:
    while not await _ready(box.where):  # noqa: ASYNC110 - another process is waited for
        await asyncio.sleep(0.1)
    greet()
    await box.settle()


async def _ready(where: Place) -> bool:
    """Whether the gateway answers 200 to /readyz."""
    host = urlsplit(where.address).hostname
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, where.port)
            writer.write(b"GET /readyz HTTP/1.0\r\nHost: heika\r\n\r\n")
            status = await reader.readline()
            writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status


def _end_with_parent() -> None:
    """In the child: be told to end when the supervisor dies, however it dies (Linux)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _leave(*_: object) -> None:
    raise SystemExit(0)


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
