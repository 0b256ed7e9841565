"""Idempotency-Key in a group: many keyed requests share a commit, and each has one effect and one answer in it."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from kit import group as groups
from kit.ids import new_id
from kit.kept_answers import find, store
from tests.harness import Api

NO_NOTE = UUID(int=0)


async def stamp(api: Api, headers: dict[str, str], note_id: UUID | None = None, query: str = "") -> httpx.Response:
    return await api.client.post(f"/v1/notes/{note_id or new_id()}/stamps{query}", headers=headers)


def keyed(api: Api, key: str = "k") -> dict[str, str]:
    return api.member() | {"Idempotency-Key": key}


async def test_a_crowd_with_keys_shares_commits_and_is_answered_the_same_again(api: Api) -> None:
    crowd = [(new_id(), keyed(api)) for _ in range(60)] + [(new_id(), api.member()) for _ in range(20)]
    first = await asyncio.gather(*(stamp(api, headers, note_id) for note_id, headers in crowd))
    assert {answer.status_code for answer in first} == {201}
    assert {answer.json()["way"] for answer in first} == {"short"}
    rows = await api.sql("SELECT id::text, weight FROM note")
    assert {row.id for row in rows} == {answer.json()["id"] for answer in first}
    # Written with how many others: the first alone, hardly anybody else.
    assert sum(row.weight for row in rows) / len(rows) > 20
    again = await asyncio.gather(*(stamp(api, headers, note_id) for note_id, headers in crowd[:60]))
    for answer, before in zip(again, first, strict=False):
        assert (answer.status_code, answer.content) == (201, before.content)
        assert (answer.headers["idempotency-replayed"], answer.headers["x-made"]) == ("true", "None")
    assert not any("idempotency-replayed" in answer.headers for answer in first)
    assert len(await api.sql("SELECT id FROM note")) == 80


async def test_one_key_at_once_has_one_effect_and_another_request_is_refused(api: Api) -> None:
    note_id, headers = new_id(), keyed(api)
    answers = await asyncio.gather(*(stamp(api, headers, note_id) for _ in range(20)))
    codes = [answer.json().get("code") for answer in answers]
    assert (codes.count(None), codes.count("idempotency_in_flight")) == (1, 19)
    other = await stamp(api, headers, note_id, "?other=1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    # With a body the request goes the long way, to the same answers.
    body = await api.client.post(f"/v1/notes/{note_id}/stamps", headers=headers, json={"more": 1})
    assert (body.status_code, body.json()["code"]) == (422, "idempotency_key_reused")
    for key in ("", "k" * 256):
        assert (await stamp(api, keyed(api, key))).json()["code"] == "idempotency_key_invalid"
    assert (await stamp(api, {"Idempotency-Key": "k"}, note_id)).status_code == 401
    assert len(await api.sql("SELECT id FROM note")) == 1


async def test_a_refusal_is_kept_and_spoils_no_other(api: Api) -> None:
    headers, others = keyed(api), [keyed(api) for _ in range(5)]
    crowd = (stamp(api, headers, NO_NOTE), *(stamp(api, other) for other in others))
    first, *rest = await asyncio.gather(*crowd)
    again = await stamp(api, headers, NO_NOTE)
    assert (first.status_code, first.json()["code"]) == (409, "note_refused")
    assert (again.status_code, again.content) == (409, first.content)
    assert (again.headers["idempotency-replayed"], again.headers["content-type"]) == (
        "true",
        "application/problem+json",
    )
    assert [answer.status_code for answer in rest] == [201] * 5
    assert len(await api.sql("SELECT id FROM note")) == 5


async def test_a_database_that_dies_between_effect_and_answer_keeps_neither(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(connection: Any, answers: Any) -> int:
        await store(connection, answers)
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        raise AssertionError("the connection is gone")

    crowd = [(new_id(), keyed(api)) for _ in range(3)]
    monkeypatch.setattr(groups, "store", dies)
    answers = await asyncio.gather(*(stamp(api, headers, note_id) for note_id, headers in crowd))
    assert [answer.json()["code"] for answer in answers] == ["database_unavailable"] * 3
    assert (await api.sql("SELECT id FROM note"), await api.sql("SELECT scope FROM idempotency_key")) == ([], [])
    monkeypatch.undo()
    answers = await asyncio.gather(*(stamp(api, headers, note_id) for note_id, headers in crowd))
    assert [answer.status_code for answer in answers] == [201] * 3
    assert not any("idempotency-replayed" in answer.headers for answer in answers)


async def test_another_process_that_was_quicker_has_given_the_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    note_id, headers = new_id(), keyed(api)
    first = await stamp(api, headers, note_id)
    looked: list[int] = []

    async def before_the_other_committed(connection: Any, asked: Any) -> dict[bytes, Any]:
        looked.append(len(asked))
        return {} if len(looked) == 1 else await find(connection, asked)

    monkeypatch.setattr(groups, "find", before_the_other_committed)
    again, other = await asyncio.gather(stamp(api, headers, note_id), stamp(api, keyed(api)))
    # The first to come is a group of one, which nobody tries again but the caller.
    if again.status_code == 409:
        assert again.json()["code"] == "idempotency_in_flight"
        again = await stamp(api, headers, note_id)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert other.status_code == 201
    assert len(await api.sql("SELECT id FROM note")) == 2


async def test_who_goes_away_leaves_the_key_taken_until_it_is_answered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: Any, answers: Any) -> int:
        writing.set()
        await go_on.wait()
        return await store(connection, answers)

    monkeypatch.setattr(groups, "store", slow)
    note_id, headers = new_id(), keyed(api)
    leaving = asyncio.create_task(stamp(api, headers, note_id))
    await writing.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert (await stamp(api, headers, note_id)).json()["code"] == "idempotency_in_flight"
    go_on.set()
    # Whoever comes next is in the group after it.
    assert (await stamp(api, keyed(api))).status_code == 201
    again = await stamp(api, headers, note_id)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert len(await api.sql("SELECT id FROM note")) == 2
