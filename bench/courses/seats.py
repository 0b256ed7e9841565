"""Five thousand clients want the 300 seats of a live lesson, over HTTP, beside pgbench's conditional update of one hot row.

Run: `python -m bench.courses.seats` (under two minutes). One process of the service and 64 clients of pgbench take
turns on the same durable PostgreSQL. Every client has its own connection and its own token, which its phone used
before; all of them ask at the same instant, and everyone is answered with a seat or a place in the queue, which is a
row of its own; pgbench writes one number. Then everybody who has a seat gives it back at once.
"""

import asyncio
import json
import os
import statistics
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import uvloop

from bench.crowd import Stage, stage
from bench.http import Line, Server, must, request
from bench.load import pgbench
from kit.ids import new_id

CROWD = int(os.environ.get("CROWD", "5000"))
SEATS = CROWD * 3 // 50
ROUNDS = int(os.environ.get("ROUNDS", "3"))
AT_ONCE = 100
HOT_ROW = "UPDATE hot SET enrolled = enrolled + 1 WHERE id = 1 AND enrolled < capacity;\n"
PLAN = """
INSERT INTO live_lesson (id, title, description, instructor, starts_at, ends_at, zone, capacity, priority_seats, enrolled,
    general, access, status, version, created_at, updated_at)
SELECT $1, '可颂跟做', '', '周砚', now() + interval '9 days', now() + interval '10 days', 'Asia/Shanghai', $2, 0, 0,
    0, '[{"kind": "free"}]', 'scheduled', 1, now(), now()
"""
COUNTED = "SELECT enrolled, general FROM live_lesson WHERE id = $1"
LIST = "SELECT member_id, status FROM enrolment WHERE lesson_id = $1 ORDER BY place"
TOLD = "SELECT count(*) FROM outbox WHERE type = 'courses.notice.wanted' AND body ->> 'kind' = 'lesson_seat'"
FLOOR = (
    "CREATE TABLE hot (id int PRIMARY KEY, enrolled bigint NOT NULL, capacity bigint NOT NULL)",
    "INSERT INTO hot VALUES (1, 0, 1000000000)",
)


@dataclass(frozen=True)
class Rush:
    """One round: answers a second, how long clients waited in milliseconds, CPU of each; seats that moved on a second."""

    answers: float
    p50: float
    p99: float
    cpu_us: float
    moved: float


async def connect(server: Server) -> Line:
    """A connection of a client's own."""
    return (await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", server.port))[1]


async def ask(server: Server, line: Line, raw: bytes) -> tuple[int, bytes]:
    """Ask, on a new connection if the server took this one for forgotten meanwhile; all that is asked may be repeated."""
    try:
        return await line.ask(raw)
    except (RuntimeError, ConnectionError):
        return await (await connect(server)).ask(raw)


async def arrive(server: Server, bearers: list[str], *, known: bool) -> list[Line]:
    """The crowd's connections; each asks something first, so that its token is known."""
    lines: list[Line] = []

    async def one(bearer: str) -> Line:
        line = await connect(server)
        # A connection that asks nothing is not kept open for long.
        path = "/healthz" if known else "/v1/live-lessons/next"
        must(await line.ask(request("GET", path, bearer)))
        return line

    for first in range(0, len(bearers), AT_ONCE):
        lines += await asyncio.gather(*map(one, bearers[first : first + AT_ONCE]))
    return lines


async def rush(server: Server, database: Any, lines: list[Line], bearers: dict[UUID, str]) -> Rush:
    """All of them enrol at once; RuntimeError unless the seats are taken exactly and the queue has every place once."""
    lesson_id = new_id()
    await database.execute(PLAN, lesson_id, SEATS)
    path = f"/v1/live-lessons/{lesson_id}/enrolment"
    waits: list[float] = []
    seats: dict[UUID, int] = {}

    async def enrol(member_id: UUID, line: Line, raw: bytes) -> None:
        asked = time.perf_counter()
        body = json.loads(must(await ask(server, line, raw)))
        waits.append((time.perf_counter() - asked) * 1000)
        seats[member_id] = 0 if body["status"] == "enrolled" else body["position"]

    raws = [request("PUT", path, bearer) for bearer in bearers.values()]
    cpu, started = server.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*map(enrol, bearers, lines, raws))
    took, cpu = time.perf_counter() - started, server.cpu_seconds() - cpu
    listed = await database.fetch(LIST, lesson_id)
    queue = [row["member_id"] for row in listed if row["status"] == "waitlisted"]
    answered = sorted(seats.values())
    exact = answered == [0] * SEATS + list(range(1, CROWD - SEATS + 1))
    ordered = [seats[member_id] for member_id in queue] == list(range(1, CROWD - SEATS + 1))
    if not (exact and ordered and tuple(await database.fetchrow(COUNTED, lesson_id)) == (SEATS, SEATS)):
        raise RuntimeError(f"{answered.count(0)} seats, {len(queue)} in the queue, exact {exact}, ordered {ordered}")
    leaving = [
        (line, request("DELETE", path, bearers[member_id]))
        for member_id, line in zip(bearers, lines, strict=True)
        if not seats[member_id]
    ]
    moved = await _leave(server, database, leaving, lesson_id, queue)
    cuts = statistics.quantiles(waits, n=100)
    return Rush(CROWD / took, cuts[49], cuts[98], cpu / CROWD * 1e6, moved)


