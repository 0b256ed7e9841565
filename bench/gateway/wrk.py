"""wrk as the one who asks: it costs a few microseconds a request, so that what is measured is the server."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.http import Server

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_TURN = """
local requests, at = {}, 0
function init(args)
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", wrk.path, {["authorization"] = "Bearer " .. line})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""


@dataclass(frozen=True)
class Asked:
    """What came of a run: answers a second, milliseconds, and the server's own CPU for each answer in microseconds."""

    a_second: float
    p50: float
    p99: float
    cpu: float


class Refused(RuntimeError):
    """Not every answer was one: what wrk says of that."""


def ready() -> str | None:
    """Why there is no wrk; None when there is one."""
    return None if shutil.which("wrk") else "wrk is not installed (Debian: apt-get install wrk)"


def ask(
    server: Server,
    path: str,
    lines: int,
    seconds: int,
    *,
    tokens: Path | None = None,
    script: Path | None = None,
    idle: float = 0.0,
) -> Asked:
    """Ask over so many connections; with `tokens`, a file of one a line, turn by turn with each of them.

    `script` is one of wrk's own, for any other request. `idle` is the share of a core that the server takes while nobody
    asks, and is not counted.
    """
    command = ["wrk", "-t1", f"-c{lines}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    if tokens is not None:
        script = tokens.with_suffix(".lua")
        script.write_text(_TURN)
    if script is not None:
        command += ["-s", str(script)]
    command.append(f"http://127.0.0.1:{server.port}{path}")
    command += ["--", str(tokens)] if tokens is not None else []
    before = server.cpu_seconds()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cpu = server.cpu_seconds() - before - idle * seconds
    if "Non-2xx" in said or "Socket errors" in said:
        raise Refused(said)
    answers = int(_found(r"(\d+) requests in", said)[1])
    return Asked(
        float(_found(r"Requests/sec:\s+([\d.]+)", said)[1]),
        _ms("50%", said),
        _ms("99%", said),
        cpu / max(answers, 1) * 1e6,
    )


def _ms(name: str, said: str) -> float:
    found = _found(rf"{name}\s+([\d.]+)(us|ms|s|m)", said)
    return float(found[1]) * _UNITS[found[2]]


def _found(pattern: str, said: str) -> re.Match[str]:
    match = re.search(pattern, said)
    if match is None:
        raise RuntimeError(said)
    return match
