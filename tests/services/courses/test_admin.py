"""Courses and lessons as admins edit them: versions, prices, places."""

import asyncio
from typing import Any
from uuid import UUID

import httpx

from contracts.courses import CourseChanged
from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.world import COURSE, add_course, add_lesson


async def test_a_course_is_written_read_changed_and_taken_down(api: Api) -> None:
    admin = api.admin()
    created = await api.client.post("/v1/admin/courses", json=COURSE | {"published": False}, headers=admin)
    course = created.json()
    address = f"/v1/admin/courses/{course['id']}"
    assert (created.status_code, created.headers["etag"], created.headers["location"]) == (201, '"1"', address)
    assert (await api.client.get(f"/v1/courses/{course['id']}")).status_code == 404
    assert (await api.client.get("/v1/admin/courses", headers=admin)).json()["items"] == [course]
    changed = await api.client.patch(
        address, json={"published": True, "title": "新名"}, headers=admin | {"If-Match": '"1"'}
    )
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert changed.json() == course | {"published": True, "title": "新名", "version": 2}
    assert (await api.client.get(address, headers=admin)).json() == changed.json()
    assert (await api.client.get(f"/v1/courses/{course['id']}")).status_code == 200
    assert (await api.client.delete(address, headers=admin)).status_code == 204
    assert (await api.client.get(address, headers=admin)).status_code == 404
    assert (await api.client.delete(address, headers=admin)).status_code == 404
    assert (await api.client.get(f"/v1/courses/{course['id']}")).status_code == 404
    told = await api.emitted()
    assert [(type(event), event.course_id, event.version, event.title, event.published) for event in told] == [  # type: ignore[attr-defined]
        (CourseChanged, UUID(course["id"]), 1, "戚风蛋糕", False),
        (CourseChanged, UUID(course["id"]), 2, "新名", True),
        (CourseChanged, UUID(course["id"]), 3, "新名", False),
    ]


