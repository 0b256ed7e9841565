"""The course list and search at 10,000 lessons, beside a request that does nothing: alone and with 16 clients at once.

Run: `python -m bench.courses.catalogue [CLIENTS]`. The catalogue is imported as an admin would, 1,000 courses of ten
lessons whose texts are put together from the demo's; each request is another one.
"""

import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.load import call
from kit.app import create_app
from kit.due import run_due
from kit.migrations import upgrade
from onebox.stores import Postgres
from services.courses.app import service
from services.courses.catalogue import Row, import_rows
from services.courses.demo import CATALOGUE
from services.courses.imports import read_rows

COURSES, LESSONS = 1000, 10
SECONDS = 5.0
WORDS = "戚风 蛋糕卷 蛋白霜 可颂 欧包 酵种 奶盖 裹油 出膜 油纸 低粉 蛋黄酥 六寸 回缩 整形 手冲 从分 Z sourdough 戚风回缩怎么办 全麦吐司 蛋糕 一".split()  # noqa: SIM905
FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"category": "cake"},
    {"level": "beginner"},
    {"access": "member", "category": "bread"},
    {"sort": "title"},
    {"sort": "rating"},
)


def rows() -> list[Row]:
    """A catalogue of random texts, the same every time."""
    demo = read_rows(CATALOGUE.read_bytes())
    chance = random.Random(7)  # noqa: S311 - not for keys
    made: list[Row] = []
    for number in range(COURSES):
        course = chance.choice(demo).model_copy(update={"course": f"{chance.choice(demo).course} {number}"})
        for step in range(LESSONS):
            lesson, words = chance.choice(demo), chance.choice(demo)
            told = {"lesson": f"{lesson.lesson} {step}", "lesson_description": words.lesson_description}
            made.append(course.model_copy(update=told))
    return made


def lists() -> Iterator[str]:
    """Addresses of lists."""
    for chosen in itertools.cycle(FILTERS):
        yield "/v1/courses?" + urlencode(chosen)


def searches() -> Iterator[str]:
    """Addresses of searches."""
    for word, chosen in zip(itertools.cycle(WORDS), itertools.cycle(FILTERS[:4] + FILTERS[:1]), strict=False):
        yield "/v1/courses?" + urlencode(chosen | {"q": word})


async def measure(app: Any, name: str, addresses: Iterator[str], clients: int) -> None:
    """Ask for some seconds and say how long it took."""
    took: list[float] = []
    until = time.perf_counter() + SECONDS

    async def client() -> None:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            if await call(app, "GET", next(addresses)) != 200:  # noqa: PLR2004 - found
                raise RuntimeError(name)
            took.append((time.perf_counter() - begun) * 1000)

    used = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    used = (time.process_time() - used) / len(took) * 1000
    p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
    print(
        f"{name:8} {clients:3} at once: {len(took) / SECONDS:6.0f}/s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, CPU {used:.2f} ms"
    )


async def run(postgres: Postgres, folder: Path, clients: int) -> None:
    """Import, index, measure."""
    await upgrade("courses", postgres.url("catalogue"))
    settings = service.settings(
        env="production",
        database_url=postgres.url("catalogue"),
        background=False,
        log_level="error",
        data=folder,
        limits="strict",
    )
    app = create_app(service, settings)
    async with app.router.lifespan_context(app):
        runtime = app.state.runtime
        begun = time.perf_counter()
        async with runtime.db.session() as session, session.begin():
            await import_rows(session, rows())
        imported = time.perf_counter()
        await run_due(runtime, runtime.due)
        print(
            f"{COURSES * LESSONS} lessons imported in {imported - begun:.1f} s, indexed in {time.perf_counter() - imported:.1f} s"
        )
        postgres.query("ANALYZE", database="catalogue")
        # What any request costs here and now, to hold the others against.
        for name, addresses in (("healthz", itertools.repeat("/healthz")), ("list", lists()), ("search", searches())):
            for address in itertools.islice(addresses, 30):
                await call(app, "GET", address)
            for number in (1, clients):
                await measure(app, name, addresses, number)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        store = Postgres(Path(temporary) / "postgres")
        store.start()
        try:
            store.ensure_database("catalogue")
            asyncio.run(run(store, Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 16))
        finally:
            store.stop()
            store.erase()
