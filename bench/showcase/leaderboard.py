"""A contest of 10,000 works and 1.5 million votes: its leaderboard read, rebuilt and recounted, its rules run, its result settled.

Run: `python -m bench.showcase.leaderboard` (about two minutes; WORKS and VOTES in the environment make it smaller).
Reads go over HTTP to one process of the service; what is rebuilt is the sorted set in Redis, deleted before each time.
"""

import asyncio
import os
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import asyncpg
import uvloop
from joserfc import jwt
from joserfc.jwk import OKPKey
from redis.asyncio import Redis

from bench.crowd import stage
from bench.http import Line, Server, must, request
from kit import auth
from kit.app import Runtime
from kit.ids import new_id
from services.showcase.app import service
from services.showcase.recount import recount
from services.showcase.seed import CONTEST_ID

WORKS = int(os.environ.get("WORKS", "10000"))
VOTES = int(os.environ.get("VOTES", "1500000"))
READS = 2000
REBUILDS = 20
READERS = 16
ADD_WORKS = """
INSERT INTO entry (id, contest_id, member_id, title, story, status, submitted_at, approved_at)
SELECT gen_random_uuid(), $1, gen_random_uuid(), 'cake ' || n, '', 'approved', now(), now() FROM generate_series(1, $2) n
"""
# Some works have far more votes than others; a voter in ten came by one of a thousand invitations, one in fifty shares a
# device or an address with others.
ADD_VOTES = """
INSERT INTO vote (entry_id, member_id, day, contest_id, slot, cast_at, account_hours, address, device, tree)
SELECT works.id, md5(n::text)::uuid, current_date, $1, 1, now() - n * interval '1 second', n % 5000,
    substr(sha256(int4send(n / 3)), 1, 8), substr(sha256(int4send(CASE WHEN n % 50 = 0 THEN n % 7 ELSE n END)), 1, 8),
    substr(sha256(int4send(CASE WHEN n % 10 = 0 THEN n % 1000 ELSE n + 1000 END)), 1, 8)
FROM generate_series(1, $2) n
JOIN (SELECT id, row_number() OVER () - 1 AS place FROM entry) works
    ON works.place = floor($3 * power((n::bigint * 7919 % 1000003) / 1000003.0, 3))
"""
COUNT = """
INSERT INTO tally (entry_id, votes)
SELECT e.id, (SELECT count(*) FROM vote v WHERE v.entry_id = e.id) FROM entry e ON CONFLICT (entry_id)
DO UPDATE SET votes = excluded.votes
"""
RULES: dict[str, dict[str, Any]] = {
    "burst": {"per_minute": 30},
    "account_age": {"min_hours": 24},
    "invite_tree": {"max_share": 0.2},
    "address": {"per_prefix": 2},
    "device": {"per_device": 2},
}


def admin_token(key: OKPKey, scope: str) -> str:
    """Who runs rules and settles."""
    now = int(datetime.now(UTC).timestamp())
    claims = {"iss": auth.ISSUER, "aud": auth.AUDIENCE, "role": "admin", "scope": scope, "iat": now, "exp": now + 900}
    claims |= {"sub": str(new_id()), "sid": str(new_id()), "jti": str(new_id())}
    return jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, algorithms=["EdDSA"])


async def timed(line: Line, raw: bytes, status: int = 200) -> float:
    """Milliseconds until the answer."""
    started = time.perf_counter()
    must(await line.ask(raw), status)
    return (time.perf_counter() - started) * 1000


async def read(server: Server, readers: int) -> None:
    """The first twenty, by so many readers at once."""
    loop = asyncio.get_running_loop()
    raw = request("GET", f"/v1/contests/{CONTEST_ID}/leaderboard")
    lines = [(await loop.create_connection(Line, "127.0.0.1", server.port))[1] for _ in range(readers)]
    waits: list[float] = []

    async def one(line: Line) -> None:
        for _ in range(READS // readers):
            waits.append(await timed(line, raw))  # noqa: PERF401 - one after the other

    cpu, started = server.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*map(one, lines))
    took, cpu = time.perf_counter() - started, server.cpu_seconds() - cpu
    cuts = statistics.quantiles(waits, n=100)
    print(
        f"read by {readers:2} at once        p50 {cuts[49]:7.2f} ms  p99 {cuts[98]:7.2f} ms"
        f"  {len(waits) / took:6.0f}/s  {cpu / len(waits) * 1e6:5.0f} µs of CPU each"
    )
    for line in lines:
        line.close()


async def measure(server: Server, url: str, redis_url: str, key: OKPKey) -> None:
    """Fill the contest, then measure one thing after the other."""
    database = await asyncpg.connect(url.replace("+asyncpg", ""))
    await database.execute(ADD_WORKS, CONTEST_ID, WORKS)
    await database.execute(ADD_VOTES, CONTEST_ID, VOTES, WORKS)
    await database.execute(COUNT)
    await database.execute("VACUUM ANALYZE")
    most = await database.fetchval("SELECT max(votes) FROM tally")
    print(f"{WORKS} works, {VOTES} votes, {most} for the first")
    for readers in (1, READERS):
        await read(server, readers)
    redis = Redis.from_url(redis_url)
    line = (await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", server.port))[1]
    raw = request("GET", f"/v1/contests/{CONTEST_ID}/leaderboard")
    waits = []
    for _ in range(REBUILDS):
        await redis.delete(f"heika:standings:{CONTEST_ID}")
        waits.append(await timed(line, raw))
    print(f"read with the set lost    p50 {statistics.median(waits):7.2f} ms  max {max(waits):7.2f} ms")
    await redis.aclose()
    runtime = Runtime(service, service.settings(env="sandbox", database_url=url, redis_url=redis_url))
    path, bearer = f"/v1/admin/contests/{CONTEST_ID}", admin_token(key, "contests:write")
    for rule, params in RULES.items():
        body = b'{"rule": "%s", "params": %s, "dry_run": true}'
        told = body % (rule.encode(), str(params).replace("'", '"').encode())
        raw = request("POST", f"{path}/quarantine", bearer, told)
        started = time.perf_counter()
        answer = must(await line.ask(raw)).decode()
        print(f"dry run of {rule:12} {time.perf_counter() - started:6.1f} s  {answer}")
    await database.execute(
        "UPDATE contest SET ends_at = now(), accounts_before = now(), starts_at = now() - interval '1 d'"
    )
    print(f"settlement              {await timed(line, request('POST', f'{path}/settle', bearer)) / 1000:6.1f} s")
    started = time.perf_counter()
    found = await recount(runtime, CONTEST_ID)
    took = time.perf_counter() - started
    print(f"recount                 {took:6.1f} s  {found.votes} votes, {len(found.differences)} differences")
    if found.differences:
        raise RuntimeError(found.differences[:3])
    line.close()
    await runtime.close()
    await database.close()


def main() -> None:
    """Run it on stores of its own, in a folder that is gone afterwards."""
    with stage("showcase") as held:
        uvloop.run(measure(held.server, held.url, held.valkey.url, held.key))


if __name__ == "__main__":
    main()
