"""Votes for one work a second, through the whole service, beside pgbench's update of one hot row; and the leaderboard.

Run: `python -m bench.showcase.votes`. Both sides use the same durable PostgreSQL, with 64 clients.
"""

import time
from pathlib import Path

from sqlalchemy import text

from bench.load import CLIENTS, call, known_bearers, pgbench, post_all, side_by_side
from kit.app import create_app
from kit.migrations import upgrade
from onebox.stores import Postgres
from services.showcase.app import service
from services.showcase.seed import CONTEST_ID

ENTRIES = 2000
READS = 200
HOT_ROW = """
BEGIN;
INSERT INTO ballot (id, entry) VALUES (gen_random_uuid(), 1);
UPDATE hot SET votes = votes + 1 WHERE id = 1;
COMMIT;
"""
ADD_ENTRIES = text(
    "INSERT INTO entry (id, contest_id, member_id, title, story, status, submitted_at) "
    "SELECT gen_random_uuid(), :contest, gen_random_uuid(), 'cake', '', 'approved', now() "
    "FROM generate_series(1, :entries) RETURNING id"
)
RECOUNT = text("SELECT (SELECT count(*) FROM vote) AS votes, (SELECT sum(votes) FROM tally) AS tallied")


async def ours(postgres: Postgres, folder: Path) -> float:
    """Votes a second for one work, each by another member; prints milliseconds a leaderboard."""
    await upgrade("showcase", postgres.url("votes"))
    settings = service.settings(
        env="sandbox", database_url=postgres.url("votes"), background=False, log_level="error", data=folder
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        database = app.state.runtime.db
        async with database.session() as session, session.begin():
            added = await session.execute(ADD_ENTRIES, {"contest": CONTEST_ID, "entries": ENTRIES})
            entry_id = added.scalars().all()[0]
        given, took = await post_all(app, f"/v1/entries/{entry_id}/votes", await known_bearers())
        async with database.session() as session:
            counted = (await session.execute(RECOUNT)).one()
        if (counted.votes, counted.tallied) != (given, given):
            raise RuntimeError(f"{given} were answered, {counted.votes} are stored, {counted.tallied} are tallied")
        started = time.perf_counter()
        for _ in range(READS):
            await call(app, "GET", f"/v1/contests/{CONTEST_ID}/leaderboard?limit=20")
        board_ms = (time.perf_counter() - started) / READS * 1000
        print(f"leaderboard of {ENTRIES} works:           {board_ms:8.2f} ms")
        return given / took


def floor(postgres: Postgres, folder: Path) -> float:
    """Transactions a second of the least that could be right."""
    postgres.query(
        "CREATE TABLE hot (id int PRIMARY KEY, votes bigint NOT NULL)",
        "INSERT INTO hot VALUES (1, 0)",
        "CREATE TABLE ballot (id uuid PRIMARY KEY, entry int NOT NULL)",
        database="floor",
    )
    script = folder / "hot.sql"
    script.write_text(HOT_ROW)
    return pgbench(postgres, "floor", script)


if __name__ == "__main__":
    hot, votes = side_by_side("votes", floor, ours)
    print(f"pgbench, one hot row, {CLIENTS} clients: {hot:8.0f}/s")
    print(f"votes for one work, {CLIENTS} clients:    {votes:8.0f}/s ({votes / hot:.1f}x)")