async def test_a_stale_version_is_refused_and_changes_nothing(api: Api) -> None:
    admin = api.admin()
    course = await add_course(api)
    address, lesson = f"/v1/admin/courses/{course['id']}", f"/v1/admin/lessons/{course['lessons'][0]['id']}"
    for place in (address, lesson):
        tag = (await api.client.get(place, headers=admin)).headers["etag"]
        body = {"title": "甲"}
        assert (await api.client.patch(place, json=body, headers=admin | {"If-Match": tag})).status_code == 200
        for stale in (tag, '"0"', "nonsense", '"é"'):
            headers = httpx.Headers(admin | {"If-Match": stale}, encoding="utf-8")
            refused = await api.client.patch(place, json={"title": "乙"}, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (412, "stale_version")
            assert (await api.client.delete(place, headers=headers)).status_code == 412
        assert (await api.client.get(place, headers=admin)).json()["title"] == "甲"


async def test_of_two_changes_on_one_version_one_is_taken(api: Api) -> None:
    course = await add_course(api)
    headers = api.admin() | {"If-Match": f'"{course["version"]}"'}
    address = f"/v1/admin/courses/{course['id']}"
    answers = await asyncio.gather(
        *(api.client.patch(address, json={"title": f"名 {n}"}, headers=headers) for n in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


async def test_a_price_belongs_to_paid_courses_alone(api: Api) -> None:
    admin = api.admin()
    for fields in ({"access": "paid"}, {"amount": 100}, {"access": "member", "amount": 1}):
        refused = await api.client.post("/v1/admin/courses", json=COURSE | fields, headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (422, "price_mismatch")
        named = {"loc": ["body"], "msg": refused.json()["detail"], "code": "price_mismatch"}
        assert refused.json()["errors"] == [named]
    course = await add_course(api, access="paid", amount=9900)
    address = f"/v1/admin/courses/{course['id']}"
    for patch in ({"amount": None}, {"access": "free", "amount": 5}):
        assert (await api.client.patch(address, json=patch, headers=admin)).status_code == 422
    freed = (await api.client.patch(address, json={"access": "free"}, headers=admin)).json()
    assert (freed["access"], freed["amount"]) == ("free", None)
    assert (await api.client.patch(address, json={"access": "paid"}, headers=admin)).status_code == 422
    priced = (await api.client.patch(address, json={"access": "paid", "amount": 1}, headers=admin)).json()
    assert (priced["access"], priced["amount"]) == ("paid", 1)


WRONG: list[dict[str, Any]] = [
    {"title": ""},
    {"title": " \t "},
    {"title": None},
    {"title": "x" * 201},
    {"title": "a\x00b"},
    {"description": "x" * 4001},
    {"category": "pie"},
    {"level": None},
    {"access": "paid", "amount": 1.5},
    {"access": "paid", "amount": "100"},
    {"access": "paid", "amount": True},
    {"access": "paid", "amount": 0},
    {"access": "paid", "amount": 2**63},
    {"currency": "USD"},
    {"published": "yes"},
    {"published": 1},
    {"unknown": 1},
    {"version": 3},
]


async def test_wrong_fields_are_refused_on_create_and_change(api: Api) -> None:
    admin = api.admin()
    course = await add_course(api)
    for fields in WRONG:
        created = await api.client.post("/v1/admin/courses", json=COURSE | fields, headers=admin)
        changed = await api.client.patch(f"/v1/admin/courses/{course['id']}", json=fields, headers=admin)
        assert (created.status_code, changed.status_code) == (422, 422), fields
    emptied = {"title": None, "level": None, "amount": None}
    answer = await api.client.patch(f"/v1/admin/courses/{course['id']}", json=emptied, headers=admin)
    assert sorted((error["loc"], error["msg"]) for error in answer.json()["errors"]) == [
        (["body", name], "不能为 null；要保持原样请不要写") for name in ("level", "title")
    ]
    assert (await api.client.get(f"/v1/admin/courses/{course['id']}", headers=admin)).json() == course
    for body in (b"", b"[]", b"null", b'{"title": NaN}', b'{"title": "\\ud800"}', b"\xff"):
        answer = await api.client.post(
            "/v1/admin/courses", content=body, headers=admin | {"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422), body


async def order(api: Api, course_id: str) -> list[tuple[int, str]]:
    shown = (await api.client.get(f"/v1/courses/{course_id}")).json()["lessons"]
    return [(item["position"], item["title"]) for item in shown]


async def test_lessons_keep_their_places_without_gaps(api: Api) -> None:
    admin = api.admin()
    course = await add_course(api, 60, 60)
    added = await add_lesson(api, course["id"], title="先看", position=1)
    late = await add_lesson(api, course["id"], title="后看", position=99)
    assert await order(api, course["id"]) == [(1, "先看"), (2, "第 1 步"), (3, "第 2 步"), (4, "后看")]
    moved = await api.client.patch(f"/v1/admin/lessons/{added['id']}", json={"position": 3}, headers=admin)
    assert (moved.json()["position"], moved.headers["etag"]) == (3, '"2"')
    assert await order(api, course["id"]) == [(1, "第 1 步"), (2, "第 2 步"), (3, "先看"), (4, "后看")]
    gone = await api.client.delete(f"/v1/admin/lessons/{course['lessons'][1]['id']}", headers=admin)
    assert (gone.status_code, gone.content) == (204, b"")
    assert await order(api, course["id"]) == [(1, "第 1 步"), (2, "先看"), (3, "后看")]
    assert (await api.client.get(f"/v1/lessons/{course['lessons'][1]['id']}")).status_code == 404
    assert (await api.client.get(f"/v1/admin/lessons/{late['id']}", headers=admin)).json()["position"] == 3


async def test_lessons_added_at_once_all_find_a_place(api: Api) -> None:
    course = await add_course(api)
    await asyncio.gather(*(add_lesson(api, course["id"], title=f"步骤 {n}", position=1) for n in range(6)))
    assert [place for place, _ in await order(api, course["id"])] == [1, 2, 3, 4, 5, 6, 7]
    assert (await api.client.get(f"/v1/courses/{course['id']}")).json()["version"] == course["version"] + 6


async def test_wrong_lessons_are_refused(api: Api) -> None:
    admin = api.admin()
    course = await add_course(api)
    lesson = course["lessons"][0]["id"]
    for fields in (
        {"title": ""}, {"duration_s": 0}, {"duration_s": 86_401}, {"duration_s": 1.5}, {"duration_s": None},
        {"duration_s": 2**64}, {"position": 0}, {"position": "1"}, {"extra": 1}, {"course_id": str(new_id())},
    ):  # fmt: skip
        body = {"title": "t", "duration_s": 60} | fields
        created = await api.client.post(f"/v1/admin/courses/{course['id']}/lessons", json=body, headers=admin)
        changed = await api.client.patch(f"/v1/admin/lessons/{lesson}", json=fields, headers=admin)
        assert (created.status_code, changed.status_code) == (422, 422), fields
    missing = await api.client.post(
        f"/v1/admin/courses/{new_id()}/lessons", json={"title": "t", "duration_s": 60}, headers=admin
    )
    assert (missing.status_code, missing.json()["code"]) == (404, "course_not_found")
    assert (await api.client.get(f"/v1/courses/{course['id']}")).json()["version"] == course["version"]


CALLS = (
    ("GET", "/v1/admin/courses"),
    ("POST", "/v1/admin/courses"),
    ("GET", "/v1/admin/courses/{id}"),
    ("PATCH", "/v1/admin/courses/{id}"),
    ("DELETE", "/v1/admin/courses/{id}"),
    ("POST", "/v1/admin/courses/{id}/lessons"),
    ("GET", "/v1/admin/lessons/{id}"),
    ("PATCH", "/v1/admin/lessons/{id}"),
    ("DELETE", "/v1/admin/lessons/{id}"),
)


async def test_every_admin_call_decides_who_may_make_it(api: Api) -> None:
    for method, path in CALLS:
        needed, other = ("courses:read", "courses:write") if method == "GET" else ("courses:write", "courses:read")
        answers = [
            (await api.client.request(method, path.format(id=new_id()), headers=headers)).status_code
            for headers in ({}, api.member(), api.admin(other), api.admin(needed))
        ]
        assert answers[:3] == [401, 403, 403], (method, path)
        assert answers[3] in (200, 404, 422)
