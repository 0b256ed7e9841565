"""Idempotency-Key: one effect, one stored answer, whatever the retries do."""

import asyncio
from hashlib import sha256
from typing import Any, cast

import pytest
from fastapi import Request

from kit.ids import new_id
from kit.kept_answers import Place
from tests.harness import Api

BODY = {"words": "one"}


async def test_a_retry_with_the_same_key_replays_the_first_answer(api: Api) -> None:
    headers = api.member() | {"Idempotency-Key": "k1"}
    first = await api.client.post("/v1/notes", json=BODY, headers=headers)
    second = await api.client.post("/v1/notes", json=BODY, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(await api.emitted()) == 1
    assert len(await api.sql("SELECT id FROM note")) == 1


async def test_what_lies_in_the_table_says_nothing_without_the_key(api: Api) -> None:
    headers = api.member() | {"Idempotency-Key": "6f1d7c0e-7a52-4b0e-9d7e-2c1f4a5b8e90"}
    first = await api.client.post("/v1/notes", json={"words": "whsec_secret"}, headers=headers)
    ((kept, fingerprint),) = await api.sql("SELECT body, fingerprint FROM idempotency_key")
    assert b"secret" not in kept
    assert len(kept) == len(first.content) + 12 + 16
    # Nor can a request be found by trying: a login's form holds a password.
    assert fingerprint != sha256(b"\0" + first.request.content).digest()
    again = await api.client.post("/v1/notes", json={"words": "whsec_secret"}, headers=headers)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


async def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    headers = api.member() | {"Idempotency-Key": "k1"}
    await api.client.post("/v1/notes", json=BODY, headers=headers)
    other = await api.client.post("/v1/notes", json={"words": "two"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(await api.sql("SELECT id FROM note")) == 1


async def test_the_same_values_written_otherwise_are_the_same_body(api: Api) -> None:
    member_id = new_id()
    headers = api.member(member_id) | {"Idempotency-Key": "k1", "Content-Type": "application/json; charset=utf-8"}

    async def send(content: bytes, kind: str = headers["Content-Type"]) -> tuple[int, Any]:
        answer = await api.client.post("/v1/notes", content=content, headers=headers | {"Content-Type": kind})
        return answer.status_code, answer.json().get("code") or answer.headers.get("idempotency-replayed")

    sent = b'{"words": "\\u4e00", "weight": 2}'
    assert await send(sent) == (201, None)
    rewritten = b' {"weight":2,\n"words":"\xe4\xb8\x80"}'
    for kind in (headers["Content-Type"], "APPLICATION/JSON", "application/vnd.note+json"):
        assert await send(rewritten, kind) == (201, "true")
    reused = (422, "idempotency_key_reused")
    others = ("2.0", '"2"', "true", "3", "[2, 1]", '{"b": 2, "a": 1}', "2}", "2, 1", "[" * 2000, "[" * 300 + "]" * 300)
    for other in others:
        assert await send(sent.replace(b"2}", other.encode() + b"}")) == reused
    assert await send(b"") == await send(b'{"words": "\\u4e00"}') == reused
    # What is not said to be JSON is what it is, byte by byte.
    assert await send(rewritten, "text/plain") == reused
    # Answers that an earlier release kept go by the bytes as well.
    told = iter([{"type": "http.request", "body": sent}])
    request = Request(
        {"type": "http", "query_string": b"", "headers": [(b"content-type", b"application/json")]},
        cast("Any", lambda: asyncio.sleep(0, next(told))),
    )
    meant, as_sent = await Place(api.rt.service, str(member_id), "POST", "/v1/notes", "k1").fingerprints(request)
    assert await api.sql(
        "UPDATE idempotency_key SET fingerprint = :b WHERE fingerprint = :a RETURNING 1", a=meant, b=as_sent
    )
    assert await send(sent) == (201, "true")
    assert await send(rewritten) == reused
    assert len(await api.sql("SELECT id FROM note")) == 1


async def test_two_callers_may_use_the_same_key(api: Api) -> None:
    for _ in range(2):
        answer = await api.client.post("/v1/notes", json=BODY, headers=api.member() | {"Idempotency-Key": "k"})
        assert answer.status_code == 201
        assert "idempotency-replayed" not in answer.headers
    assert len(await api.sql("SELECT id FROM note")) == 2


async def test_twenty_at_once_with_one_key_write_once(api: Api) -> None:
    headers = api.member() | {"Idempotency-Key": "race"}
    answers = await asyncio.gather(*(api.client.post("/v1/notes", json=BODY, headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_in_flight"}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(await api.sql("SELECT id FROM note")) == 1


async def test_a_business_refusal_is_replayed_and_leaves_nothing(api: Api) -> None:
    headers = api.member() | {"Idempotency-Key": "no"}
    first = await api.client.post("/v1/notes", json={"words": "refused"}, headers=headers)
    second = await api.client.post("/v1/notes", json={"words": "refused"}, headers=headers)
    assert (first.status_code, first.json()["code"]) == (409, "note_refused")
    assert second.headers["idempotency-replayed"] == "true"
    assert await api.sql("SELECT id FROM note") == []
    assert await api.emitted() == []


async def test_a_malformed_request_does_not_use_up_its_key(api: Api) -> None:
    headers = api.member() | {"Idempotency-Key": "fix"}
    assert (await api.client.post("/v1/notes", json={"words": ""}, headers=headers)).status_code == 422
    assert (await api.client.post("/v1/notes", json=BODY, headers=headers)).status_code == 201


async def test_a_call_that_moves_money_needs_a_key(api: Api) -> None:
    answer = await api.client.post("/v1/notes/paid", json=BODY, headers=api.member())
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_required")
    stranger = await api.client.post("/v1/notes/paid", json=BODY)
    assert (stranger.status_code, stranger.json()["code"]) == (401, "not_authenticated")
    for content, key in ((b"{", {}), (b"{}", {"Idempotency-Key": "k" * 256})):
        headers = {"Content-Type": "application/json"} | key
        assert (await api.client.post("/v1/notes/paid", content=content, headers=headers)).status_code == 401
    other_role = await api.client.post("/v1/notes/paid", json=BODY, headers=api.admin())
    assert (other_role.status_code, other_role.json()["code"]) == (403, "forbidden")
    assert await api.sql("SELECT id FROM note") == []


@pytest.mark.parametrize("keys", [[""], ["k" * 256], ["one", "two"]])
async def test_a_request_has_one_key_of_1_to_255_characters(api: Api, keys: list[str]) -> None:
    headers = [*api.member().items(), *(("Idempotency-Key", key) for key in keys)]
    answer = await api.client.post("/v1/notes", json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")
