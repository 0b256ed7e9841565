"""Membership reads, refreshes and sign-ins a second beside FastAPI's hello, each server one process, turn by turn.

Run: `python -m bench.members.reads`. Beside answers a second it says answers for each second of the server's own CPU,
less what it uses while nobody asks: what one core would do, however busy the machine is. Every token is checked; "first
seen" is a token whose signature nobody has verified yet. The gateway is the whole product in one process.
"""

import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
from fastapi import FastAPI

from bench.http import Figures, Line, Server, Turn, hammer, must, request, start
from onebox.environment import UPSTREAMS, database_variable
from onebox.split import free_ports, uvicorn_command
from onebox.stores import Postgres, Valkey
from services.members.settings import SANDBOX_KEY

LINES = 32
ROUNDS = 5
SECONDS = 1.5
IDLE_SECONDS = 5.0
MEMBERS = 64

# A year of the black card each, so that there is something to read.
GIVE_TIME = """
INSERT INTO segment (id, member_id, source, source_id, plan_code, months, days, benefits, added_at, starts_at, ends_at)
SELECT id, id, 'order', id, 'black-card-12m', 12, 0, '{member_lessons,live_replay,double_points}', now(), now(),
    now() + interval '1 year' FROM member
"""

hello_app = FastAPI()


@hello_app.get("/hello")
async def hello() -> dict[str, str]:
    """What everything is compared with."""
    return {"hello": "world"}


def hello_factory() -> FastAPI:
    """The app, for `uvicorn --factory`."""
    return hello_app


_numbers = count()


async def sign_in(line: Line) -> dict[str, Any]:
    """A new member by phone; the code is read where the sandbox shows it."""
    phone = f"+86139{next(_numbers):08}"
    asked = json.dumps({"phone": phone}).encode()
    must(await line.ask(request("POST", "/v1/auth/otp", body=asked)), 202)
    code = json.loads(must(await line.ask(request("GET", f"/v1/sandbox/otp?phone=%2B{phone[1:]}"))))["code"]
    given = json.dumps({"phone": phone, "code": code}).encode()
    answer: dict[str, Any] = json.loads(must(await line.ask(request("POST", "/v1/auth/otp/verify", body=given))))
    return answer


async def refresh(line: Line, pair: dict[str, Any]) -> dict[str, Any]:
    """The pair that follows this one."""
    body = json.dumps({"refresh_token": pair["refresh_token"]}).encode()
    answer: dict[str, Any] = json.loads(must(await line.ask(request("POST", "/v1/auth/refresh", body=body))))
    return answer


def reading(raws: list[bytes]) -> Turn:
    """Each connection asks its own question again and again."""

    async def turn(line: Line, number: int) -> bool:
        must(await line.ask(raws[number % len(raws)]))
        return True

    return turn


def membership(pair: dict[str, Any]) -> bytes:
    """A member's read."""
    return request("GET", "/v1/me/membership", pair["access_token"])


def refreshing(pairs: list[dict[str, Any]], fresh: list[bytes]) -> Turn:
    """Each connection exchanges its own refresh token for the next; the new access tokens are kept for `first_seen`."""

    async def turn(line: Line, number: int) -> bool:
        pairs[number] = await refresh(line, pairs[number])
        fresh.append(membership(pairs[number]))
        return True

    return turn


def first_seen(fresh: list[bytes]) -> Turn:
    """Each read with a token of its own, whose signature no process has verified."""

    async def turn(line: Line, _: int) -> bool:
        if not fresh:
            return False
        must(await line.ask(fresh.pop()))
        return True

    return turn


async def signing_in(line: Line, _: int) -> bool:
    """Each turn is one new member: code asked for, read, and entered."""
    await sign_in(line)
    return True


async def idle(server: Server) -> float:
    """The share of a core that the server's own periodic work takes while nobody asks."""
    before = server.cpu_seconds()
    await asyncio.sleep(IDLE_SECONDS)
    return (server.cpu_seconds() - before) / IDLE_SECONDS


async def measure(hello_server: Server, members: Server, gateway: Server, database: str) -> dict[str, Figures]:
    """Turn by turn, so that other work on the machine slows all alike."""
    line = (await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", members.port))[1]
    pairs = [await sign_in(line) for _ in range(MEMBERS)]
    line.close()
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    await connection.execute(GIVE_TIME)
    await connection.close()
    reads = reading([membership(pair) for pair in pairs])
    sessions = list(pairs)
    total: defaultdict[str, Figures] = defaultdict(Figures)
    own_work = {server.port: await idle(server) for server in (hello_server, members, gateway)}
    for turn in range(-1, ROUNDS):
        fresh: list[bytes] = []
        work = {
            "FastAPI's hello": (hello_server, reading([request("GET", "/hello")])),
            "membership": (members, reads),
            "membership through the gateway": (gateway, reads),
            "refresh": (members, refreshing(sessions, fresh)),
            "membership, token first seen": (members, first_seen(fresh)),
            "sign-in": (members, signing_in),
        }
        for name, (server, job) in work.items():
            figures = await hammer(server, LINES, SECONDS, job)
            # On a machine with other work a request takes longer and its CPU does not; what is done every second anyway
            # would then weigh more.
            figures.cpu = max(figures.cpu - own_work[server.port] * figures.seconds, 0.001)
            if turn >= 0:
                total[name] += figures
    return total


def report(total: dict[str, Figures]) -> None:
    """Print it beside hello."""
    floor = total["FastAPI's hello"]
    print(f"{'':34}{'a second':>12}{'of hello':>10}{'a CPU second':>15}{'of hello':>10}")
    for name, figures in total.items():
        rates = (figures.a_second, figures.a_second / floor.a_second, figures.a_core, figures.a_core / floor.a_core)
        print(f"{name:34}{rates[0]:12.0f}{rates[1]:10.2f}{rates[2]:15.0f}{rates[3]:10.2f}")


def main() -> None:
    """Run it on stores of its own, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        servers: list[Server] = []
        try:
            postgres.start()
            valkey.start()
            postgres.ensure_database(*UPSTREAMS)
            ports = free_ports(3)
            common = {
                "HEIKA_ENV": "sandbox",
                "HEIKA_LIMITS": "off",
                "HEIKA_DATA": str(folder / "heika"),
                "HEIKA_PORT": str(ports[2]),
                "HEIKA_JWKS_URL": f"http://127.0.0.1:{ports[2]}/.well-known/jwks.json",
                "REDIS_URL": valkey.url,
                "MEMBERS_KEY": SANDBOX_KEY,
            }
            common |= {database_variable(name): postgres.url(name) for name in UPSTREAMS}
            log = folder / "log"
            box = [sys.executable, "-m", "onebox", "up"]
            gateway = start(box, common, ports[2], "/readyz", log)
            servers.append(gateway)
            plain = uvicorn_command("bench.members.reads:hello_factory", "127.0.0.1", ports[0])
            servers.append(hello_server := start(plain, common, ports[0], "/hello", log))
            own = uvicorn_command("services.members.app:app", "127.0.0.1", ports[1])
            servers.append(members := start(own, common | {"HEIKA_INSTANCE": "bench"}, ports[1], "/healthz", log))
            report(asyncio.run(measure(hello_server, members, gateway, postgres.url("members"))))
        finally:
            for server in servers:
                server.process.terminate()
            for server in servers:
                server.process.wait(30)
            valkey.stop()
            postgres.stop()
            postgres.erase()


if __name__ == "__main__":
    main()
