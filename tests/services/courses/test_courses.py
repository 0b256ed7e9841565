"""The catalogue as members see it: filters, search, pages, ratings."""

import asyncio
from typing import Any

from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.world import add_course


async def titles(api: Api, **params: Any) -> list[str]:
    answer = await api.client.get("/v1/courses", params=params)
    assert answer.status_code == 200, answer.text
    return [item["title"] for item in answer.json()["items"]]


async def test_a_course_is_shown_as_promised(api: Api) -> None:
    course = await add_course(api, 120, access="paid", amount=9900)
    answer = await api.client.get(f"/v1/courses/{course['id']}")
    shown = answer.json()
    assert shown.pop("created_at").endswith("Z")
    assert shown == {
        "id": course["id"],
        "title": "戚风蛋糕",
        "description": "从分蛋到脱模",
        "category": "cake",
        "level": "beginner",
        "access": "paid",
        "amount": 9900,
        "currency": "CNY",
        "instructor": None,
        "rating": {"mean": None, "count": 0, "satisfaction": None, "negative_rate": None},
        "lessons": [
            {
                "id": course["lessons"][0]["id"],
                "title": "第 1 步",
                "description": "",
                "duration_s": 120,
                "position": 1,
            }
        ],
        "version": 2,
        "bought": None,
        "series": [],
    }
    [listed] = (await api.client.get("/v1/courses")).json()["items"]
    assert listed | {"bought": None, "series": []} == answer.json()
    again = await api.client.get(f"/v1/courses/{course['id']}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_filters_narrow_the_list(api: Api) -> None:
    await add_course(api, title="甲", category="bread", level="advanced", access="member")
    await add_course(api, title="乙", category="bread")
    await add_course(api, title="丙", published=False)
    assert await titles(api) == ["乙", "甲"]
    assert await titles(api, category="bread", level="advanced") == ["甲"]
    assert await titles(api, access="free") == ["乙"]
    assert await titles(api, category="drink") == []
    for wrong in ({"category": "pie"}, {"level": "x"}, {"access": "x"}, {"sort": "x"}, {"limit": 0}, {"cursor": "x"}):
        assert (await api.client.get("/v1/courses", params=wrong)).status_code == 422


async def test_pages_show_every_course_once_in_every_order(api: Api) -> None:
    made = [await add_course(api, title=f"课程 {letter}") for letter in "badce"]
    for number, course in enumerate(made[:3], 1):
        await rate(api, course["lessons"][0]["id"], number)
    expected = {
        "new": ["课程 e", "课程 c", "课程 d", "课程 a", "课程 b"],
        "title": ["课程 a", "课程 b", "课程 c", "课程 d", "课程 e"],
        "rating": ["课程 d", "课程 a", "课程 b", "课程 e", "课程 c"],
    }
    for sort, order in expected.items():
        found: list[str] = []
        cursor = None
        while True:
            page: dict[str, Any] = {"sort": sort, "limit": 2} | ({"cursor": cursor} if cursor else {})
            answer = (await api.client.get("/v1/courses", params=page)).json()
            found += [item["title"] for item in answer["items"]]
            cursor = answer["next_cursor"]
            if cursor is None:
                break
        assert found == order


async def rate(api: Api, lesson_id: str, score: Any, **more: Any) -> Any:
    headers = more.pop("headers", None) or api.member()
    return await api.client.put(f"/v1/lessons/{lesson_id}/rating", json={"score": score} | more, headers=headers)


async def test_a_course_shows_the_mean_of_one_score_a_member_and_lesson(api: Api) -> None:
    course = await add_course(api, 100, 100)
    first, second = (lesson["id"] for lesson in course["lessons"])
    member = api.member(new_id())
    answer = await rate(api, first, 5, headers=member, comment=" 讲得清楚 ")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "score": 5,
            "comment": "讲得清楚",
            "rating": {"mean": 5.0, "count": 1, "satisfaction": 1.0, "negative_rate": 0.0},
        },
    )
    await rate(api, second, 4, headers=member)
    await rate(api, first, 2)
    changed = await rate(api, first, 1, headers=member)
    assert changed.json()["comment"] is None
    rating = (await api.client.get(f"/v1/courses/{course['id']}")).json()["rating"]
    expected = {"mean": 2.33, "count": 3, "satisfaction": 0.3333, "negative_rate": 0.6667}
    assert rating == changed.json()["rating"] == expected


async def test_many_ratings_at_once_are_all_counted(api: Api) -> None:
    course = await add_course(api)
    lesson, member = course["lessons"][0]["id"], api.member(new_id())
    scores = [1, 2, 3, 4, 5] * 3
    await asyncio.gather(*(rate(api, lesson, score) for score in scores))
    await asyncio.gather(*(rate(api, lesson, score, headers=member) for score in (1, 5, 3, 2)))
    [row] = await api.sql("SELECT rating_count, rating_sum, rating_negative, rating_positive FROM course")
    counted = await api.sql(
        "SELECT count(*), sum(score), count(*) FILTER (WHERE score <= 2), count(*) FILTER (WHERE score >= 4) FROM rating"
    )
    assert counted == [tuple(row)]
    assert row.rating_count == 16


async def test_a_wrong_rating_changes_nothing(api: Api) -> None:
    course = await add_course(api)
    lesson = course["lessons"][0]["id"]
    for score in (0, 6, 2.5, "5", True, None):
        assert (await rate(api, lesson, score)).status_code == 422
    assert (await rate(api, lesson, 5, comment="x" * 1001)).status_code == 422
    assert (await api.client.put(f"/v1/lessons/{lesson}/rating", json={"score": 5})).status_code == 401
    closed = await add_course(api, access="member")
    refused = await rate(api, closed["lessons"][0]["id"], 5)
    assert (refused.status_code, refused.json()["code"]) == (403, "membership_required")
    assert await api.sql("SELECT count(*) FROM rating") == [(0,)]
