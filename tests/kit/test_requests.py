"""What every endpoint has from kit: commits before answers, clear problems, strict bodies, pages, callers."""

import json

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey
from sqlalchemy.exc import DBAPIError

from kit import clock, revocations
from kit.consume import Letter
from kit.ids import new_id
from tests.harness import Api, sign
from tests.harness import signing_key as the_key
from tests.kit.conftest import NoteWritten


async def test_a_failed_commit_is_a_500_and_writes_nothing(api: Api) -> None:
    await api.sql("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    answer = await api.client.post("/v1/notes/uncommittable")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["content-type"] == "application/problem+json"
    assert await api.sql("SELECT * FROM late") == []


async def test_a_failed_commit_under_a_key_is_a_500_and_is_not_stored(api: Api) -> None:
    await api.sql("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    headers = {"Idempotency-Key": "k"}
    assert (await api.client.post("/v1/notes/uncommittable", headers=headers)).status_code == 500
    assert await api.sql("SELECT * FROM idempotency_key") == []


async def test_a_crash_shows_no_detail(api: Api) -> None:
    answer = await api.client.get("/v1/notes/crash")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "body",
    [
        '{"words": "a", "ratio": NaN}',
        '{"words": "a", "ratio": Infinity}',
        '{"words": "\\ud800"}',
        '{"words": "a\\u0000b"}',
        '{"words": "a", "weight": true}',
        '{"words": "a", "weight": "12"}',
        '{"words": "a", "weight": 1.5}',
        '{"words": "a", "weight": 9007199254740993}',
        '{"words": "a", "weight": 1e400}',
        '{"words": "a", "weight": 123456789012345678901234567890}',
        '{"words": "a", "stray": 1}',
        '{"words": "   "}',
        '{"words": ',
        "[]",
        '"x"',
        "",
        "\xff",
    ],
)
async def test_a_bad_body_is_a_422_with_its_places(api: Api, body: str) -> None:
    for key in ({}, {"Idempotency-Key": "k"}):
        answer = await api.client.post(
            "/v1/notes", content=body.encode("latin-1"), headers={"Content-Type": "application/json"} | key
        )
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"] == "validation_failed"
        assert all(set(error) == {"loc", "msg", "code"} for error in problem["errors"])
    assert await api.sql("SELECT * FROM note") == []


async def test_too_large_a_body_is_a_413(api: Api) -> None:
    answer = await api.client.post("/v1/notes", json={"words": "x" * (1 << 20)})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_an_answer_speaks_the_callers_language(api: Api) -> None:
    for accept, sentence in [
        ("", "这条笔记不被接受。"),
        ("en", "This note is refused."),
        ("fr, en;q=0.5, zh;q=0.2", "This note is refused."),
        ("zh-CN,en;q=0.9", "这条笔记不被接受。"),
    ]:
        answer = await api.client.post("/v1/notes", json={"words": "refused"}, headers={"Accept-Language": accept})
        assert answer.json()["detail"] == sentence


async def test_text_is_stored_normalised(api: Api) -> None:
    answer = await api.client.post("/v1/notes", json={"words": " cafe\u0301 "})
    assert answer.json()["words"] == "café"


async def test_pages_follow_one_another_without_gap_or_repeat(api: Api) -> None:
    for number in range(25):
        await api.client.post("/v1/notes", json={"words": str(number), "weight": number % 3})
    seen, cursor = [], None
    while True:
        params = {"limit": "4"} | ({"cursor": cursor} if cursor else {})
        answer = (await api.client.get("/v1/notes", params=params)).json()
        seen += [item["words"] for item in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 25
    assert [int(words) % 3 for words in seen] == sorted((int(words) % 3 for words in seen), reverse=True)


@pytest.mark.parametrize(
    "cursor", ["x", "W10", "bnVsbA", "WzEsMl0", "WyJhIiwiYiJd", "\u0000", "WzFlNDAwLCJhIl0", "=" * 50]
)
async def test_a_made_up_cursor_is_a_422(api: Api, cursor: str) -> None:
    answer = await api.client.get("/v1/notes", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
    assert [error["loc"] for error in answer.json()["errors"]] == [["query", "cursor"]]


async def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    missing = await api.client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert missing.headers["cache-control"] == "private, no-store"
    wrong = await api.client.delete("/v1/notes")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    for path in ("/v1/notes/", "/v1/notes/mine/"):
        slash = await api.client.get(path, headers=api.member() | {"Host": "elsewhere.example"})
        assert (slash.status_code, slash.json()["code"], slash.headers.get("location")) == (404, "not_found", None)


async def test_a_member_is_not_an_admin_and_an_admin_needs_the_scope(api: Api) -> None:
    assert (await api.client.get("/v1/notes/mine")).json()["code"] == "not_authenticated"
    assert (await api.client.get("/v1/notes/admin", headers=api.member())).json()["code"] == "forbidden"
    assert (await api.client.get("/v1/notes/admin", headers=api.admin("plans:read"))).status_code == 403
    assert (await api.client.get("/v1/notes/admin", headers=api.admin("plans:write"))).status_code == 200
    assert (await api.client.get("/v1/notes/mine", headers=api.admin())).status_code == 403


def _forged() -> dict[str, str]:
    claims = {"sub": str(new_id()), "role": "member", "scope": "", "sid": str(new_id())}
    whole = {
        "iss": "heika",
        "aud": "heika",
        "iat": int(clock.timestamp()),
        "exp": int(clock.timestamp()) + 900,
        "jti": "x",
    } | claims
    stranger = OKPKey.generate_key("Ed25519", parameters={"kid": "test"})
    public = json.dumps(the_key().as_dict(private=False))
    good = sign(claims)
    head, _, signature = good.split(".")
    return {
        "another key under our kid": sign(claims, stranger),
        "unknown kid": sign(claims, OKPKey.generate_key("Ed25519", parameters={"kid": "other"})),
        "HS256 with the public key": jwt.encode(
            {"alg": "HS256", "kid": "test"}, whole, OctKey.import_key(public), algorithms=["HS256"]
        ),
        "none": f"eyJhbGciOiJub25lIn0.{good.split('.')[1]}.",
        "expired": sign(claims | {"exp": int(clock.timestamp()) - 1}),
        "wrong audience": sign(claims | {"aud": "other"}),
        "wrong issuer": sign(claims | {"iss": "other"}),
        "no subject": sign({"role": "member"}),
        "strange role": sign(claims | {"role": "root"}),
        "another body": f"{head}.eyJzdWIiOiJ4In0.{signature}",
        "not a token": "x",
        "empty": "",
        "huge": "a" * 9000,
    }


async def test_a_forged_token_is_not_authenticated(api: Api) -> None:
    for kind, token in _forged().items():
        answer = await api.client.get("/v1/notes/mine", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), kind
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_session_and_a_frozen_member_are_refused(api: Api) -> None:
    session_id, member_id = new_id(), new_id()
    headers = api.member(member_id, sid=str(session_id))
    assert (await api.client.get("/v1/notes/mine", headers=headers)).status_code == 200
    await api.rt.redis.sadd(revocations.FROZEN_KEY, str(member_id))
    await revocations.revocations.poll(api.rt.redis)
    assert (await api.client.get("/v1/notes/mine", headers=headers)).json()["code"] == "account_frozen"
    await api.rt.redis.delete(revocations.FROZEN_KEY)
    await api.rt.redis.zadd(revocations.REVOKED_KEY, {f"session:{session_id}": clock.now().timestamp() + 900})
    await revocations.revocations.poll(api.rt.redis)
    assert (await api.client.get("/v1/notes/mine", headers=headers)).json()["code"] == "not_authenticated"


async def test_a_database_without_room_is_503_and_goes_on_when_there_is_some(api: Api) -> None:
    await api.sql("CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END'")
    await api.sql("CREATE TRIGGER no_room BEFORE INSERT ON note EXECUTE FUNCTION no_room()")
    key = {"Idempotency-Key": "no room"}
    for headers in ({}, key):
        answer = await api.client.post("/v1/notes", json={"words": "x"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    event = NoteWritten(words="waits")
    letter = Letter(event.id, event.wire_type, event.model_dump_json(), None, None)
    with pytest.raises(DBAPIError):
        await api.rt.consumer.deliver(letter)
    # It is no failure of the event's: it stays where it is, and no attempt is counted.
    assert await api.sql("SELECT FROM event_failure") == await api.sql("SELECT FROM inbox") == []
    await api.sql("DROP TRIGGER no_room ON note")
    await api.rt.consumer.deliver(letter)
    assert (await api.client.post("/v1/notes", json={"words": "x"}, headers=key)).status_code == 201
    assert await api.sql("SELECT words FROM note ORDER BY words") == [("heard waits",), ("x",)]


async def test_a_deadlock_is_503_to_be_tried_again_and_leaves_nothing(api: Api) -> None:
    for headers in ({}, {"Idempotency-Key": "deadlocked"}, {"Idempotency-Key": "deadlocked"}):
        answer = await api.client.post("/v1/notes/collide", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "collision")
        assert answer.headers["retry-after"] == "1"
        assert "idempotency-replayed" not in answer.headers
    assert await api.sql("SELECT count(*) FROM note") == [(0,)]
