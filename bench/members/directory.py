"""Reading a membership and searching members among 1,501,746, beside the same among 1,500, turn by turn in one run.

Run: `python -m bench.members.directory [FOLDER]`. Both databases are there at once, and each question is put to one and
then to the other, so that a machine with other work slows both alike. With a folder the databases stay for the next
run. The plans of the searches at the larger size are shown. Without loading it takes two minutes.
"""

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote
from uuid import UUID

from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import event

from bench.members.world import TIERS, load, member_id, nickname, phone, warm
from kit import auth
from kit.app import create_app
from kit.ids import new_id
from kit.migrations import upgrade
from onebox.postgres import Postgres
from services.members.app import service

SIZES = (1_500, 1_501_746)
ROUNDS = 500
WARM_UP = 20
READING = "read a membership"
READS = 10
"""Memberships read in each round, beside ten searches: five thousand of either, so that a 99th percentile is one."""


def bearer_of(key: OKPKey, subject: UUID | None = None, role: str = "member", scope: str = "") -> bytes:
    """A bearer header."""
    now = int(time.time())
    claims = {"iss": auth.ISSUER, "aud": auth.AUDIENCE, "role": role, "scope": scope, "iat": now, "exp": now + 86_400}
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


@asynccontextmanager
async def running(postgres: Postgres, size: int) -> AsyncIterator[Any]:
    """The service on a database with so many members."""
    name = f"members_{size}"
    postgres.ensure_database(name)
    await upgrade("members", postgres.url(name))
    await load(postgres.url(name), size)
    await warm(postgres.url(name))
    settings = service.settings(
        env="sandbox", database_url=postgres.url(name), background=False, log_level="error", limits_mode="off"
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        yield app


async def took(app: Any, target: str, bearer: bytes) -> float:
    """Milliseconds of one GET that must be answered 200."""
    started = time.perf_counter()
    if await get(app, target, bearer) != 200:  # noqa: PLR2004 - HTTP's own number
        raise RuntimeError(target)
    return (time.perf_counter() - started) * 1000


async def plans(app: Any, paths: dict[str, str], admin: bytes) -> None:
    """Print how PostgreSQL finds each search's page."""
    engine = app.state.runtime.db.engine
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "SELECT member.id" in statement:
            seen.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    for name, path in paths.items():
        seen.clear()
        await get(app, path, admin)
        for statement, parameters in seen.copy():
            async with engine.connect() as connection:
                found = await connection.exec_driver_sql(
                    f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {statement}", parameters
                )
                print(f"\n{name}\n" + "\n".join(f"  {row[0]}" for row in found))
    event.remove(engine.sync_engine, "before_cursor_execute", note)


def searches(number: int) -> dict[str, str]:
    """What an admin looks for about the n-th member."""
    path = "/v1/admin/members?"
    name = nickname(number)
    return {
        "search by phone": f"{path}q={quote(phone(number))}",
        "search by nickname": f"{path}q={quote(name)}",
        "search by part of it": f"{path}q={quote(name[-6:])}",
        "search by two letters": f"{path}q={quote(name[:2])}",
        "search by two rare ones": f"{path}q={quote(name[1] + name[2])}",
        "search by what nobody has": f"{path}q={quote('无' + name[1])}",
        "filter by tier": f"{path}tier={TIERS[number % 11]}",
        "filter by label": f"{path}label=vip",
        "filter by membership": f"{path}membership=active",
        "filter by none of it": f"{path}membership=none&tier=expert",
    }


def asked_in(turn: int, key: OKPKey, admin: bytes) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """What is asked in a round of each size, by name: about members spread over all the pages, the same in every run."""
    for number in range(turn * READS, (turn + 1) * READS):
        readers = [bearer_of(key, member_id(number * 999_983 % size)) for size in SIZES]
        yield READING, [("/v1/me/membership", reader) for reader in readers]
    wanted = [searches(turn * 999_983 % size) for size in SIZES]
    for name in wanted[0]:
        yield name, [(paths[name], admin) for paths in wanted]


async def compare(postgres: Postgres) -> None:
    """Load both sizes, put each question to both, and print what they took."""
    key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench", "use": "sig", "alg": "EdDSA"})
    admin = bearer_of(key, role="admin", scope=" ".join(auth.SCOPES))
    figures: dict[str, list[tuple[float, ...]]] = {}
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(running(postgres, size)) for size in SIZES]
        auth.keys.publish({"keys": [key.as_dict(private=False)]})
        # As a process of its own does once it runs.
        gc.collect()
        gc.freeze()
        for turn in range(-WARM_UP, ROUNDS):
            for name, questions in asked_in(turn + WARM_UP, key, admin):
                pair = [0.0] * len(SIZES)
                # Whoever is asked second finds caches of the machine as the first left them: they take turns.
                for place in range(len(SIZES))[:: 1 if turn % 2 else -1]:
                    pair[place] = await took(apps[place], *questions[place])
                if turn >= 0:
                    figures.setdefault(name, []).append(tuple(pair))
        figures["all searches"] = [pair for name, pairs in figures.items() if name != READING for pair in pairs]
        await plans(apps[-1], searches(SIZES[-1] // 2), admin)
    report(figures)


def report(figures: dict[str, list[tuple[float, ...]]]) -> None:
    """Print p50 and p99 of each size, their ratios, and the median of the pairs' ratios."""
    heads = [f"{name} {size:,}" for size in SIZES for name in ("p50", "p99")] + ["p50 ratio", "p99 ratio", "of pairs"]
    print(f"\n{'milliseconds':28}" + "".join(f"{head:>15}" for head in heads))
    for name, pairs in figures.items():
        small, large = (sorted(column) for column in zip(*pairs, strict=True))
        half, most = len(pairs) // 2, int(len(pairs) * 0.99)
        numbers = [small[half], small[most], large[half], large[most]]
        numbers += [large[half] / small[half], large[most] / small[most], median(b / a for a, b in pairs)]
        print(f"{name:28}" + "".join(f"{number:15.2f}" for number in numbers))


def measure(folder: Path) -> None:
    """Run the comparison on a PostgreSQL of its own in this folder."""
    postgres = Postgres(folder / "postgres")
    postgres.start()
    try:
        asyncio.run(compare(postgres))
    finally:
        postgres.stop()


def main() -> None:
    """Run it in the folder named, or in one that is gone afterwards."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        measure(Path(temporary))
        Postgres(Path(temporary) / "postgres").erase()


if __name__ == "__main__":
    main()
