"""Reading a membership and searching members among 1,501,746, beside the same among 1,500, in one run.

Run: `python -m bench.members.directory`. Rows come by COPY; the plans of the searches at the larger size are shown.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
from joserfc import jwt
from joserfc.jwk import OKPKey
from rich.progress import Progress
from sqlalchemy import event

from kit import auth
from kit.app import create_app
from kit.ids import new_id
from kit.migrations import upgrade
from onebox.postgres import Postgres
from services.members.app import service
from services.members.settings import SANDBOX_KEY
from services.members.vault import open_vault

SIZES = (1_500, 1_501_746)
ROUNDS = 200
BATCH = 20_000
TWO_YEARS = timedelta(days=730)
WORDS = [
    "草莓",
    "可颂",
    "戚风",
    "芋泥",
    "抹茶",
    "焦糖",
    "肉桂",
    "海盐",
    "奶油",
    "蛋挞",
    "吐司",
    "曲奇",
    "慕斯",
    "泡芙",
    "月饼",
    "青团",
    "酥饼",
    "布朗尼",
    "提拉米苏",
    "贝果",
]
TIERS = ("potential",) * 6 + ("beginner",) * 3 + ("enthusiast", "expert")

MEMBER = ["id", "nickname", "tier", "roles", "labels", "frozen", "note", "evidence", "version", "created_at"]
IDENTITY = ["id", "member_id", "kind", "digest", "masked", "sealed", "created_at"]
SEGMENT = [
    "id",
    "member_id",
    "source",
    "source_id",
    "plan_code",
    "months",
    "days",
    "benefits",
    "added_at",
    "starts_at",
    "ends_at",
]


def bearer_of(key: OKPKey, subject: UUID | None = None, role: str = "member", scope: str = "") -> bytes:
    """A bearer header."""
    now = int(time.time())
    claims = {"iss": auth.ISSUER, "aud": auth.AUDIENCE, "role": role, "scope": scope, "iat": now, "exp": now + 900}
    claims |= {"sub": str(subject or new_id()), "sid": str(new_id()), "jti": str(new_id())}
    return b"Bearer " + jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, algorithms=["EdDSA"]).encode()


async def get(app: Any, target: str, bearer: bytes) -> int:
    """The status of one GET, the app called as a server calls it."""
    status = 0
    path, _, query = target.partition("?")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"authorization", bearer)],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return status


def member_id(number: int) -> UUID:
    """The id of the n-th member."""
    return UUID(int=(0x0193_0000_0000_7000_8000_0000_0000_0000 + (number << 24)))


def nickname(number: int) -> str:
    """A name as people choose them: two words that many have, and a number few have."""
    return f"{WORDS[number % 20]}{WORDS[number // 20 % 20]}{number * 7919 % 1_000_003:06}"


def phone(number: int) -> str:
    """The phone of the n-th member."""
    return f"+86138{number:08}"


def rows(
    numbers: range, size: int, sealed: str, digest: Any
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]]:
    """Member, phone and segment of each of these."""
    now = datetime.now(UTC)
    for number in numbers:
        key, at = member_id(number), now - TWO_YEARS * (1 - number / size)
        labels = ["vip"] if number % 50 == 0 else []
        yield (
            (key, nickname(number), TIERS[number % 11], [], labels, False, "", "{}", 1, at),
            (key, key, "phone", digest("phone", phone(number)), "138****0000", sealed, at),
            (
                *(key, key, "order", key, "black-card-12m", 12, 0, ["member_lessons"]),
                *(at, at, at + timedelta(days=365)),
            ),
        )


async def load(url: str, size: int) -> None:
    """Fill a migrated database; its secondary indexes are built once the rows are there."""
    vault = open_vault(SANDBOX_KEY)
    sealed = vault.seal(phone(0))
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        found = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'member' AND indexname <> 'member_pkey'"
        indexes = await connection.fetch(found)
        for index in indexes:
            await connection.execute(f'DROP INDEX "{index["indexname"]}"')
        with Progress() as progress:
            task = progress.add_task(f"{size:,} members", total=size + len(indexes))
            for first in range(0, size, BATCH):
                batch = list(rows(range(first, min(first + BATCH, size)), size, sealed, vault.digest))
                tables = (("member", MEMBER, 0), ("identity", IDENTITY, 1), ("segment", SEGMENT, 2))
                for table, columns, place in tables:
                    # One member in three has bought a card.
                    records = [row[place] for row in batch[:: 3 if table == "segment" else 1]]
                    await connection.copy_records_to_table(table, records=records, columns=columns)
                progress.advance(task, len(batch))
            for index in indexes:
                await connection.execute(index["indexdef"])
                progress.advance(task)
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()


@asynccontextmanager
async def running(postgres: Postgres, size: int) -> AsyncIterator[Any]:
    """The service on a database with so many members, and what it asks of the database."""
    name = f"members_{size}"
    postgres.ensure_database(name)
    await upgrade("members", postgres.url(name))
    await load(postgres.url(name), size)
    settings = service.settings(
        env="sandbox", database_url=postgres.url(name), background=False, log_level="error", limits_mode="off"
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        yield app


async def measure(app: Any, paths: Sequence[tuple[str, bytes]]) -> tuple[float, float]:
    """p50 and p99 of these reads, one after the other, in milliseconds."""
    took = []
    for path, bearer in paths:
        started = time.perf_counter()
        if await get(app, path, bearer) != 200:  # noqa: PLR2004 - HTTP's own number
            raise RuntimeError(path)
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)]


async def plans(app: Any, paths: dict[str, str], admin: bytes) -> None:
    """Print how PostgreSQL finds each search's page."""
    engine = app.state.runtime.db.engine
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith("SELECT member.id"):
            seen.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    for name, path in paths.items():
        seen.clear()
        await get(app, path, admin)
        statement, parameters = seen[0]
        async with engine.connect() as connection:
            found = await connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}", parameters
            )
            print(f"\n{name}\n" + "\n".join(f"  {row[0]}" for row in found))
    event.remove(engine.sync_engine, "before_cursor_execute", note)


