"""Five thousand clients claim the last thousand coupons, over HTTP, beside pgbench's conditional update of one hot row.

Run: `python -m bench.referrals.claims` (under two minutes). One process of the service and 64 clients of pgbench take
turns on the same durable PostgreSQL. Every client has its own connection and its own token, which its phone used
before; all of them ask at the same instant. A claim writes a coupon, the campaign's count and an event; pgbench writes
one number.
"""

import asyncio
import os
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import asyncpg
import uvloop

from bench.crowd import Stage, stage
from bench.http import Line, Server, must, request
from bench.load import pgbench
from kit.ids import new_id

CROWD = int(os.environ.get("CROWD", "5000"))
LEFT = CROWD // 5
GIVEN_BEFORE = 9000
ROUNDS = int(os.environ.get("ROUNDS", "5"))
AT_ONCE = 250
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
FLOOR = (
    "CREATE TABLE hot (id int PRIMARY KEY, claimed bigint NOT NULL, total bigint NOT NULL)",
    "INSERT INTO hot VALUES (1, 0, 1000000000)",
)


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


async def measure(held: Stage) -> tuple[list[float], list[Rush]]:
    """Turn by turn, so that other work on the machine slows both alike."""
    bearers = held.bearers(CROWD)
    script = held.folder / "hot.sql"
    script.write_text(HOT_ROW)
    database = await asyncpg.connect(held.plain_url)
    floors, rushes = [], []
    for turn in range(-1, ROUNDS):
        floor = await asyncio.to_thread(pgbench, held.postgres, "floor", script)
        lines = await arrive(held.server, bearers)
        done = await rush(held.server, database, lines, bearers)
        for line in lines:
            line.close()
        if turn >= 0:
            floors.append(floor)
            rushes.append(done)
    await database.close()
    return floors, rushes


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
    # On a busy machine the crowd is long in coming; those who came first must not be hung up on.
    with stage("referrals", floor=FLOOR, options=("--timeout-keep-alive", "900")) as held:
        report(*uvloop.run(measure(held)))


if __name__ == "__main__":
    main()
