"""The demo catalogue: 267 real lessons, no two alike."""

import csv
from itertools import combinations
from typing import Any

from contracts.courses import CourseChanged
from services.courses.demo import CATALOGUE, seed
from services.courses.imports import read_rows
from tests.harness import Api

ROWS = list(csv.DictReader(CATALOGUE.read_text(encoding="utf-8").splitlines()))
CATEGORIES = {"cake", "dessert", "bread", "drink", "chinese_pastry"}


def alike(one: str, other: str) -> float:
    """The share of neighbouring letter pairs that two texts have in common."""
    pairs, others = ({text[i : i + 2] for i in range(len(text) - 1)} for text in (one, other))
    return len(pairs & others) / len(pairs | others)


def test_the_catalogue_has_267_lessons_that_the_import_takes() -> None:
    assert len(read_rows(CATALOGUE.read_bytes())) == len(ROWS) == 267


def test_no_two_lessons_are_alike() -> None:
    for column in ("lesson", "lesson_description"):
        assert max(alike(one, other) for one, other in combinations([row[column] for row in ROWS], 2)) < 0.3


def test_titles_tell_more_than_a_number() -> None:
    assert all(len(row["lesson"]) >= 5 and len(row["lesson_description"]) >= 15 for row in ROWS)
    assert not [
        row["lesson"]
        for row in ROWS
        if row["lesson"][-1].isdigit() or ("第" in row["lesson"] and "课" in row["lesson"])
    ]


def test_the_five_categories_have_each_their_share() -> None:
    shares = {code: sum(row["category"] == code for row in ROWS) for code in CATEGORIES}
    assert sum(shares.values()) == 267
    assert min(shares.values()) >= 30


def test_most_courses_are_free_and_a_good_share_is_for_members() -> None:
    member = sum(row["access"] == "member" for row in ROWS)
    assert {row["access"] for row in ROWS} == {"free", "member"}
    assert 60 <= member <= 100
    assert {row["level"] for row in ROWS} == {"beginner", "intermediate", "advanced"}
    assert all(120 <= int(row["duration_s"]) <= 900 for row in ROWS)
    assert 35 <= len({row["course"] for row in ROWS}) <= 45


async def test_the_sandbox_starts_with_it(seeded: Api) -> None:
    items = (await seeded.client.get("/v1/courses", params={"limit": 100})).json()["items"]
    assert len(items) == 39
    assert sum(len(course["lessons"]) for course in items) == 267
    categories = (await seeded.client.get("/v1/categories")).json()["items"]
    walked: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await seeded.client.get("/v1/categories", params={"limit": 4, "cursor": cursor})).json()
        walked, cursor = walked + page["items"], page["next_cursor"]
    assert walked == categories
    for wrong in ("x", "WyJwaXp6YSJd", "WzFd"):
        answer = await seeded.client.get("/v1/categories", params={"cursor": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
    assert {item["code"]: item["courses"] for item in categories} == {
        "cake": 9, "dessert": 9, "bread": 9, "drink": 6, "chinese_pastry": 6, "other": 0
    }  # fmt: skip
    assert categories[0]["name"] == {"zh": "蛋糕", "en": "Cakes"}
    teachers = (await seeded.client.get("/v1/instructors")).json()["items"]
    assert [(item["name"], item["verified"], item["courses"]) for item in teachers] == [
        ("周砚", True, 9),
        ("林小满", True, 18),
    ]
    [series] = (await seeded.client.get("/v1/series")).json()["items"]
    assert series["courses"] == 3


async def test_a_second_start_adds_nothing(seeded: Api) -> None:
    before = await seeded.sql("SELECT (SELECT count(*) FROM course), (SELECT count(*) FROM lesson)")
    told = await seeded.emitted()
    assert {type(event) for event in told} == {CourseChanged}
    assert len({event.course_id for event in told}) == len(told) == 39  # type: ignore[attr-defined]
    await seed(seeded.rt)
    assert await seeded.sql("SELECT (SELECT count(*) FROM course), (SELECT count(*) FROM lesson)") == before
    assert tuple(before[0]) == (39, 267)
    assert await seeded.emitted() == []
