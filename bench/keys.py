"""A crowd of H5 pages asks at one instant, with an Idempotency-Key and without: for coupons, votes and seats.

Run: `python -m bench.keys` (about a minute). One process of each service in turn. Every page has its own connection,
token and key, and asks again with the same key afterwards; rows are counted, each must be there once.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import uvloop

from bench.courses.seats import PLAN
from bench.crowd import Stage, stage
from bench.http import Line, request
from bench.referrals.claims import OPEN
from bench.showcase.votes import ADD_WORKS
from kit.ids import new_id
from services.showcase.seed import CONTEST_ID

CROWDS = tuple(int(size) for size in os.environ.get("CROWDS", "240,1000").split(","))

Hot = Callable[[asyncpg.Connection, int], Awaitable[tuple[str, str, UUID]]]
"""Makes something hot for so many: how to ask, where, and for what."""


async def coupons(database: asyncpg.Connection, crowd: int) -> tuple[str, str, UUID]:
    """A campaign with enough for all."""
    campaign_id = new_id()
    await database.execute(OPEN, campaign_id, 0, crowd)
    return "POST", f"/v1/coupon-campaigns/{campaign_id}/claims", campaign_id


async def votes(database: asyncpg.Connection, _: int) -> tuple[str, str, UUID]:
    """One work for all."""
    entry_id = new_id()
    await database.execute(ADD_WORKS, [entry_id], CONTEST_ID)
    await database.execute("UPDATE contest SET votes_per_day = 100")
    return "POST", f"/v1/entries/{entry_id}/votes", entry_id


async def seats(database: asyncpg.Connection, crowd: int) -> tuple[str, str, UUID]:
    """A lesson with a seat for every second."""
    lesson_id = new_id()
    await database.execute(PLAN, lesson_id, crowd // 2)
    return "PUT", f"/v1/live-lessons/{lesson_id}/enrolment", lesson_id


PLACES: dict[str, tuple[str, Hot, str]] = {
    "referrals": ("/v1/me/coupons", coupons, "SELECT count(*) FROM coupon WHERE campaign_id = $1"),
    "showcase": ("/v1/entries?limit=1", votes, "SELECT count(*) FROM vote WHERE entry_id = $1"),
    "courses": ("/v1/live-lessons/next", seats, "SELECT count(*) FROM enrolment WHERE lesson_id = $1"),
}


async def rush(
    stage: Stage, lines: list[Line], raws: list[bytes], allowed: set[int]
) -> tuple[float, float, list[bytes]]:
    """All ask at once: seconds until the last has an answer, CPU of each in µs, the answers."""
    cpu, started = stage.server.cpu_seconds(), time.perf_counter()
    answers = await asyncio.gather(*(line.ask(raw) for line, raw in zip(lines, raws, strict=True)))
    took, cpu = time.perf_counter() - started, stage.server.cpu_seconds() - cpu
    wrong = {status for status, _ in answers} - allowed
    if wrong:
        raise RuntimeError(f"answered {wrong}")
    return took, cpu / len(raws) * 1e6, [body for _, body in answers]


async def measure(service: str, stage: Stage) -> None:
    """With and without keys in turn."""
    greeting, hot, counted = PLACES[service]
    database = await asyncpg.connect(stage.plain_url)
    bearers = stage.bearers(max(CROWDS))
    lines = await stage.arrive(bearers, greeting)
    for crowd in CROWDS:
        figures: dict[str, list[tuple[float, float]]] = {"without": [], "with": [], "again": []}
        for _ in range(3):
            for kind in ("without", "with"):
                method, path, it = await hot(database, crowd)
                keys = [f"Idempotency-Key: {new_id()}\r\n".encode() if kind == "with" else b"" for _ in range(crowd)]
                asked = [request(method, path, bearer) for bearer in bearers[:crowd]]
                raws = [raw[:-2] + key + b"\r\n" for raw, key in zip(asked, keys, strict=True)]
                took, cpu, answers = await rush(stage, lines[:crowd], raws, {200, 201})
                figures[kind].append((took, cpu))
                if kind == "with":
                    took, cpu, again = await rush(stage, lines[:crowd], raws, {200, 201})
                    figures["again"].append((took, cpu))
                    if again != answers and method == "POST":
                        raise RuntimeError("a retry was answered otherwise")
                if (found := await database.fetchval(counted, it)) != crowd:
                    raise RuntimeError(f"{found} rows of {crowd}")
        for kind, rounds in figures.items():
            took, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(
                f"{hot.__name__:8} {crowd:5} {kind:8} {took * 1000:7.0f} ms {crowd / took:7.0f} /s {cpu:6.0f} µs CPU each"
            )
    for line in lines:
        line.close()
    await database.close()


def main() -> None:
    """One service after the other."""
    for service in PLACES:
        with stage(service) as running:
            uvloop.run(measure(service, running))


if __name__ == "__main__":
    main()
