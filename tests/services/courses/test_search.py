"""Search: words are found inside Chinese text, the best first, whether or not they are indexed yet."""

import asyncio
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.courses import words
from tests.harness import Api
from tests.services.courses.test_courses import titles
from tests.services.courses.world import add_course, add_lesson

ROLL, BREAD = "虎皮蛋糕卷", "百分百 100% 全麦"
FOUND: list[tuple[str, list[str]]] = [
    ("蛋糕卷", [ROLL]),
    ("秘密", [ROLL]),
    ("油纸", [ROLL]),
    ("纸推", [ROLL]),
    ("不裂", [ROLL]),
    ("卷", [ROLL]),
    ("定型 虎皮", [ROLL]),
    ("虎皮蛋糕卷怎么定型", [ROLL]),
    ("如何卷起蛋糕卷", [ROLL]),
    ("借油纸推着走", [ROLL]),
    ("走推", []),
    ("定型 全麦", []),
    ("怎么", []),
    ("sourDOUGH", [BREAD]),
    ("rdoug", [BREAD]),
    ("ＳＯＵＲ", [BREAD]),
    ("全麦sourdough", [BREAD]),
    ("0%", [BREAD]),
    ("%", [BREAD]),
    ("_", [BREAD]),
    ("\\", []),
    ("' | '蛋糕", []),
    ("'; DROP TABLE course; --", []),
    ("  ", [BREAD, ROLL]),
]


async def two_courses(api: Api) -> None:
    roll = await add_course(api, title=ROLL, description="不裂的秘密")
    await add_lesson(api, roll["id"], title="卷起与定型", description="借油纸推着走")
    await add_course(api, title=BREAD, description="a_b Sourdough")


async def test_words_are_found_before_and_after_they_are_indexed(api: Api) -> None:
    await two_courses(api)
    for _ in ("before", "after"):
        for asked, expected in FOUND:
            assert await titles(api, q=asked) == expected, asked
        await api.run_due()
    assert await api.sql("SELECT count(*) FROM course WHERE indexed_version = version") == [(2,)]
    assert (await api.client.get("/v1/courses", params={"q": "x" * 101})).status_code == 422
    assert (await api.client.get("/v1/courses", params={"q": "a\x00"})).status_code == 422
    for wrong in ("'", "''", "a'b", "蛋\\糕糕糕的", "：*&|!()<->", "￼", "🍞", "𠮷𠮷𠮷", "ﷺ"):
        assert await titles(api, q=wrong) == []


async def test_what_is_changed_is_found_as_it_is_now(api: Api) -> None:
    course = await add_course(api, title="戚风", description="")
    await api.run_due()
    await api.client.patch(f"/v1/admin/courses/{course['id']}", json={"title": "可颂"}, headers=api.admin())
    assert (await titles(api, q="戚风"), await titles(api, q="可颂")) == ([], ["可颂"])
    await api.run_due()
    assert (await titles(api, q="戚风"), await titles(api, q="可颂")) == ([], ["可颂"])
    lesson = await add_lesson(api, course["id"], title="裹油")
    assert await titles(api, q="裹油") == ["可颂"]
    await api.run_due()
    await api.client.delete(f"/v1/admin/lessons/{lesson['id']}", headers=api.admin())
    assert await titles(api, q="裹油") == []
    listed = await api.client.get("/v1/admin/courses", params={"q": "可颂"}, headers=api.admin())
    assert [item["title"] for item in listed.json()["items"]] == ["可颂"]
    await api.client.delete(f"/v1/admin/courses/{course['id']}", headers=api.admin())
    assert await titles(api, q="可颂") == []


