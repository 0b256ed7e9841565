"""Progress: every second once, 90 % complete a lesson once, whatever arrives in whatever order."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.courses import LessonCompleted
from kit import clock
from kit.group import GroupCommit
from kit.ids import new_id
from services.courses import progress
from tests.harness import Api
from tests.services.courses.world import add_course


@pytest.fixture
async def lesson(api: Api) -> dict[str, Any]:
    course = await add_course(api, 100)
    # What was told of the course itself is not these tests' question.
    await api.emitted()
    return {**course["lessons"][0], "course_id": course["id"]}


async def save(api: Api, lesson_id: str, member_id: UUID, watched: Any, position_s: Any = 0) -> httpx.Response:
    body = {"position_s": position_s, "watched": watched}
    return await api.client.put(f"/v1/lessons/{lesson_id}/progress", json=body, headers=api.member(member_id))


async def test_overlapping_intervals_count_once(api: Api, lesson: dict[str, Any]) -> None:
    member_id = new_id()
    assert (await save(api, lesson["id"], member_id, [[0, 30], [20, 40]], 40)).json() == {
        "percent": 40,
        "completed": False,
        "position_s": 40,
    }
    assert (await save(api, lesson["id"], member_id, [[10, 35]], 35)).json()["percent"] == 40
    assert (await save(api, lesson["id"], member_id, [[80, 85], [40, 41]], 85)).json()["percent"] == 46
    shown = await api.client.get(f"/v1/lessons/{lesson['id']}", headers=api.member(member_id))
    assert shown.json()["progress"] == {"percent": 46, "completed": False, "position_s": 85}
    assert await api.emitted() == []


async def test_what_lies_past_the_end_is_cut_off(api: Api, lesson: dict[str, Any]) -> None:
    answer = await save(api, lesson["id"], new_id(), [[50, 2**53], [200, 300], [7, 7]], 2**53)
    assert answer.json() == {"percent": 50, "completed": False, "position_s": 100}


async def test_ninety_percent_complete_a_lesson_once(api: Api, lesson: dict[str, Any]) -> None:
    member_id = new_id()
    assert (await save(api, lesson["id"], member_id, [[0, 89]])).json()["completed"] is False
    assert await api.emitted() == []
    assert (await save(api, lesson["id"], member_id, [[95, 96]])).json() == {
        "percent": 90,
        "completed": True,
        "position_s": 0,
    }
    [told] = await api.emitted()
    assert isinstance(told, LessonCompleted)
    assert (told.member_id, str(told.lesson_id), str(told.course_id)) == (member_id, lesson["id"], lesson["course_id"])
    again = await save(api, lesson["id"], member_id, [[0, 100]])
    assert (again.json()["percent"], again.json()["completed"]) == (100, True)
    assert await api.emitted() == []


async def test_two_devices_at_once_lose_no_second_and_complete_once(api: Api, lesson: dict[str, Any]) -> None:
    member_id = new_id()
    parts = [[[start, start + 5]] for start in range(0, 100, 5)]
    answers = await asyncio.gather(*(save(api, lesson["id"], member_id, part) for part in parts))
    assert {answer.status_code for answer in answers} == {200}
    # What is written together is answered together: each says at least its own, and the last ones all of it.
    shown = [(answer.json()["percent"], answer.json()["completed"]) for answer in answers]
    assert max(shown) == (100, True)
    assert all(percent % 5 == 0 and completed == (percent >= 90) for percent, completed in shown)
    assert len(await api.emitted()) == 1


async def test_everything_at_once_from_many_devices_completes_once(api: Api, lesson: dict[str, Any]) -> None:
    member_id = new_id()
    answers = await asyncio.gather(*(save(api, lesson["id"], member_id, [[0, 100]]) for _ in range(12)))
    expected = {"percent": 100, "completed": True, "position_s": 0}
    assert [answer.json() for answer in answers] == [expected] * 12
    assert len(await api.emitted()) == 1


async def test_several_processes_at_once_lose_no_second_and_complete_once(api: Api, lesson: dict[str, Any]) -> None:
    members, lesson_id = [new_id() for _ in range(3)], UUID(lesson["id"])
    # Each process has a writer of its own, and those meet in the database only.
    writers = [GroupCommit(api.rt.db, progress._write, name="progress") for _ in range(4)]
    reports = [
        (writer, progress._Report(lesson_id, member_id, f"{{[{start},{start + 5})}}", start, None, None))
        for start in range(0, 100, 5)
        for member_id in members
        for writer in (writers[(start // 5) % 4],)
    ]
    shown = await asyncio.gather(*(writer.submit(report) for writer, report in reports))
    assert max(shown).percent == 100
    assert all(answer.completed == (answer.percent >= 90) for answer in shown)
    assert await api.sql("SELECT DISTINCT watched::text FROM progress") == [("{[0,100)}",)]
    told = await api.emitted()
    assert sorted(event.member_id for event in told if isinstance(event, LessonCompleted)) == sorted(members)
    assert len(told) == 3


WRONG: list[tuple[Any, Any]] = [
    ([[5, 3]], 0),
    ([[-1, 3]], 0),
    ([[0, -3]], 0),
    ([[0]], 0),
    ([[0, 1, 2]], 0),
    ([[0, 1.5]], 0),
    ([["0", "1"]], 0),
    ([[True, False]], 0),
    ([[0, 2**53 + 1]], 0),
    ([[0, 2**70]], 0),
    ([None], 0),
    ("0-5", 0),
    (None, 0),
    ([[0, 1]], -1),
    ([[0, 1]], 1.5),
    ([[0, 1]], "1"),
    ([[0, 1]], None),
    ([[0, 1]] * 1001, 0),
]


async def test_a_wrong_report_is_refused_and_changes_nothing(api: Api, lesson: dict[str, Any]) -> None:
    for watched, position_s in WRONG:
        answer = await save(api, lesson["id"], new_id(), watched, position_s)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), (watched, position_s)
    assert await api.sql("SELECT count(*) FROM progress") == [(0,)]


async def test_only_a_member_who_may_watch_reports_progress(api: Api) -> None:
    lesson = (await add_course(api, access="member"))["lessons"][0]
    refused = await save(api, lesson["id"], new_id(), [[0, 100]])
    assert (refused.status_code, refused.json()["code"]) == (403, "membership_required")
    body = {"position_s": 0, "watched": []}
    assert (await api.client.put(f"/v1/lessons/{lesson['id']}/progress", json=body)).status_code == 401
    admin = await api.client.put(f"/v1/lessons/{lesson['id']}/progress", json=body, headers=api.admin())
    assert admin.status_code == 403
    assert (await save(api, str(new_id()), new_id(), [])).status_code == 404
    assert await api.sql("SELECT count(*) FROM progress") == [(0,)]


async def test_a_lesson_that_grows_stays_completed_and_one_that_shrinks_never_passes_100(
    api: Api, lesson: dict[str, Any]
) -> None:
    member_id = new_id()
    await save(api, lesson["id"], member_id, [[0, 100]])
    address = f"/v1/admin/lessons/{lesson['id']}"
    await api.client.patch(address, json={"duration_s": 400}, headers=api.admin())
    assert (await save(api, lesson["id"], member_id, [])).json() == {"percent": 100, "completed": True, "position_s": 0}
    late = new_id()
    assert (await save(api, lesson["id"], late, [[0, 100]])).json()["percent"] == 25
    await api.client.patch(address, json={"duration_s": 50}, headers=api.admin())
    assert (await save(api, lesson["id"], member_id, [])).json()["percent"] == 100
    assert (await save(api, lesson["id"], late, [])).json() == {"percent": 100, "completed": True, "position_s": 0}
    [item] = (await api.client.get("/v1/me/learning", headers=api.member(member_id))).json()["items"]
    assert (item["percent"], item["completed"]) == (100, True)
    assert len(await api.emitted()) == 2


async def test_learning_lists_the_latest_first_page_by_page(api: Api) -> None:
    course = await add_course(api, 100, 100, 100)
    member_id, lessons = new_id(), [lesson["id"] for lesson in course["lessons"]]
    for lesson_id in lessons:
        await save(api, lesson_id, member_id, [[0, 50]], 50)
        api.clock.advance(timedelta(minutes=1))
    await save(api, lessons[0], member_id, [[50, 100]], 100)
    await save(api, lessons[0], new_id(), [[0, 10]], 10)
    headers, found, cursor = api.member(member_id), [], None
    while True:
        page = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        answer = await api.client.get("/v1/me/learning", params=page, headers=headers)
        found += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert [(item["lesson_id"], item["percent"], item["completed"]) for item in found] == [
        (lessons[0], 100, True),
        (lessons[2], 50, False),
        (lessons[1], 50, False),
    ]
    assert found[0]["course_id"] == course["id"]
    assert found[0]["at"] == clock.now().strftime("%Y-%m-%dT%H:%M") + found[0]["at"][16:]
    assert answer.headers["cache-control"] == "private, no-store"
    assert (await api.client.get("/v1/me/learning")).status_code == 401


async def test_a_course_taken_down_keeps_what_was_learned(api: Api, lesson: dict[str, Any]) -> None:
    member_id = new_id()
    await save(api, lesson["id"], member_id, [[0, 100]])
    await api.client.delete(f"/v1/admin/courses/{lesson['course_id']}", headers=api.admin())
    [item] = (await api.client.get("/v1/me/learning", headers=api.member(member_id))).json()["items"]
    assert (item["percent"], item["completed"]) == (100, True)
    assert (await save(api, lesson["id"], member_id, [])).status_code == 404


REPORTS = st.lists(
    st.lists(st.tuples(st.integers(0, 130), st.integers(0, 130)).map(sorted), max_size=4),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reports=REPORTS)
async def test_progress_is_the_share_of_distinct_seconds(
    api: Api, lesson: dict[str, Any], reports: list[list[list[int]]]
) -> None:
    member_id, seen = new_id(), set[int]()
    for report in reports:
        answer = await save(api, lesson["id"], member_id, report)
        seen |= {second for start, end in report for second in range(start, min(end, 100))}
        assert answer.json()["percent"] == len(seen)
        assert answer.json()["completed"] == (len(seen) >= 90)
