"""Five thousand clients claim the last thousand coupons, over HTTP, beside pgbench's conditional update of one hot row.

Run: `python -m bench.referrals.claims` (under two minutes). One process of the service and 64 clients of pgbench take
turns on the same durable PostgreSQL. Every client has its own connection and its own token, which its phone used
before; all of them ask at the same instant. A claim writes a coupon, the campaign's count and an event; pgbench writes
one number.
"""

import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from joserfc.jwk import OKPKey

from bench.http import Line, Server, must, request, start
from bench.load import pgbench, token
from kit.ids import new_id
from kit.migrations import upgrade
from onebox.split import free_ports, uvicorn_command
from onebox.stores import Postgres, Valkey

CROWD = int(os.environ.get("CROWD", "5000"))
LEFT = CROWD // 5
GIVEN_BEFORE = 9000
ROUNDS = int(os.environ.get("ROUNDS", "5"))
AT_ONCE = 250
KID = "bench"
HOT_ROW = "UPDATE hot SET claimed = claimed + 1 WHERE id = 1 AND claimed < total;\n"
OPEN = """
INSERT INTO campaign SELECT $1, title, code, kind, value, min_amount, plan_codes, $2::int + $3::int, $2::int, 1,
    starts_at, ends_at, valid_days, 'everyone', true, 1, created_at, NULL FROM campaign LIMIT 1
"""
COUNTED = """
SELECT count(*) AS coupons, count(DISTINCT member_id) AS people, (SELECT claimed FROM campaign WHERE id = $1) AS claimed,
    (SELECT count(*) FROM outbox WHERE type = 'referrals.coupon.issued' AND body ->> 'campaign_id' = $1::text) AS told
FROM coupon WHERE campaign_id = $1
"""


@dataclass(frozen=True)
class Rush:
    """One round: answers and coupons a second, and how long clients waited, in milliseconds."""

    answers: float
    coupons: float
    p50: float
    p99: float
    cpu_us: float


async def arrive(server: Server, bearers: list[str]) -> list[Line]:
    """The crowd's connections; each has looked at its coupons, so that its token is known."""
    loop = asyncio.get_running_loop()
    lines: list[Line] = []

    async def one(bearer: str) -> Line:
        line = (await loop.create_connection(Line, "127.0.0.1", server.port))[1]
        must(await line.ask(request("GET", "/v1/me/coupons", bearer)))
        return line

    for first in range(0, len(bearers), AT_ONCE):
        lines += await asyncio.gather(*map(one, bearers[first : first + AT_ONCE]))
    return lines


async def rush(server: Server, database: Any, lines: list[Line], bearers: list[str]) -> Rush:
    """All of them claim at once; RuntimeError unless exactly what was left is given, each to somebody else."""
    campaign_id = new_id()
    await database.execute(OPEN, campaign_id, GIVEN_BEFORE, LEFT)
    raws = [request("POST", f"/v1/coupon-campaigns/{campaign_id}/claims", bearer) for bearer in bearers]
    statuses: Counter[int] = Counter()
    waits: list[float] = []
    last_given = 0.0
    started = time.perf_counter()

    async def claim(line: Line, raw: bytes) -> None:
        nonlocal last_given
        asked = time.perf_counter()
        status, body = await line.ask(raw)
        answered = time.perf_counter()
        statuses[status] += 1
        waits.append((answered - asked) * 1000)
        if status == HTTPStatus.CREATED:
            last_given = answered
        elif status != HTTPStatus.CONFLICT:
            raise RuntimeError(f"answered {status}: {body!r}")

    cpu = server.cpu_seconds()
    await asyncio.gather(*map(claim, lines, raws))
    took, cpu = time.perf_counter() - started, server.cpu_seconds() - cpu
    found = tuple(await database.fetchrow(COUNTED, campaign_id))
    if statuses != {201: LEFT, 409: CROWD - LEFT} or found != (LEFT, LEFT, GIVEN_BEFORE + LEFT, LEFT):
        raise RuntimeError(f"answered {dict(statuses)}; coupons, people, claimed, told: {found}")
    cuts = statistics.quantiles(waits, n=100)
    return Rush(CROWD / took, LEFT / (last_given - started), cuts[49], cuts[98], cpu / CROWD * 1e6)


