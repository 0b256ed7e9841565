"""Import: all or nothing, every bad row named, and the same file again changes nothing."""

import asyncio
from typing import Any

import httpx
import pytest

from services.courses.demo import CATALOGUE
from tests.harness import Api
from tests.services.courses.world import add_course

HEADER = "course,category,level,access,amount,description,lesson,lesson_description,duration_s"
GOOD = (
    "虎皮卷,cake,beginner,free,,卷起来,打发蛋白,硬性发泡,300",
    "虎皮卷,蛋糕,beginner,free,,卷起来,烤虎皮,高温三分钟,240",
    '开酥,bread,advanced,paid,9900,"分层,要冷",包油,"敲平\n再折",600',
)
ADDRESS = "/v1/admin/courses/import"


def table(*rows: str, header: str = HEADER) -> bytes:
    return "\n".join((header, *rows)).encode()


async def send(api: Api, content: bytes, **params: Any) -> httpx.Response:
    return await api.client.post(ADDRESS, files={"file": ("c.csv", content)}, params=params, headers=api.admin())


async def count(api: Api) -> tuple[int, int]:
    [row] = await api.sql("SELECT (SELECT count(*) FROM course), (SELECT count(*) FROM lesson)")
    return row[0], row[1]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
async def test_a_good_file_is_shown_at_once(api: Api, mark: bytes) -> None:
    answer = await send(api, mark + table(*GOOD))
    assert (answer.status_code, answer.json()) == (
        201,
        {
            "courses": 2,
            "lessons": 3,
            "created": {"courses": 2, "lessons": 3},
            "updated": {"courses": 0, "lessons": 0},
            "dry_run": False,
        },
    )
    bread, cake = (await api.client.get("/v1/courses")).json()["items"]
    assert (bread["title"], bread["access"], bread["amount"], bread["description"]) == (
        "开酥",
        "paid",
        9900,
        "分层,要冷",
    )
    assert bread["lessons"][0]["description"] == "敲平\n再折"
    assert [(item["title"], item["position"], item["duration_s"]) for item in cake["lessons"]] == [
        ("打发蛋白", 1, 300),
        ("烤虎皮", 2, 240),
    ]


async def test_a_dry_run_answers_the_same_and_writes_nothing(api: Api) -> None:
    dry = (await send(api, table(*GOOD), dry_run="true")).json()
    assert await count(api) == (0, 0)
    real = (await send(api, table(*GOOD))).json()
    assert (dry.pop("dry_run"), real.pop("dry_run")) == (True, False)
    assert dry == real
    changed = table(GOOD[0].replace("300", "301"), *GOOD[1:])
    assert (await send(api, changed, dry_run="true")).json()["updated"] == {"courses": 1, "lessons": 1}
    assert await api.sql("SELECT max(duration_s), max(version) FROM lesson") == [(600, 1)]


async def test_the_same_file_again_changes_nothing(api: Api) -> None:
    await send(api, table(*GOOD))
    again = (await send(api, table(*GOOD))).json()
    assert (again["created"], again["updated"]) == ({"courses": 0, "lessons": 0}, {"courses": 0, "lessons": 0})
    assert await api.sql("SELECT max(version) FROM course") == [(1,)]


async def test_known_titles_are_updated_and_new_lessons_come_last(api: Api) -> None:
    course = await add_course(api, 100, 200, title="虎皮卷")
    changed = table(
        "虎皮卷,cake,advanced,member,,卷起来,第 1 步,改了,150", "虎皮卷,cake,advanced,member,,卷起来,第三步,新的,90"
    )
    answer = (await send(api, changed)).json()
    assert (answer["created"], answer["updated"]) == ({"courses": 0, "lessons": 1}, {"courses": 1, "lessons": 1})
    shown = (await api.client.get(f"/v1/courses/{course['id']}")).json()
    assert (shown["level"], shown["access"], shown["version"]) == ("advanced", "member", course["version"] + 1)
    assert [(item["title"], item["duration_s"]) for item in shown["lessons"]] == [
        ("第 1 步", 150),
        ("第 2 步", 200),
        ("第三步", 90),
    ]
    assert shown["lessons"][0]["id"] == course["lessons"][0]["id"]


async def test_two_imports_at_once_make_one_catalogue(api: Api) -> None:
    answers = await asyncio.gather(*(send(api, table(*GOOD)) for _ in range(4)))
    assert sorted(answer.json()["created"]["courses"] for answer in answers) == [0, 0, 0, 2]
    assert await count(api) == (2, 3)


