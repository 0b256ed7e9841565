"""What stands around courses: who teaches them, the series they belong to, the files of their lessons."""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from contracts.members import MemberErased, MemberMerged
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.test_courses import titles
from tests.services.courses.world import add_course, add_lesson, membership, segment


async def admin(api: Api, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    return await api.client.request(method, f"/v1/admin/{path}", json=body, headers=api.admin() | headers)


async def only_editors(api: Api, method: str, path: str, **request: Any) -> None:
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("plans:write"), 403)):
        answer = await api.client.request(method, f"/v1/admin/{path}", headers=headers, **request)
        assert answer.status_code == status, (method, path, answer.text)


async def test_a_verified_instructor_is_shown_with_what_they_teach(api: Api) -> None:
    profile = {"name": "林小满", "title": "戚风十年", "bio": "烘焙师", "avatar_url": "https://cdn.example.com/a.jpg"}
    made = await admin(api, "POST", "instructors", profile)
    teacher = made.json()["id"]
    edited = profile | {"id": teacher, "verified": False, "verified_at": None, "courses": 0, "member_id": None}
    assert (made.status_code, made.json(), made.headers["etag"]) == (201, edited | {"version": 1}, '"1"')
    course = await add_course(api, instructor_id=teacher)
    await add_course(api, title="别人的课")
    await add_course(api, title="还没上架", instructor_id=teacher, published=False)
    verified = await admin(api, "PATCH", f"instructors/{teacher}", {"verified": True}, **{"If-Match": '"1"'})
    assert verified.json()["verified_at"].endswith("Z")
    stale = await admin(api, "PATCH", f"instructors/{teacher}", {"verified": False}, **{"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    shown = profile | {"id": teacher, "verified": True, "courses": 1}
    assert (await api.client.get(f"/v1/instructors/{teacher}")).json() == shown
    assert (await api.client.get("/v1/instructors")).json() == {"items": [shown], "next_cursor": None}
    beside = {name: shown[name] for name in ("id", "name", "title", "avatar_url", "verified")}
    assert (await api.client.get(f"/v1/courses/{course['id']}")).json()["instructor"] == beside
    assert await titles(api, instructor_id=teacher) == ["戚风蛋糕"]
    assert await titles(api, instructor_id=teacher, q="戚风") == ["戚风蛋糕"]

    teaches = await admin(api, "DELETE", f"instructors/{teacher}")
    assert (teaches.status_code, teaches.json()["code"]) == (409, "instructor_teaches")
    for item in (await admin(api, "GET", "courses?limit=100")).json()["items"]:
        freed = await admin(api, "PATCH", f"courses/{item['id']}", {"instructor_id": None})
        assert freed.json()["instructor"] is None
    assert (await admin(api, "DELETE", f"instructors/{teacher}")).status_code == 204
    assert (await api.client.get(f"/v1/instructors/{teacher}")).json()["code"] == "instructor_not_found"
    for unknown in (teacher, str(new_id())):
        refused = await admin(api, "PATCH", f"courses/{course['id']}", {"instructor_id": unknown})
        assert (refused.status_code, refused.json()["code"]) == (422, "instructor_unknown")
    for wrong in ({"name": ""}, {"name": "x", "avatar_url": "javascript:alert(1)"}, {"name": "x", "verified": 1}, {}):
        assert (await admin(api, "POST", "instructors", wrong)).status_code == 422
    assert [act.action for act in await api.acted() if act.action.startswith("instructor")] == [
        "instructor.created",
        "instructor.changed",
        "instructor.deleted",
    ]
    await only_editors(api, "POST", "instructors", json=profile)
    await only_editors(api, "GET", "instructors")


async def test_a_profile_follows_its_member_and_forgets_them(api: Api) -> None:
    old, kept = new_id(), new_id()
    body = {"name": "林小满", "bio": "烘焙师", "member_id": str(old), "verified": True}
    teacher = (await admin(api, "POST", "instructors", body)).json()["id"]
    await api.handle(MemberMerged(kept_id=kept, merged_id=old))
    assert UUID((await admin(api, "GET", f"instructors/{teacher}")).json()["member_id"]) == kept
    await api.handle(MemberErased(member_id=kept))
    left = (await admin(api, "GET", f"instructors/{teacher}")).json()
    assert (left["name"], left["bio"], left["verified"], left["member_id"]) == ("已注销用户", "", False, None)


async def test_a_series_shows_its_courses_in_its_order(api: Api) -> None:
    first, second, hidden = [await add_course(api, title=title) for title in ("甲", "乙", "丙")]
    await admin(api, "PATCH", f"courses/{hidden['id']}", {"published": False})
    order = [second["id"], hidden["id"], first["id"]]
    made = await admin(api, "POST", "series", {"title": "从零开始", "course_ids": order})
    series = made.json()["id"]
    assert (made.status_code, made.json()["course_ids"], made.json()["published"]) == (201, order, False)
    assert (await api.client.get(f"/v1/series/{series}")).json()["code"] == "series_not_found"
    changed = await admin(api, "PATCH", f"series/{series}", {"published": True}, **{"If-Match": '"1"'})
    assert (changed.json()["course_ids"], changed.headers["etag"]) == (order, '"2"')
    shown = (await api.client.get(f"/v1/series/{series}")).json()
    assert [course["title"] for course in shown["courses"]] == ["乙", "甲"]
    assert shown["courses"][0]["lessons"] == second["lessons"]
    [item] = (await api.client.get("/v1/series")).json()["items"]
    assert (item["title"], item["courses"]) == ("从零开始", 2)
    place = {"id": series, "title": "从零开始", "position": 2}
    assert (await api.client.get(f"/v1/courses/{first['id']}")).json()["series"] == [place]

    await admin(api, "PATCH", f"series/{series}", {"course_ids": [first["id"]]})
    assert [c["title"] for c in (await api.client.get(f"/v1/series/{series}")).json()["courses"]] == ["甲"]
    unknown = await admin(api, "PATCH", f"series/{series}", {"course_ids": [first["id"], str(new_id())]})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "series_course_unknown")
    twice = await admin(api, "PATCH", f"series/{series}", {"course_ids": [first["id"]] * 2})
    assert twice.status_code == 422
    assert (await admin(api, "GET", f"series/{series}")).json()["course_ids"] == [first["id"]]
    assert (await admin(api, "GET", "series")).json()["items"][0]["id"] == series
    assert (await admin(api, "DELETE", f"series/{series}")).status_code == 204
    assert (await api.client.get("/v1/series")).json()["items"] == []
    assert (await api.client.get(f"/v1/courses/{first['id']}")).json()["series"] == []
    await only_editors(api, "POST", "series", json={"title": "x"})
    await only_editors(api, "DELETE", f"series/{series}")


async def attach(api: Api, lesson_id: str, name: str = "配方 表.pdf", content: bytes = b"%PDF 0123456789") -> Any:
    return await api.client.post(
        "/v1/admin/attachments",
        data={"lesson_id": lesson_id},
        files={"file": (name, content, "text/html")},
        headers=api.admin(),
    )


async def test_an_attachment_is_read_by_whoever_may_watch(api: Api) -> None:
    course = await add_course(api, access="member")
    lesson, other = course["lessons"][0]["id"], (await add_lesson(api, course["id"]))["id"]
    made = await attach(api, lesson)
    assert made.status_code == 201, made.text
    known = {"id": made.json()["id"], "name": "配方 表.pdf", "media_type": "application/pdf", "size": 15}
    assert {name: made.json()[name] for name in known} == known
    member_id, now = new_id(), clock.now()
    refused = await api.client.get(f"/v1/lessons/{lesson}", headers=api.member(member_id))
    assert (refused.status_code, refused.json()["code"]) == (403, "membership_required")
    await api.handle(membership(member_id, segment(now, 1 / 24)))
    shown = (await api.client.get(f"/v1/lessons/{lesson}", headers=api.member(member_id))).json()
    [link] = shown["attachments"]
    assert {name: link[name] for name in known} == known
    assert link["expires_at"] == shown["playback"]["expires_at"] == f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}Z"
    assert (await api.client.get(f"/v1/lessons/{other}", headers=api.member(member_id))).json()["attachments"] == []
    file = await api.client.get(link["url"])
    assert (file.content, file.headers["content-type"]) == (b"%PDF 0123456789", "application/pdf")
    assert file.headers["content-disposition"].startswith("attachment;")
    assert file.headers["x-content-type-options"] == "nosniff"
    part = await api.client.get(link["url"], headers={"Range": "bytes=5-7"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"012", "bytes 5-7/15")
    address = urlsplit(link["url"])
    for wrong in (
        f"{address.path}?expires=9999999999&signature=0",
        f"/v1/attachments/{new_id()}/media?{address.query}",
    ):
        forged = await api.client.get(wrong)
        assert (forged.status_code, forged.json()["code"]) == (403, "playback_link_invalid")

    assert (await admin(api, "DELETE", f"attachments/{link['id']}")).status_code == 204
    assert (await api.client.get(link["url"])).json()["code"] == "media_missing"
    assert (await admin(api, "DELETE", f"attachments/{link['id']}")).json()["code"] == "attachment_not_found"
    stored = api.rt.settings.media / f"attachment-{link['id']}"
    await api.run_due()
    assert stored.exists()
    api.clock.advance(timedelta(hours=2))
    assert await api.run_due() == 1
    assert (await api.run_due(), stored.exists()) == (0, False)
    assert (await api.client.get(link["url"])).status_code == 403
    await only_editors(api, "DELETE", f"attachments/{link['id']}")
    await only_editors(api, "POST", "attachments", data={"lesson_id": lesson}, files={"file": ("a", b"b")})


async def test_an_unusable_attachment_leaves_nothing_behind(api: Api) -> None:
    lesson = (await add_course(api))["lessons"][0]["id"]
    for name, content, status in (("a.pdf", b"", 422), ("x" * 121, b"1", 422), ("/", b"1", 422)):
        assert (await attach(api, lesson, name, content)).status_code == status, name
    large = await attach(api, lesson, content=b"0" * (20 * 1024 * 1024 + 1))
    assert (large.status_code, large.json()["code"]) == (413, "attachment_too_large")
    assert (await attach(api, str(new_id()))).json()["code"] == "lesson_not_found"
    assert await api.sql("SELECT count(*) FROM attachment") == [(0,)]
    odd = (await attach(api, lesson, "../../etc/passwd", b"1")).json()
    assert (odd["name"], odd["media_type"]) == ("....etcpasswd", "application/octet-stream")
    answers = await asyncio.gather(*(attach(api, lesson, f"{number}.txt") for number in range(22)))
    assert sorted(answer.status_code for answer in answers) == [201] * 19 + [409] * 3
    assert await api.sql("SELECT count(*) FROM attachment") == [(20,)]
