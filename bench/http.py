"""Requests over real sockets by few lines of Python, so that what is measured is the server; and a server's own CPU."""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httpx

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server process, and where it listens."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """CPU that the process has used so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def start(command: list[str], environment: dict[str, str], port: int, path: str, log: Path) -> Server:
    """Start a server and wait until it answers on `path`."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=out, stderr=out)
    with httpx.Client(trust_env=False, timeout=2) as client:
        for _ in range(1200):
            if process.poll() is not None:
                break
            try:
                if client.get(f"http://127.0.0.1:{port}{path}").status_code == HTTPStatus.OK:
                    return Server(process, port)
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
    raise RuntimeError(f"{command} did not start:\n{log.read_text()[-2000:]}")


def request(method: str, path: str, bearer: str = "", body: bytes = b"") -> bytes:
    """An HTTP/1.1 request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "host: bench"]
    lines += [f"authorization: Bearer {bearer}"] if bearer else []
    lines += ["content-type: application/json", f"content-length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


class Line(asyncio.Protocol):
    """One kept connection: a request, its answer, and then the next."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are asyncio's in all but their class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody will answer any more."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())

    def data_received(self, data: bytes) -> None:
        """Take bytes until the answer is whole; every server here sends a Content-Length."""
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(rest) >= length and self._answer is not None:
            self._buffer = b""
            self._answer.set_result((int(head[9:12]), rest))

    async def ask(self, raw: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to this request."""
        if self._transport is None:
            raise ConnectionError
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


@dataclass
class Figures:
    """What a server did: answers, seconds, and its own CPU."""

    answers: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(self.answers + other.answers, self.seconds + other.seconds, self.cpu + other.cpu)

    @property
    def a_second(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def a_core(self) -> float:
        """Answers for each second of the server's CPU: what one core would do, whoever else uses the machine."""
        return self.answers / self.cpu


Turn = Callable[[Line, int], Awaitable[bool]]
"""One unit of work on the n-th connection; False when there is nothing left to do."""


def must(answer: tuple[int, bytes], status: int = HTTPStatus.OK) -> bytes:
    """The body of an answer that must have this status."""
    if answer[0] != status:
        raise RuntimeError(f"answered {answer[0]}: {answer[1][:300]!r}")
    return answer[1]


async def hammer(server: Server, lines: int, seconds: float, turn: Turn) -> Figures:
    """Work on so many connections at once, for so long or until nothing is left; what the server did meanwhile."""
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(Line, "127.0.0.1", server.port))[1] for _ in range(lines)]
    figures, until, cpu = Figures(), time.perf_counter() + seconds, server.cpu_seconds()

    async def client(number: int, line: Line) -> None:
        while time.perf_counter() < until and await turn(line, number):
            figures.answers += 1

    started = time.perf_counter()
    try:
        await asyncio.gather(*(client(number, line) for number, line in enumerate(opened)))
    finally:
        for line in opened:
            line.close()
    figures.seconds, figures.cpu = time.perf_counter() - started, server.cpu_seconds() - cpu
    return figures