async def _leave(
    server: Server, database: Any, leaving: list[tuple[Line, bytes]], lesson_id: UUID, queue: list[UUID]
) -> float:
    """Everybody with a seat gives it back: the first of the queue have them now, and were told, once each."""
    told = await database.fetchval(TOLD)
    started = time.perf_counter()
    for answer in await asyncio.gather(*(ask(server, *one) for one in leaving)):
        must(answer, 204)
    took = time.perf_counter() - started
    listed = await database.fetch(LIST, lesson_id)
    seated = [row["member_id"] for row in listed if row["status"] == "enrolled"]
    told = await database.fetchval(TOLD) - told
    if seated != queue[:SEATS] or told != SEATS or tuple(await database.fetchrow(COUNTED, lesson_id)) != (SEATS, SEATS):
        raise RuntimeError(f"{len(seated)} seats after {SEATS} moved on, {told} told")
    return SEATS / took


async def measure(held: Stage) -> tuple[list[float], list[Rush]]:
    """Turn by turn, so that other work on the machine slows both alike."""
    tokens = held.bearers(CROWD)
    bearers = {_subject(bearer): bearer for bearer in tokens}
    script = held.folder / "hot.sql"
    script.write_text(HOT_ROW)
    database = await asyncpg.connect(held.plain_url)
    floors, rushes = [], []
    for turn in range(-1, ROUNDS):
        floor = await asyncio.to_thread(pgbench, held.postgres, "floor", script)
        lines = await arrive(held.server, tokens, known=turn >= 0)
        done = await rush(held.server, database, lines, bearers)
        for line in lines:
            line.close()
        if turn >= 0:
            floors.append(floor)
            rushes.append(done)
    await database.close()
    return floors, rushes


def _subject(bearer: str) -> UUID:
    payload = bearer.split(".")[1]
    return UUID(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


def report(floors: list[float], rushes: list[Rush]) -> None:
    """Print medians of the rounds, and the spread of what is compared."""
    floor = statistics.median(floors)

    def median(name: str) -> float:
        return float(statistics.median(getattr(one, name) for one in rushes))

    spread = [one.answers for one in rushes]
    print(f"{CROWD} clients, {SEATS} seats, {ROUNDS} rounds: exactly {SEATS} seated and an unbroken queue in each")
    print(f"pgbench, conditional update, 64 clients   {floor:8.0f} /s   ({min(floors):.0f} to {max(floors):.0f})")
    print(
        f"seats and places given                    {median('answers'):8.0f} /s   {median('answers') / floor:5.2f}x"
        f"   ({min(spread):.0f} to {max(spread):.0f})"
    )
    print(f"seats given back, each to the next        {median('moved'):8.0f} /s   {median('moved') / floor:5.2f}x")
    print(
        f"a client waits, ms                     p50 {median('p50'):.0f}, p99 {median('p99'):.0f}, all at one instant"
    )
    print(f"the service's CPU an enrolment         {median('cpu_us'):.0f} µs")


def main() -> None:
    """Run it on stores of its own, in a folder that is gone afterwards."""
    with stage("courses", floor=FLOOR) as held:
        report(*uvloop.run(measure(held)))


if __name__ == "__main__":
    main()
