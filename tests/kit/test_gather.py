"""Group reads: many questions in one statement, each answered by what was there when it came."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ARRAY, Uuid, any_, bindparam, column, select, table

from kit.db import Database
from kit.errors import DatabaseUnavailable
from kit.gather import GroupRead, TooManyReaders
from kit.ids import new_id
from tests.harness import Api

NOTES = table("note", column("id", Uuid), column("words"))
WORDS = select(NOTES.c.id, NOTES.c.words).where(NOTES.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))))


class Words(GroupRead[UUID, str | None]):
    """The words of notes, and how many were asked for at once."""

    def __init__(self, db: Database, **options: int) -> None:
        self.sizes: list[int] = []
        super().__init__(db, WORDS, self._collect, name="words", **options)

    def _collect(self, keys: Sequence[UUID], rows: Sequence[Any]) -> dict[UUID, str | None]:
        self.sizes.append(len(keys))
        return dict.fromkeys(keys) | dict(rows)


async def a_note(api: Api, words: str) -> UUID:
    note_id = new_id()
    await api.sql("INSERT INTO note (id, words, weight) VALUES (:id, :words, 0)", id=note_id, words=words)
    return note_id


async def backends(api: Api) -> list[int]:
    rows = await api.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%FROM note%ANY%' "
        "AND pid <> pg_backend_pid()"
    )
    return [row.pid for row in rows]


async def test_questions_that_come_at_once_are_one_statement(api: Api) -> None:
    reader = Words(api.rt.db)
    ids = [await a_note(api, f"n{number}") for number in range(20)]
    nobody = new_id()
    asked = [*ids, *ids, nobody]
    found = await asyncio.gather(*(reader.find(note_id) for note_id in asked))
    assert found == [f"n{number}" for number in range(20)] * 2 + [None]
    assert reader.sizes == [21]
    await reader.close()


async def test_a_batch_has_its_size_and_the_rest_comes_next(api: Api) -> None:
    reader = Words(api.rt.db, max_batch=8)
    ids = [await a_note(api, f"n{number}") for number in range(20)]
    assert await asyncio.gather(*map(reader.find, ids)) == [f"n{number}" for number in range(20)]
    assert reader.sizes == [8, 8, 4]
    await reader.close()


async def test_what_was_committed_before_the_question_is_in_the_answer(api: Api) -> None:
    reader = Words(api.rt.db)
    note_id = await a_note(api, "0")
    asking = asyncio.create_task(reader.find(note_id))
    await asyncio.sleep(0)
    for number in range(1, 30):
        await api.sql("UPDATE note SET words = :words WHERE id = :id", words=str(number), id=note_id)
        assert await reader.find(note_id) == str(number)
    await asking
    await reader.close()


async def test_who_leaves_takes_no_answer_from_another(api: Api) -> None:
    reader = Words(api.rt.db)
    note_id = await a_note(api, "here")
    leaving, staying = (asyncio.create_task(reader.find(note_id)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "here"
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await reader.close()


async def test_a_connection_that_was_lost_meanwhile_is_opened_again(api: Api) -> None:
    reader = Words(api.rt.db)
    note_id = await a_note(api, "here")
    assert await reader.find(note_id) == "here"
    [pid] = await backends(api)
    await api.sql("SELECT pg_terminate_backend(:pid)", pid=pid)
    assert list(await asyncio.gather(reader.find(note_id), reader.find(new_id()))) == ["here", None]
    await reader.close()


async def test_a_database_that_is_away_answers_503_to_all_who_wait(api: Api) -> None:
    away = api.rt.db.engine.url.update_query_dict({"host": "/nowhere"})
    reader = Words(Database(away.render_as_string(hide_password=False), name="away"))
    answers = await asyncio.gather(*(reader.find(new_id()) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3
    reader.db.pulse.stopped = True
    with pytest.raises(DatabaseUnavailable):
        await reader.find(new_id())
    await reader.close()
    await reader.db.close()


async def test_a_mistake_of_ours_is_told_to_those_who_asked_and_the_next_are_served(api: Api) -> None:
    await api.sql("ALTER TABLE note RENAME words TO other")
    reader = Words(api.rt.db)
    with pytest.raises(Exception, match="words"):
        await reader.find(new_id())
    await api.sql("ALTER TABLE note RENAME other TO words")
    assert await reader.find(new_id()) is None
    await reader.close()


async def test_too_many_who_wait_are_told_to_come_again(api: Api) -> None:
    reader = Words(api.rt.db, max_queue=10)
    answers = await asyncio.gather(*(reader.find(new_id()) for _ in range(30)), return_exceptions=True)
    assert sum(isinstance(answer, TooManyReaders) for answer in answers) == 20
    assert answers.count(None) == 10
    await reader.close()


async def test_a_statement_that_takes_more_than_keys_is_refused_at_the_start(api: Api) -> None:
    with pytest.raises(ValueError, match="words takes"):
        GroupRead(api.rt.db, WORDS.where(NOTES.c.words == "x"), lambda *_: {}, name="words")