BAD = [
    ("虎皮卷,cakes,beginner,free,,d,l,,300", [["row", 2, "category"]]),
    ("虎皮卷,cake,expert,free,,d,l,,300", [["row", 2, "level"]]),
    ("虎皮卷,cake,beginner,gratis,,d,l,,300", [["row", 2, "access"]]),
    ("虎皮卷,cake,beginner,free,100,d,l,,300", [["row", 2, "amount"]]),
    ("虎皮卷,cake,beginner,paid,,d,l,,300", [["row", 2, "amount"]]),
    ("虎皮卷,cake,beginner,paid,0,d,l,,300", [["row", 2, "amount"]]),
    ("虎皮卷,cake,beginner,paid,9.5,d,l,,300", [["row", 2, "amount"]]),
    ("虎皮卷,cake,beginner,free,,d,l,,", [["row", 2, "duration_s"]]),
    ("虎皮卷,cake,beginner,free,,d,l,,0", [["row", 2, "duration_s"]]),
    ("虎皮卷,cake,beginner,free,,d,l,,-3", [["row", 2, "duration_s"]]),
    ("虎皮卷,cake,beginner,free,,d,l,,3e2", [["row", 2, "duration_s"]]),
    ("虎皮卷,cake,beginner,free,,d,l,,３００", [["row", 2, "duration_s"]]),
    ("虎皮卷,cake,beginner,free,,d,l,,99999999999999999999", [["row", 2, "duration_s"]]),
    (" ,cake,beginner,free,,d, ,,300", [["row", 2, "course"], ["row", 2, "lesson"]]),
    ("虎皮卷,cake,beginner,free,,d,l\x00,,300", [["row", 2, "lesson"]]),
    ("虎皮卷,cake,beginner,free,,d,l", [["row", 2, "lesson_description"], ["row", 2, "duration_s"]]),
    ("虎皮卷,cake,beginner,free,,d,l,,300,extra", [["row", 2, "duration_s"]]),
    ("x" * 201 + ",cake,beginner,free,,d,l,,300", [["row", 2, "course"]]),
    ("虎,cake,beginner,free,,d,l,,300\n虎,bread,beginner,free,,d,m,,300", [["row", 3, "category"]]),
    ("虎,cake,beginner,free,,d,l,,300\n\n虎,cake,beginner,free,,d,l,,300", [["row", 4, "lesson"]]),
    ('虎,cake,beginner,free,,"d,l,,300', [["row", 2, "course"]]),
    ("虎,cake,beginner,free,," + "d" * 140_000 + ",l,,300", [["row", 2, "course"]]),
    ("", [["row", 2, "course"]]),
]


async def test_every_bad_row_is_named_and_nothing_is_written(api: Api) -> None:
    for row, places in BAD:
        answer = await send(api, table(row))
        assert (answer.status_code, answer.json()["code"]) == (422, "import_refused"), row[:80]
        assert [error["loc"] for error in answer.json()["errors"]] == places, row[:80]
    assert await count(api) == (0, 0)


async def test_good_rows_beside_bad_ones_are_not_taken(api: Api) -> None:
    answer = await send(api, table(*GOOD, "a,b,c,d,e,f,g,h,i", GOOD[0], "虎皮卷,cake,beginner,free,,卷起来,x,,zwei"))
    assert [error["loc"] for error in answer.json()["errors"]] == [
        ["row", 5, "category"],
        ["row", 5, "level"],
        ["row", 5, "access"],
        ["row", 5, "amount"],
        ["row", 5, "duration_s"],
        ["row", 7, "duration_s"],
    ]
    assert {"loc", "msg", "code"} == set(answer.json()["errors"][0])
    assert await count(api) == (0, 0)


async def test_a_wrong_header_is_named(api: Api) -> None:
    answer = await send(api, table("x", header="course,level,level,price"))
    assert [error["loc"][2] for error in answer.json()["errors"]] == [
        "category", "level", "access", "amount", "description", "lesson", "lesson_description", "duration_s", "price",
    ]  # fmt: skip
    assert {error["loc"][1] for error in answer.json()["errors"]} == {1}
    assert (await send(api, b"")).status_code == 422


async def test_other_encodings_are_refused_by_name(api: Api) -> None:
    for encoding in ("gb18030", "utf-16", "latin-1"):
        text = table(*GOOD).decode() if encoding != "latin-1" else "course\xe9"
        answer = await send(api, text.encode(encoding))
        assert (answer.status_code, answer.json()["code"]) == (422, "not_utf8")


async def test_only_an_admin_with_the_right_imports(api: Api) -> None:
    files = {"file": ("c.csv", table(*GOOD))}
    statuses = [
        (await api.client.post(ADDRESS, files=files, headers=headers)).status_code
        for headers in ({}, api.member(), api.admin("courses:read"), api.admin("courses:write"))
    ]
    assert statuses == [401, 403, 403, 201]
    assert (await api.client.post(ADDRESS, headers=api.admin())).status_code == 422
    assert (await api.client.post(ADDRESS, json={"file": "x"}, headers=api.admin())).status_code == 422


async def test_a_file_may_be_larger_than_a_json_body_and_no_larger_than_20_mib(api: Api) -> None:
    lines = [f"课 {n},cake,beginner,free,,{'说' * 600},步骤,,60" for n in range(800)]
    assert (await send(api, table(*lines))).json()["created"] == {"courses": 800, "lessons": 800}
    assert (await send(api, b"x" * (21 << 20))).status_code == 413


async def test_the_import_is_quick_enough_for_every_start(api: Api) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await send(api, CATALOGUE.read_bytes())
    assert answer.json()["created"] == {"courses": 39, "lessons": 267}
    # A start may spend half a second on it; a test machine under load gets more.
    assert loop.time() - started < 3


async def test_a_retry_with_the_same_key_is_answered_from_the_first(api: Api) -> None:
    headers = api.admin() | {"Idempotency-Key": "import-1"}
    files = {"file": ("c.csv", table(*GOOD))}
    request = api.client.build_request("POST", ADDRESS, files=files, headers=headers)
    body, kind = request.read(), request.headers["content-type"]
    first = await api.client.post(ADDRESS, content=body, headers=headers | {"Content-Type": kind})
    second = await api.client.post(ADDRESS, content=body, headers=headers | {"Content-Type": kind})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
