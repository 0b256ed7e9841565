"""Group commit: many rows in one commit, each with its own answer, none spoiled by another."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import fetch
from kit.errors import Conflict, DatabaseUnavailable, Problem
from kit.group import GroupCommit, QueueFull
from kit.ids import new_id
from tests.harness import Api

WRITE = text(
    "INSERT INTO note (id, words, weight) SELECT unnest(CAST(:ids AS uuid[])), unnest(CAST(:words AS text[])), 0"
)

INSERT = "INSERT INTO note (id, words, weight) SELECT unnest($1::uuid[]), unnest($2::text[]), 0"


class TooLong(Conflict):
    """This is too long."""


def group_of(api: Api, sizes: list[int], **options: Any) -> GroupCommit[str, str]:
    """A writer of notes that refuses `long`, and whose statement fails as a whole when `bad` is among its rows."""

    async def write(connection: AsyncConnection, rows: Sequence[str]) -> list[str | Problem]:
        sizes.append(len(rows))
        taken = [row for row in rows if row != "long"]
        words = [None if row == "bad" else row for row in taken]
        await connection.execute(WRITE, {"ids": [new_id() for _ in taken], "words": words})
        return [TooLong() if row == "long" else row.upper() for row in rows]

    return GroupCommit(api.rt.db, write, name="notes", **options)


async def test_rows_that_come_at_once_share_commits_and_each_gets_its_own_answer(api: Api) -> None:
    sizes: list[int] = []
    group = group_of(api, sizes)
    words = [f"n{number}" for number in range(200)]
    assert await asyncio.gather(*(group.submit(word) for word in words)) == [word.upper() for word in words]
    assert sum(sizes) == 200
    assert len(sizes) <= 3
    assert {row.words for row in await api.sql("SELECT words FROM note")} == set(words)


async def test_a_refusal_is_for_its_own_row_alone(api: Api) -> None:
    group = group_of(api, [])
    answers = await asyncio.gather(*(group.submit(word) for word in ("a", "long", "b")), return_exceptions=True)
    assert (answers[0], answers[2]) == ("A", "B")
    assert isinstance(answers[1], TooLong)
    assert len(await api.sql("SELECT id FROM note")) == 2


async def test_a_row_that_fails_spoils_no_other(api: Api) -> None:
    sizes: list[int] = []
    group = group_of(api, sizes)
    answers = await asyncio.gather(*(group.submit(word) for word in ("a", "bad", "b")), return_exceptions=True)
    assert (answers[0], answers[2]) == ("A", "B")
    assert isinstance(answers[1], IntegrityError)
    assert sorted(row.words for row in await api.sql("SELECT words FROM note")) == ["a", "b"]
    assert sizes == [3, 1, 1, 1]


async def test_a_write_that_commits_itself_is_one_statement_after_another_or_two_at_once(api: Api) -> None:
    under_way = most = 0

    async def write(connection: AsyncConnection, rows: Sequence[str]) -> list[str | Problem]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await fetch(connection, INSERT, [new_id() for _ in rows], [None if row == "bad" else row for row in rows])
            # What fails from here on changes nothing of what is written.
            assert (await fetch(connection, "SELECT count(*) FROM note"))[0][0]
        finally:
            under_way -= 1
        return list(rows)

    group: GroupCommit[str, str] = GroupCommit(
        api.rt.db, write, name="own", max_batch=3, at_once=2, commits_itself=True
    )

    async def come(number: int) -> str:
        for _ in range(number % 7):
            await asyncio.sleep(0)
        return await group.submit("bad" if number == 8 else f"n{number}")

    answers = await asyncio.gather(*(come(number) for number in range(30)), return_exceptions=True)
    assert most == 2
    assert [number for number, answer in enumerate(answers) if answer != f"n{number}"] == [8]
    assert isinstance(answers[8], asyncpg.NotNullViolationError)
    assert len(await api.sql("SELECT id FROM note")) == 29


async def test_a_driver_s_connection_that_was_lost_is_noticed(api: Api) -> None:
    lines: list[asyncpg.Connection] = []

    async def write(connection: AsyncConnection, rows: Sequence[str]) -> list[str | Problem]:
        if rows == ["end"]:
            await fetch(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
        await fetch(connection, INSERT, [new_id() for _ in rows], list(rows))
        lines.append((await connection.get_raw_connection()).driver_connection)
        return list(rows)

    group: GroupCommit[str, str] = GroupCommit(api.rt.db, write, name="lost", commits_itself=True)
    assert await group.submit("a") == "a"
    # Lost while nobody uses it: nobody notices.
    lines.pop().terminate()
    assert await group.submit("b") == "b"
    # Lost under way: it may be written or not, which only who asks again learns.
    with pytest.raises(DatabaseUnavailable):
        await group.submit("end")
    assert await group.submit("c") == "c"
    assert sorted(row.words for row in await api.sql("SELECT words FROM note")) == ["a", "b", "c"]


async def test_a_full_queue_answers_503_and_writes_nothing_of_it(api: Api) -> None:
    group = group_of(api, [], max_queue=10)
    answers = await asyncio.gather(*(group.submit(f"n{number}") for number in range(30)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert len(refused) == 20
    assert len(await api.sql("SELECT id FROM note")) == 10


async def test_a_database_that_is_away_answers_503_to_all_who_wait(api: Api) -> None:
    async def write(connection: AsyncConnection, _: Sequence[str]) -> list[str | Problem]:
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        raise AssertionError("the connection is gone")

    group: GroupCommit[str, str] = GroupCommit(api.rt.db, write, name="gone")
    answers = await asyncio.gather(*(group.submit(word) for word in "abc"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3


@pytest.mark.parametrize(("timeouts", "answered"), [(2, True), (3, False)])
async def test_a_connection_that_a_crowd_delayed_is_asked_for_again(
    api: Api, monkeypatch: pytest.MonkeyPatch, timeouts: int, *, answered: bool
) -> None:
    writers = api.rt.db.writers
    delayed = iter(range(timeouts))

    class Delayed:
        """The writers' engine, whose first connections take too long."""

        async def connect(self) -> AsyncConnection:
            if next(delayed, None) is not None:
                raise TimeoutError
            return await writers.connect()

        async def dispose(self) -> None:
            await writers.dispose()

    monkeypatch.setattr(api.rt.db, "writers", Delayed())
    group = group_of(api, [])
    answers = await asyncio.gather(*(group.submit(word) for word in "ab"), return_exceptions=True)
    assert (answers == ["A", "B"]) is answered
    # Who is second comes in the next batch, which has tries of its own.
    assert [isinstance(answer, DatabaseUnavailable) for answer in answers] == [not answered] * 2


async def test_a_caller_who_leaves_does_not_stop_the_writer(api: Api) -> None:
    group = group_of(api, [])
    leaving = asyncio.create_task(group.submit("left"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await group.submit("stays") == "STAYS"
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_refusal_is_gone_with_whoever_heard_it(api: Api) -> None:
    group = group_of(api, [])

    async def refused() -> weakref.ref[Problem]:
        try:
            await group.submit("long")
        except TooLong as told:
            return weakref.ref(told)
        raise AssertionError

    gc.disable()
    try:
        heard = await refused()
        # The writer has told it, and lets go of it as it ends.
        await asyncio.sleep(0)
        assert heard() is None
    finally:
        gc.enable()
