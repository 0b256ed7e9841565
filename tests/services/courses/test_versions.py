"""Versions of courses: publishing a change undoes nothing that a member finished."""

import asyncio
from typing import Any
from uuid import UUID

from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.world import add_course, add_lesson


async def watch(api: Api, member_id: UUID, *lesson_ids: str) -> None:
    for lesson_id in lesson_ids:
        answer = await api.client.put(
            f"/v1/lessons/{lesson_id}/progress",
            json={"position_s": 100, "watched": [[0, 100]]},
            headers=api.member(member_id),
        )
        assert (answer.status_code, answer.json()["completed"]) == (200, True)


async def learned(api: Api, member_id: UUID) -> Any:
    answer = await api.client.get("/v1/me/learning/courses", headers=api.member(member_id))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-store")
    return answer.json()["items"]


async def test_a_new_lesson_shows_as_new_and_undoes_no_completion(api: Api) -> None:
    course = await add_course(api, 100, 100)
    first, second = (lesson["id"] for lesson in course["lessons"])
    done, half = new_id(), new_id()
    await watch(api, done, first, second)
    await watch(api, half, first)
    [before] = await learned(api, done)
    assert before["completed_at"].endswith("Z")
    assert before == {
        "course_id": course["id"],
        "course_title": "戚风蛋糕",
        "version": 3,
        "lessons": 2,
        "lessons_completed": 2,
        "percent": 100,
        "completed": True,
        "completed_at": before["completed_at"],
        "completed_version": 3,
        "new_lessons": [],
        "next_lesson_id": None,
        "at": before["at"],
    }
    new = (await add_lesson(api, course["id"], title="加餐", position=1))["id"]
    changed = {"version": 4, "lessons": 3, "new_lessons": [{"id": new, "title": "加餐"}], "next_lesson_id": new}
    assert await learned(api, done) == [before | changed]
    [unfinished] = await learned(api, half)
    assert (unfinished["percent"], unfinished["completed"], unfinished["lessons_completed"]) == (33, False, 1)
    assert (unfinished["new_lessons"], unfinished["next_lesson_id"]) == ([], new)
    assert (unfinished["completed_at"], unfinished["completed_version"]) == (None, None)

    await watch(api, done, new)
    [again] = await learned(api, done)
    assert (again["completed_version"], again["completed_at"], again["new_lessons"]) == (4, before["completed_at"], [])
    assert (await api.client.get("/v1/me/learning/courses")).status_code == 401
    assert (await api.client.get("/v1/me/learning/courses", headers=api.admin())).status_code == 403


async def test_lessons_that_go_and_others_that_come_undo_nothing_either(api: Api) -> None:
    course = await add_course(api, 100, 100)
    first, second = (lesson["id"] for lesson in course["lessons"])
    done, half = new_id(), new_id()
    await watch(api, done, first, second)
    await watch(api, half, first)
    await api.client.delete(f"/v1/admin/lessons/{second}", headers=api.admin())
    # Of what the course has now this member has finished everything.
    [item] = await learned(api, half)
    assert (item["percent"], item["completed"], item["lessons"], item["completed_version"]) == (100, True, 1, 4)
    await api.client.delete(f"/v1/admin/lessons/{first}", headers=api.admin())
    csv = "course,category,level,access,amount,description,lesson,lesson_description,duration_s\n"
    rows = "".join(f"戚风蛋糕,cake,beginner,free,,从分蛋到脱模,新 {number},,100\n" for number in range(2))
    imported = await api.client.post(
        "/v1/admin/courses/import", files={"file": ("c.csv", (csv + rows).encode())}, headers=api.admin()
    )
    assert imported.status_code == 201, imported.text
    for member_id in (done, half):
        [item] = await learned(api, member_id)
        assert (item["percent"], item["completed"], item["completed_version"]) == (100, True, 4)
        assert (item["lessons"], item["lessons_completed"], len(item["new_lessons"])) == (2, 0, 2)
    assert await api.sql("SELECT count(*), sum(lessons) FROM course_completion") == [(2, 2)]


async def test_who_finishes_while_lessons_are_added_has_finished_or_has_new_ones(api: Api) -> None:
    course = await add_course(api)
    lesson, members = course["lessons"][0]["id"], [new_id() for _ in range(6)]
    added = (add_lesson(api, course["id"], title=f"新 {number}") for number in range(3))
    await asyncio.gather(*(watch(api, member_id, lesson) for member_id in members), *added)
    for member_id in members:
        [item] = await learned(api, member_id)
        assert (item["lessons"], item["lessons_completed"]) == (4, 1)
        assert (item["percent"], len(item["new_lessons"])) == ((100, 3) if item["completed"] else (25, 0))
        assert item["next_lesson_id"] is not None


async def test_learned_courses_come_page_by_page_the_latest_first(api: Api) -> None:
    member_id = new_id()
    courses = [await add_course(api, title=f"课程 {number}") for number in range(3)]
    for course in courses:
        await watch(api, member_id, course["lessons"][0]["id"])
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        answer = (await api.client.get("/v1/me/learning/courses", params=page, headers=api.member(member_id))).json()
        found += [item["course_title"] for item in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert found == ["课程 2", "课程 1", "课程 0"]
