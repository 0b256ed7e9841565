"""Keyset pages: every order is walked whole, and a deep page does not read what comes before it."""

from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlmodel import col

from kit.page import PageParams, keyset
from tests.harness import Api
from tests.kit.conftest import Note

WEIGHT, NOTE_ID = col(Note.weight), col(Note.id)


@pytest.mark.parametrize(
    "order",
    [
        (WEIGHT.desc(), NOTE_ID.desc()),
        (WEIGHT.asc(), NOTE_ID.asc()),
        (WEIGHT, NOTE_ID),
        (WEIGHT.desc(), NOTE_ID.asc()),
        (WEIGHT.asc(), NOTE_ID.desc()),
        (NOTE_ID.desc(),),
        (NOTE_ID,),
    ],
)
async def test_pages_of_any_order_walk_every_row_once(api: Api, order: tuple[Any, ...]) -> None:
    await api.sql(
        "INSERT INTO note (id, words, weight) SELECT gen_random_uuid(), '', n % 5 FROM generate_series(1, 23) n"
    )
    seen: list[Note] = []
    params = PageParams(limit=4)
    async with api.rt.db.session() as session:
        while True:
            items, params.cursor = await keyset(session, select(Note), params, order)
            seen += items
            if params.cursor is None:
                break
            assert len(items) == 4
        whole = (await session.execute(select(Note).order_by(*order))).scalars().all()
    assert seen == list(whole)
    assert len(seen) == 23


@pytest.mark.parametrize("order", [(WEIGHT.desc(), NOTE_ID.desc()), (WEIGHT.asc(), NOTE_ID.desc())])
async def test_a_deep_page_reads_nothing_before_it(api: Api, order: tuple[Any, ...]) -> None:
    await api.sql(
        "INSERT INTO note (id, words, weight) SELECT gen_random_uuid(), '', n FROM generate_series(1, 5000) n"
    )
    await api.sql(f"CREATE INDEX deep ON note ({', '.join(str(item).replace('note.', '') for item in order)})")
    asked: list[tuple[str, Any]] = []
    event.listen(
        api.rt.db.engine.sync_engine,
        "before_cursor_execute",
        lambda _, __, statement, values, *___: asked.append((statement, values)),
    )
    async with api.rt.db.session() as session:
        _, cursor = await keyset(session, select(Note), PageParams(limit=4000), order)
        await keyset(session, select(Note), PageParams(limit=5, cursor=cursor), order)
        connection = await session.connection()
        statement, values = asked[-1]
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        rows = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}", values)
        plan = "\n".join(row[0] for row in rows)
    assert "Index Cond" in plan
    assert "deep" in plan
    removed = [int(line.rpartition(":")[2]) for line in plan.splitlines() if "Rows Removed" in line]
    assert sum(removed) <= 1, plan
