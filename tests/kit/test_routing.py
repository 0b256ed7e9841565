"""Routes are found by a table as the framework would find them; a shortcut answers as the long way does."""

from collections.abc import AsyncIterator
from importlib import import_module
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match

from gateway.routes import SERVICES
from kit.app import Service, create_app, shortcut
from kit.db import SessionDep
from kit.ids import new_id
from kit.revocations import revocations
from kit.routing import Routes
from tests.harness import Api
from tests.kit.conftest import BROKEN_NOTE, NO_NOTE

MEMBER = new_id()


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "gateway"])
def test_every_route_is_found_as_the_framework_finds_it(name: str) -> None:
    service: Service = import_module(f"services.{name}.app").service
    settings = service.settings(env="sandbox", database_url="postgresql+asyncpg://nobody@127.0.0.1/none")
    app = create_app(service, settings)
    table = Routes(app.routes)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) > 20
    for route in routes:
        path = route.path_format.format(**dict.fromkeys(route.param_convertors, "x"))
        for method in route.methods or ():
            scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
            first = next(item for item in app.routes if item.matches(scope)[0] is Match.FULL)
            match = table.find(method, path)
            assert match is not None, path
            assert match[0].route is first is route, path
            assert match[1] == dict.fromkeys(route.param_convertors, "x")
    assert table.find("GET", "/v1/nowhere") is None


async def touch(api: Api, note_id: Any, **options: Any) -> httpx.Response:
    return await api.client.post(f"/v1/notes/{note_id}/touches", **options)


async def test_a_shortcut_is_taken_unless_there_is_a_key_or_a_body_or_no_id(api: Api) -> None:
    note_id, member_id = new_id(), new_id()
    member = api.member(member_id)
    answer = {"id": str(note_id), "by": str(member_id), "service": "probe"}
    short = await touch(api, note_id, headers=member)
    assert (short.status_code, short.json()) == (201, answer | {"way": "short"})
    assert short.headers.keys() == {"content-type", "content-length", "x-request-id", "x-heika-route"}
    for options in ({"headers": member, "json": {}}, {"headers": member | {"Idempotency-Key": "k"}}):
        long = await touch(api, note_id, **options)
        assert (long.status_code, long.json()) == (201, answer | {"way": "long"})
    assert (await touch(api, note_id, headers=member | {"Idempotency-Key": "k"})).headers["idempotency-replayed"]
    assert (await touch(api, str(note_id).upper(), headers=member)).json() == answer | {"way": "long"}
    assert (await touch(api, note_id, headers=member, content=b"x" * (1 << 21))).status_code == 413


async def test_a_shortcut_refuses_as_the_long_way_does(api: Api) -> None:
    frozen, gone = new_id(), new_id()
    member = api.member()
    revocations.frozen, revocations.gone = frozenset({str(frozen)}), frozenset({f"member:{gone}"})
    for note_id, headers, status, code in [
        (new_id(), {}, 401, "not_authenticated"),
        (new_id(), {"Authorization": "Bearer x"}, 401, "not_authenticated"),
        (new_id(), api.admin(), 403, "forbidden"),
        (new_id(), api.member(frozen), 403, "account_frozen"),
        (new_id(), api.member(gone), 401, "not_authenticated"),
        (new_id(), api.member(scope="read-only"), 403, "read_only_session"),
        (NO_NOTE, member, 409, "note_refused"),
        ("no-id", member, 422, "validation_failed"),
        (BROKEN_NOTE, member, 500, "internal"),
    ]:
        for language in ("zh-CN", "en"):
            named = headers | {"Accept-Language": language, "X-Request-Id": "mine"}
            short, long = await touch(api, note_id, headers=named), await touch(api, note_id, headers=named, json={})
            assert (short.status_code, short.json()["code"]) == (status, code)
            assert (short.status_code, short.json(), short.headers) == (long.status_code, long.json(), long.headers)
            assert short.headers["x-request-id"] == "mine"
            assert "secret" not in short.text


async def mark(api: Api, body: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    sent = {"Content-Type": "application/json"} | api.member(MEMBER) | headers
    return await api.client.put(f"/v1/notes/{NO_NOTE}/marks", content=body, headers=sent)


async def test_a_body_takes_the_shortcut_if_it_is_exactly_right(api: Api) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        yield b'{"words": '
        yield b'"e\\u0301", "weight": 3}'

    said = {"id": str(NO_NOTE), "by": str(MEMBER), "body": {"words": "\u00e9", "weight": 3, "ratio": 0}}
    right = b'{"words": "e\\u0301", "weight": 3}'
    sent: list[tuple[bytes | AsyncIterator[bytes], dict[str, str], str]] = [
        (right, {}, "short"),
        (right, {"Idempotency-Key": "k"}, "short"),
        (right, {"Content-Type": "application/json; charset=utf-8"}, "long"),
        (in_pieces(), {}, "long"),
        (in_pieces(), {"Content-Length": str(len(right))}, "short"),
    ]
    for body, headers, way in sent:
        answer = await mark(api, body, **headers)
        assert (answer.status_code, answer.json()) == (200, said | {"way": way}), headers
    for wrong, status, code in [
        (b"", 422, "validation_failed"),
        (b"{", 422, "validation_failed"),
        (b"[]", 422, "validation_failed"),
        (b'{"words": "x", "ratio": NaN}', 422, "validation_failed"),
        (b'{"words": "\\ud800"}', 422, "validation_failed"),
        (b'{"words": "x", "weight": "3"}', 422, "validation_failed"),
        (b'{"words": "x", "more": 3}', 422, "validation_failed"),
        (b'{"words": "' + b"x" * (1 << 20) + b'"}', 413, "payload_too_large"),
    ]:
        short = await mark(api, wrong)
        long = await mark(api, wrong, **{"Content-Type": "application/json; charset=utf-8"})
        assert (short.status_code, short.json()["code"]) == (status, code), wrong[:40]
        assert short.json() | {"request_id": ""} == long.json() | {"request_id": ""}
    assert (await mark(api, right, Authorization="")).status_code == 401


async def test_what_is_not_found_is_refused_by_the_framework(api: Api) -> None:
    path = f"/v1/notes/{new_id()}/touches"
    for answer, status, allowed in [
        (await api.client.get(path), 405, "POST"),
        (await api.client.get(path + "/"), 404, None),
        (await api.client.get("/v1/nothing"), 404, None),
    ]:
        assert (answer.status_code, answer.headers.get("allow")) == (status, allowed)


def test_an_endpoint_that_needs_more_than_the_request_is_no_shortcut() -> None:
    async def with_session(session: SessionDep) -> Response:
        return Response(str(session))

    async def with_query(page: int) -> Response:
        return Response(str(page))

    def blocking(request: Request) -> str:
        return request.method

    async def with_thread(method: Annotated[str, Depends(blocking)]) -> Response:
        return Response(method)

    async def with_words(words: str) -> Response:
        return Response(words)

    for endpoint in (with_session, with_query, with_thread, with_words):
        router = APIRouter()
        router.get("/{words}")(shortcut(endpoint))
        with pytest.raises(TypeError):
            Routes(router.routes)
