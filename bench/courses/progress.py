"""Reports of progress a second, through the whole service, beside pgbench's INSERT of one small row a transaction.

Run: `python -m bench.courses.progress`. Both sides use the same durable PostgreSQL, with 64 clients; every report is of
another member, half a lesson long, and is answered once it is committed.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench.load import CLIENTS, SECONDS, call, known_bearers, pgbench, side_by_side
from kit.app import create_app
from kit.migrations import upgrade
from onebox.stores import Postgres
from services.courses.app import service

BODY = b'{"position_s": 60, "watched": [[0, 60]]}'
ONE_ROW = "INSERT INTO report (id, member, seconds) VALUES (gen_random_uuid(), gen_random_uuid(), 60);\n"
LESSON = text("SELECT lesson.id FROM lesson JOIN course ON course.id = course_id WHERE access = 'free' LIMIT 1")
RECOUNT = text("SELECT count(*) FROM progress WHERE watched = '{[0,60)}'")


async def ours(postgres: Postgres, folder: Path) -> float:
    """Reports a second."""
    await upgrade("courses", postgres.url("progress"))
    settings = service.settings(
        env="sandbox", database_url=postgres.url("progress"), background=False, log_level="error", data=folder
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        database = app.state.runtime.db
        async with database.session() as session:
            lesson_id = (await session.execute(LESSON)).scalar_one()
        written, took = await put_all(app, f"/v1/lessons/{lesson_id}/progress", await known_bearers())
        async with database.session() as session:
            stored = (await session.execute(RECOUNT)).scalar_one()
        if stored != written:
            raise RuntimeError(f"{written} were answered, {stored} are stored")
        return written / took


async def put_all(app: Any, path: str, bearers: list[bytes]) -> tuple[int, float]:
    """How many reports were answered in `SECONDS`, by `CLIENTS` at once; and the seconds."""
    written, until = 0, time.perf_counter() + SECONDS

    async def client() -> None:
        nonlocal written
        while bearers and time.perf_counter() < until:
            status = await call(app, "PUT", path, bearers.pop(), BODY)
            if status != 200:  # noqa: PLR2004 - what a saved report is answered
                raise RuntimeError(f"{path} answered {status}")
            written += 1

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return written, time.perf_counter() - started


def floor(postgres: Postgres, folder: Path) -> float:
    """Transactions a second of the least that could be stored."""
    create = "CREATE TABLE report (id uuid PRIMARY KEY, member uuid NOT NULL, seconds int NOT NULL)"
    postgres.query(create, database="floor")
    script = folder / "report.sql"
    script.write_text(ONE_ROW)
    return pgbench(postgres, "floor", script)


if __name__ == "__main__":
    inserts, reports = side_by_side("progress", floor, ours)
    print(f"pgbench, one INSERT, {CLIENTS} clients:    {inserts:8.0f}/s")
    print(f"reports of progress, {CLIENTS} clients:    {reports:8.0f}/s ({reports / inserts:.2f}x)")