async def measure(server: Server, postgres: Postgres, folder: Path, key: OKPKey) -> tuple[list[float], list[Rush]]:
    """Turn by turn, so that other work on the machine slows both alike."""
    bearers = [token(key).decode().removeprefix("Bearer ") for _ in range(CROWD)]
    script = folder / "hot.sql"
    script.write_text(HOT_ROW)
    database = await asyncpg.connect(postgres.url("claims").replace("+asyncpg", ""))
    floors, rushes = [], []
    for turn in range(-1, ROUNDS):
        floor = await asyncio.to_thread(pgbench, postgres, "floor", script)
        lines = await arrive(server, bearers)
        done = await rush(server, database, lines, bearers)
        for line in lines:
            line.close()
        if turn >= 0:
            floors.append(floor)
            rushes.append(done)
    await database.close()
    return floors, rushes


def publish(key: OKPKey) -> ThreadingHTTPServer:
    """Serve the key that signs the crowd's tokens."""
    jwks = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(jwks)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    return served


def report(floors: list[float], rushes: list[Rush]) -> None:
    """Print medians of the rounds, and the spread of what is compared."""
    floor = statistics.median(floors)
    answers, coupons = (statistics.median(getattr(one, name) for one in rushes) for name in ("answers", "coupons"))
    p50, p99 = (statistics.median(getattr(one, name) for one in rushes) for name in ("p50", "p99"))
    print(f"{CROWD} clients, the last {LEFT} coupons, {ROUNDS} rounds: exactly {LEFT} given in each")
    print(f"pgbench, conditional update, 64 clients   {floor:8.0f} /s   ({min(floors):.0f} to {max(floors):.0f})")
    spread = [one.answers for one in rushes]
    print(
        f"claims answered                           {answers:8.0f} /s   {answers / floor:5.2f}x"
        f"   ({min(spread):.0f} to {max(spread):.0f})"
    )
    print(f"coupons given, until the last one         {coupons:8.0f} /s   {coupons / floor:5.2f}x")
    print(f"a client waits, ms                     p50 {p50:.0f}, p99 {p99:.0f} in a rush of {CROWD} at one instant")
    print(f"the service's CPU a claim              {statistics.median(one.cpu_us for one in rushes):.0f} µs")


def main() -> None:
    """Run it on stores of its own, in a folder that is gone afterwards."""
    key = OKPKey.generate_key("Ed25519", parameters={"kid": KID, "use": "sig", "alg": "EdDSA"})
    served = publish(key)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        server: Server | None = None
        try:
            postgres.start()
            valkey.start()
            postgres.ensure_database("claims", "floor")
            postgres.query(
                "CREATE TABLE hot (id int PRIMARY KEY, claimed bigint NOT NULL, total bigint NOT NULL)",
                "INSERT INTO hot VALUES (1, 0, 1000000000)",
                database="floor",
            )
            asyncio.run(upgrade("referrals", postgres.url("claims")))
            (port,) = free_ports(1)
            environment = {
                "HEIKA_ENV": "sandbox",
                "HEIKA_DATA": str(folder / "heika"),
                "HEIKA_JWKS_URL": f"http://127.0.0.1:{served.server_address[1]}/jwks.json",
                "HEIKA_COUPON_KEY": "k" * 32,
                "REDIS_URL": valkey.url,
                "REFERRALS_DATABASE_URL": postgres.url("claims"),
            }
            # On a busy machine the crowd is long in coming; those who came first must not be hung up on.
            command = [*uvicorn_command("services.referrals.app:app", "127.0.0.1", port), "--timeout-keep-alive", "900"]
            server = start(command, environment, port, "/healthz", folder / "log")
            report(*uvloop.run(measure(server, postgres, folder, key)))
        finally:
            if server is not None:
                server.process.terminate()
                server.process.wait(30)
            valkey.stop()
            postgres.stop()
            postgres.erase()
            served.shutdown()


if __name__ == "__main__":
    main()
