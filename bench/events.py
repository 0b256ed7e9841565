"""Event latency in one process: from the emitting commit's answer to the end of the handler's own commit.

Run: `python -m bench.events [events] [history]`. The floor, measured in the same run on the same stores, is what no outbox
can save: one commit, one XADD with its XREADGROUP, one commit more. Then Redis forgets everything, as when it restarts,
with so many events in the history, all of them handled: how long until the first new one is handled.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from kit import commands
from kit.app import Runtime, Service, create_app
from kit.db import Database, new_registry
from kit.events import Event, emit
from kit.settings import ServiceSettings
from onebox.stores import Postgres, Valkey

handled: dict[UUID, asyncio.Future[float]] = {}


class Model(SQLModel, registry=new_registry()):
    """No tables but kit's."""


class Ping(Event, type="bench.ping.sent"):
    """Measured."""


async def on_ping(_: AsyncSession, event: Ping) -> None:
    """Say when the transaction that handles it is about to commit."""
    if not handled[event.id].done():
        handled[event.id].set_result(time.perf_counter())


SERVICE = Service(
    name="bench",
    title="Bench",
    settings=ServiceSettings,
    metadata=Model.metadata,
    routers=[],
    handlers={Ping: [on_ping]},
    listeners=frozenset({"bench"}),
)


def report(name: str, seconds: list[float]) -> float:
    """Print a line of figures in milliseconds; the median."""
    cuts = statistics.quantiles(seconds, n=100)
    print(f"{name:34} p50 {cuts[49] * 1000:7.2f} ms   p99 {cuts[98] * 1000:7.2f} ms   n {len(seconds)}")
    return cuts[49]


async def times(count: int, once: Callable[[], Awaitable[float]]) -> list[float]:
    """The measurements of so many runs, one after the other."""
    return [await once() for _ in range(count)]


async def measure(runtime: Runtime, count: int) -> None:
    """Floor and product, in turn."""

    async def commit() -> None:
        async with runtime.db.session() as session, session.begin():
            await session.execute(text("INSERT INTO inbox (event_id) VALUES (gen_random_uuid())"))

    async def floor() -> float:
        started = time.perf_counter()
        await commit()
        await runtime.redis.xadd("bench:floor", {"x": "1"})
        await runtime.redis.xreadgroup("g", "c", {"bench:floor": ">"}, count=1)
        await commit()
        return time.perf_counter() - started

    async def event() -> float:
        ping = Ping()
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        handled[ping.id] = answer
        started = time.perf_counter()
        async with runtime.db.session() as session, session.begin():
            await emit(session, ping)
        return await answer - started

    await runtime.redis.xgroup_create("bench:floor", "g", id="0", mkstream=True)
    await times(20, event)
    floors, events = await times(count, floor), await times(count, event)
    ratio = report("emitted to handled", events) / report("floor: two commits, one stream", floors)
    print(f"ratio of the medians               {ratio:.1f}")


async def forget(runtime: Runtime, history: int) -> None:
    """The first news after Redis has lost its memory, behind nothing of a history that is told again."""
    kept = "INSERT INTO outbox (event_id, type, at, body, published_at) SELECT id, 'bench.ping.sent', now(), "
    kept += "jsonb_build_object('id', id, 'at', now()), now() FROM (SELECT event_id AS id FROM inbox "
    kept += "WHERE event_id NOT IN (SELECT event_id FROM outbox) LIMIT :history) AS known"
    async with runtime.db.session() as session, session.begin():
        await session.execute(
            text("INSERT INTO inbox (event_id) SELECT gen_random_uuid() FROM generate_series(1, :history)"),
            {"history": history},
        )
        await session.execute(text(kept), {"history": history})
    waits: list[float] = []
    took = cpu = 0.0
    for _ in range(5):
        await runtime.redis.flushall()
        ping = Ping()
        handled[ping.id] = asyncio.get_running_loop().create_future()
        started, cpu = time.perf_counter(), time.process_time()
        async with runtime.db.session() as session, session.begin():
            await emit(session, ping)
        waits.append(await handled[ping.id] - started)
        while await runtime.consumer.lag() or (await commands.lag(runtime))["unpublished"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"{history} events told again: news after {statistics.median(waits) * 1000:.0f} ms, all after {took:.1f} s",
        end="",
    )
    print(f", {cpu / history * 1e6:.0f} µs of CPU each")


async def main(count: int, history: int) -> None:
    """Start stores and one service with its loops, and measure."""
    with tempfile.TemporaryDirectory(prefix="heika-bench-") as folder:
        postgres, valkey = Postgres(Path(folder) / "postgres"), Valkey(Path(folder) / "valkey")
        postgres.start()
        valkey.start()
        try:
            postgres.ensure_database("bench")
            settings = ServiceSettings(
                database_url=postgres.url("bench"), redis_url=valkey.url, env="sandbox", log_level="error"
            )
            database = Database(settings.database_url, name="bench")
            async with database.engine.begin() as connection:
                await connection.run_sync(Model.metadata.create_all)
            await database.close()
            app = create_app(SERVICE, settings)
            async with app.router.lifespan_context(app):
                await measure(app.state.runtime, count)
                await forget(app.state.runtime, history)
        finally:
            valkey.stop()
            postgres.stop()


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*given, *(500, 20_000)[len(given) :]))