async def test_the_best_come_first_within_filters_and_over_pages(api: Api) -> None:
    in_title = await add_course(api, title="蛋黄酥", category="chinese_pastry")
    in_lesson = await add_course(api, title="中式点心入门", category="chinese_pastry")
    await add_lesson(api, in_lesson["id"], title="蛋黄酥包馅")
    await add_course(api, title="送礼指南", description="蛋黄酥的包装", access="member", level="advanced")
    await add_course(api, title="慕斯", description="与此无关")
    await api.run_due()
    expected = [in_title["title"], "中式点心入门", "送礼指南"]
    assert await titles(api, q="蛋黄酥") == await titles(api, q="蛋黄酥", sort="relevance") == expected
    assert await titles(api, q="蛋黄酥", sort="new") == expected[::-1]
    assert await titles(api, sort="relevance") == ["慕斯", *expected[::-1]]
    assert await titles(api, q="蛋黄酥", category="chinese_pastry") == expected[:2]
    assert (
        await titles(api, q="蛋黄酥", level="advanced")
        == await titles(api, q="蛋黄酥", access="member")
        == ["送礼指南"]
    )
    found: list[str] = []
    page: dict[str, Any] = {"q": "蛋黄酥", "limit": 1}
    while True:
        answer: httpx.Response = await api.client.get("/v1/courses", params=page)
        found += [item["title"] for item in answer.json()["items"]]
        page["cursor"] = answer.json()["next_cursor"]
        if page["cursor"] is None:
            break
    assert found == expected


SENTENCES = ["戚风蛋糕从零到稳", "Ａbc 三能 SN5022 六寸模具", "把油纸推着走，一步到位", "café 奶盖 x_y%z"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sentence=st.sampled_from(SENTENCES), start=st.integers(0, 15), length=st.integers(1, 12))
async def test_every_part_of_a_sentence_finds_it(api: Api, sentence: str, start: int, length: int) -> None:
    if await api.sql("SELECT 1 FROM course") == []:
        course = await add_course(api, title="课程", description=SENTENCES[0])
        for text in SENTENCES[1:]:
            await add_lesson(api, course["id"], title=text)
        await api.run_due()
    asked = sentence[start : start + length].strip()
    assert await titles(api, q=asked) == ["课程"], asked


async def test_indexers_at_once_index_each_course_once(api: Api) -> None:
    for number in range(4):
        await add_course(api, title=f"课程 {number}")
    [job] = [job for job in api.rt.due if job.name == "index courses"]
    await asyncio.gather(*(job.run(api.rt) for _ in range(3)))
    indexed = "SELECT count(*) FILTER (WHERE indexed_version = version), (SELECT count(*) FROM course_text) FROM course"
    assert await api.sql(indexed) == [(4, 4)]
    [before] = await api.sql("SELECT sum(xmin::text::bigint) FROM course_text")
    assert await api.run_due() == 0
    assert await api.sql("SELECT sum(xmin::text::bigint) FROM course_text") == [before]


def test_text_is_cut_into_what_is_looked_for() -> None:
    assert words.lexemes([["戚风 x"], ["全麦", "戚风"], ["分蛋"]]) == words.Lexemes(
        "'戚风':1A,2B 'x':1A '全麦':2B", "戚 风 戚风 全 麦 全麦 分 蛋 分蛋"
    )
    assert words.asked_words("戚风蛋糕怎么打发蛋白霜呢") == ["戚风", "蛋糕", "打发", "蛋白霜"]
    assert words.asked_words("怎么办") == ["怎么办"]
    long = words.lexemes([[f"a{number}" for number in range(words.MAX_RANKED + 5)], []])
    assert len(long.words.split()) == words.MAX_RANKED


async def test_a_course_with_very_much_text_is_found_by_all_of_it(api: Api) -> None:
    every = "".join(chr(0x4E00 + number) for number in range(20_000))
    course = await add_course(api, title="长文")
    for start in range(0, 20_000, 4000):
        await add_lesson(api, course["id"], title="节", description=every[start : start + 4000])
    await api.run_due()
    assert await api.sql("SELECT count(*) FROM course WHERE indexed_version = version") == [(1,)]
    for asked in (every[0], every[19_999], every[8000:8002], every[11_990:11_999]):
        assert await titles(api, q=asked) == ["长文"]
    assert await titles(api, q=every[20] + every[10]) == []
