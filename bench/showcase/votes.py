"""Votes a second over HTTP, for one work and for a thousand, by 64 and by 512 clients, beside pgbench's hot row.

Run: `python -m bench.showcase.votes` (about two minutes). One process of the service and pgbench take turns on the same
durable PostgreSQL; every vote is committed before it is answered, and all are counted again at the end. A vote for one
work is another member's each time. pgbench updates one row, and beside it writes a row a vote as whoever counts exactly
must. Answers a CPU second are what one core would do, however busy the machine is; clients share it with the server.
"""

import asyncio
import os
import statistics
from collections import defaultdict
from itertools import count
from typing import Any

import asyncpg
import uvloop

from bench.crowd import Stage, stage
from bench.http import Figures, Server, Turn, hammer, must, request
from bench.load import pgbench
from kit.ids import new_id
from services.showcase.seed import CONTEST_ID

MEMBERS = int(os.environ.get("MEMBERS", "12000"))
SECONDS = float(os.environ.get("SECONDS", "3"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
WORKS = 1000

UPDATE = "UPDATE hot SET votes = votes + 1 WHERE id = 1;\n"
WITH_ROW = f"BEGIN;\nINSERT INTO ballot (id, entry) VALUES (gen_random_uuid(), 1);\n{UPDATE}COMMIT;\n"
ADD_WORKS = """
INSERT INTO entry (id, contest_id, member_id, title, story, status, submitted_at)
SELECT unnest($1::uuid[]), $2, gen_random_uuid(), 'cake', '', 'approved', now()
"""
RECOUNT = "SELECT (SELECT count(*) FROM vote) AS votes, (SELECT sum(votes) FROM tally) AS tallied"
FLOOR = (
    "CREATE TABLE hot (id int PRIMARY KEY, votes bigint NOT NULL) WITH (fillfactor = 50)",
    "INSERT INTO hot VALUES (1, 0)",
    "CREATE TABLE ballot (id uuid PRIMARY KEY, entry int NOT NULL)",
)


def voting(raws: Any, made: list[bytes], given: list[int]) -> Turn:
    """Each connection takes the next vote that is left."""

    async def turn(line: Any, _: int) -> bool:
        place = next(raws)
        if place >= len(made):
            return False
        must(await line.ask(made[place]), 201)
        given[0] += 1
        return True

    return turn


async def meet(server: Server, bearers: list[str]) -> None:
    """Have every token known, as it is of whoever has looked at a work before voting for it."""
    seen = count()
    raws = [request("GET", "/v1/entries?limit=1", bearer) for bearer in bearers]

    async def turn(line: Any, _: int) -> bool:
        place = next(seen)
        if place >= len(raws):
            return False
        must(await line.ask(raws[place]))
        return True

    await hammer(server, 32, 600, turn)


async def measure(held: Stage) -> tuple[dict[str, list[float]], dict[str, Figures]]:
    """Turn by turn, so that other work on the machine slows all alike."""
    bearers = held.bearers(MEMBERS)
    scripts = {"pgbench, one hot row": UPDATE, "pgbench, a row and the hot row": WITH_ROW}
    for name, script in scripts.items():
        (held.folder / f"{name}.sql").write_text(script)
    database = await asyncpg.connect(held.plain_url)
    await database.execute("UPDATE contest SET votes_per_day = 100")
    works = [new_id() for _ in range(WORKS)]
    await database.execute(ADD_WORKS, works, CONTEST_ID)
    await meet(held.server, bearers)
    given = [0]
    floors: defaultdict[str, list[float]] = defaultdict(list)
    total: defaultdict[str, Figures] = defaultdict(Figures)
    for turn in range(ROUNDS):
        for name in scripts:
            floors[name].append(await asyncio.to_thread(pgbench, held.postgres, "floor", held.folder / f"{name}.sql"))
        for clients in (64, 512):
            hot = new_id()
            await database.execute(ADD_WORKS, [hot], CONTEST_ID)
            # A member has a hundred votes a day here, and votes for each of the thousand once.
            spread = [works[(member * 7 + turn * 2 + clients) % WORKS] for member in range(MEMBERS)]
            for name, entries in (("one work", [hot] * MEMBERS), (f"{WORKS} works", spread)):
                made = [
                    request("POST", f"/v1/entries/{entry}/votes", bearer)
                    for entry, bearer in zip(entries, bearers, strict=True)
                ]
                total[f"votes for {name}, {clients} clients"] += await hammer(
                    held.server, clients, SECONDS, voting(count(), made, given)
                )
    found = await database.fetchrow(RECOUNT)
    await database.close()
    if tuple(found) != (given[0], given[0]):
        raise RuntimeError(f"{given[0]} were answered; stored and tallied: {tuple(found)}")
    return floors, total


def report(floors: dict[str, list[float]], total: dict[str, Figures]) -> None:
    """Print it beside both floors."""
    one, other = (statistics.median(rates) for rates in floors.values())
    print(f"{'':38}{'a second':>10}{'of the row':>12}{'of both':>10}{'a CPU second':>14}")
    for name, rates in floors.items():
        print(f"{name:38}{statistics.median(rates):10.0f}   ({min(rates):.0f} to {max(rates):.0f})")
    for name, figures in total.items():
        rate = figures.a_second
        print(f"{name:38}{rate:10.0f}{rate / one:11.2f}x{rate / other:9.2f}x{figures.a_core:14.0f}")


def main() -> None:
    """Run it on stores of its own, in a folder that is gone afterwards."""
    with stage("showcase", floor=FLOOR) as held:
        report(*uvloop.run(measure(held)))


if __name__ == "__main__":
    main()