def searches(number: int) -> dict[str, str]:
    """What an admin looks for about the n-th member."""
    path = "/v1/admin/members?"
    return {
        "search by phone": f"{path}q={quote(phone(number))}",
        "search by nickname": f"{path}q={quote(nickname(number))}",
        "search by part of it": f"{path}q={quote(nickname(number)[-6:])}",
        "filter by tier": f"{path}tier={TIERS[number % 11]}",
        "filter by label": f"{path}label=vip",
        "filter by membership": f"{path}membership=active",
    }


async def compare(postgres: Postgres) -> None:
    """Load both sizes, measure the same reads on each, and print them beside one another."""
    key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench", "use": "sig", "alg": "EdDSA"})
    admin = bearer_of(key, role="admin", scope=" ".join(auth.SCOPES))
    figures: dict[str, list[tuple[float, float]]] = {}
    for size in SIZES:
        async with running(postgres, size) as app:
            auth.keys.publish({"keys": [key.as_dict(private=False)]})
            # Members spread over all the pages, the same in every run.
            chosen = [turn * 999_983 % size for turn in range(ROUNDS)]
            reads = {"read a membership": [("/v1/me/membership", bearer_of(key, member_id(n))) for n in chosen]}
            for number in chosen:
                for name, path in searches(number).items():
                    reads.setdefault(name, []).append((path, admin))
            for name, paths in reads.items():
                await measure(app, paths[:50])
                figures.setdefault(name, []).append(await measure(app, paths))
            if size == SIZES[-1]:
                await plans(app, searches(size // 2), admin)
    print(
        f"\n{'milliseconds':24}"
        + "".join(f"{f'p50 {size:,}':>16}{f'p99 {size:,}':>16}" for size in SIZES)
        + "   p99 ratio"
    )
    for name, (small, large) in figures.items():
        numbers = "".join(f"{number:16.2f}" for number in (*small, *large))
        print(f"{name:24}{numbers}{large[1] / small[1]:12.2f}")


def main() -> None:
    """Run the comparison on a PostgreSQL of its own, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        postgres = Postgres(Path(temporary) / "postgres")
        postgres.start()
        try:
            asyncio.run(compare(postgres))
        finally:
            postgres.stop()
            postgres.erase()


if __name__ == "__main__":
    main()
