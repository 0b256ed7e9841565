"""What is wrong with a field is said in the caller's language, and never with what was sent."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import pytest
from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, Field
from pydantic_core.core_schema import ErrorType

from kit.app import Service, router
from kit.db import new_registry
from kit.settings import ServiceSettings
from kit.shapes import CleanStr, Count, Instant, StrictIn, Text
from kit.wording import ZH, Sentence, Wrong, field_error, in_language, worded
from tests.harness import Api, Run

# What no JSON body, query string or form can bring about: Python objects, and what our own code never declares.
UNREACHED = {
    "no_such_attribute", "needs_python_object", "recursion_depth_exceeded", "frozen_field", "frozen_instance",
    "get_attribute_error", "dataclass_type", "dataclass_exact_type", "named_tuple_type", "default_factory_not_called",
    "iteration_error", "frozen_dict_type", "ordered_dict_type", "counter_type", "deque_type", "set_item_not_hashable",
    "bytes_too_short", "bytes_invalid_encoding", "assertion_error", "missing_sentinel_error", "ellipsis_error",
    "frozen_set_type", "is_instance_of", "is_subclass_of", "callable_type", "arguments_type", "missing_argument",
    "unexpected_keyword_argument", "missing_keyword_only_argument", "unexpected_positional_argument",
    "missing_positional_only_argument", "multiple_argument_values", "decimal_max_digits", "decimal_max_places",
    "decimal_whole_digits", "fraction_type", "fraction_parsing", "complex_type", "complex_str_parsing",
}  # fmt: skip


def _even(value: int) -> int:
    if value % 2:
        raise Wrong("must be even", "应为偶数")
    return value


def _plain(value: int) -> int:
    if value:
        raise ValueError("must be zero")
    return value


class CakeIn(StrictIn):
    """A cake."""

    name: Text(1, 5) = "cake"  # type: ignore[valid-type]  # Text() makes a type
    kind: Literal["sponge", "cheese", "ice"] = "sponge"
    amount: Count = 0
    layers: Annotated[int, Field(strict=True, ge=1, le=9)] = 1
    tags: Annotated[list[str], Field(max_length=2, default_factory=list)]
    baked_at: AwareDatetime | None = None
    sold_at: Instant | None = None
    baker: UUID | None = None
    candles: Annotated[int, AfterValidator(_even)] = 0
    ghosts: Annotated[int, AfterValidator(_plain)] = 0
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    place: Annotated[CleanStr, Field(min_length=1, max_length=3)] = "a"


api_router = router(prefix="/v1/cakes", tags=["cakes"])


@api_router.post("")
async def bake(body: CakeIn) -> dict[str, str]:
    """Bake."""
    return {"name": body.name}


@api_router.get("")
async def cakes(limit: Annotated[int, Query(le=100)]) -> dict[str, int]:
    """List."""
    return {"limit": limit}


bakery = Service(
    name="bakery", title="Bakery", settings=ServiceSettings, metadata=new_registry().metadata, routers=[api_router]
)


@pytest.fixture
async def api(run: Run) -> AsyncIterator[Api]:
    async with run(bakery) as api:
        yield api


async def said(api: Api, body: Any, language: str = "") -> list[str]:
    answer = await api.client.post("/v1/cakes", json=body, headers={"Accept-Language": language} if language else {})
    assert answer.status_code == 422
    return [error["msg"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("body", "zh"),
    [
        ({"name": ""}, "应为 1 到 5 个字符"),
        ({"name": 5}, "应为文字"),
        ({"name": "a\u0000"}, "文字里不能有 NUL 字符"),
        ({"kind": "bread"}, "只能是 'sponge', 'cheese' 或 'ice'"),
        ({"amount": True}, "应为整数"),
        ({"amount": "12"}, "应为整数"),
        ({"amount": -1}, "不能小于 0"),
        ({"layers": 10}, "不能大于 9"),
        ({"tags": ["a", "b", "c"]}, "最多 2 项"),
        ({"tags": "a"}, "应为一个列表"),
        ({"baked_at": "2026-05-01T08:00:00"}, "缺少时区，请写成如 2026-05-01T08:00:00Z"),
        ({"baked_at": "yesterday"}, "应为带时区的时间，如 2026-05-01T08:00:00Z"),
        ({"sold_at": 0}, "时间应为 RFC 3339 文本，如 2026-05-01T08:00:00Z"),
        ({"sold_at": "0001-01-01T00:00:00Z"}, "时间应在 1900 年到 9990 年之间"),
        ({"baker": "me"}, "应为 UUID"),
        ({"candles": 3}, "应为偶数"),
        ({"ghosts": 1}, "这个值不符合要求：must be zero"),
        ({"code": "A"}, "格式不对，应符合 ^[a-z]+$"),
        ({"place": " "}, "至少 1 个字符"),
        ({"place": "abcd"}, "最多 3 个字符"),
        ({"stray": 1}, "这里没有这个字段，请去掉"),
        ([], "应为一个对象"),
    ],
)
async def test_a_wrong_field_is_told_in_chinese(api: Api, body: Any, zh: str) -> None:
    assert await said(api, body) == [zh]
    assert await said(api, body, "zh-CN") == [zh]


@pytest.mark.parametrize(
    ("body", "en"),
    [
        ({"name": ""}, "must be 1 to 5 characters"),
        ({"amount": -1}, "Input should be greater than or equal to 0"),
        ({"candles": 3}, "must be even"),
        ({"place": "abcd"}, "String should have at most 3 characters"),
        ({"ghosts": 1}, "must be zero"),
    ],
)
async def test_and_in_english_to_who_asks_for_it(api: Api, body: Any, en: str) -> None:
    assert await said(api, body, "en") == [en]


async def test_what_is_missing_or_no_json_at_all_is_told_too(api: Api) -> None:
    answer = await api.client.get("/v1/cakes")
    assert answer.json()["errors"] == [{"loc": ["query", "limit"], "msg": "缺少这个字段", "code": "missing"}]
    answer = await api.client.get("/v1/cakes?limit=x")
    assert [error["msg"] for error in answer.json()["errors"]] == ["应为整数"]
    answer = await api.client.post("/v1/cakes", content=b"{", headers={"Content-Type": "application/json"})
    assert [error["msg"] for error in answer.json()["errors"]] == ["不是有效的 JSON"]


def test_every_type_of_error_that_can_come_has_its_chinese() -> None:
    assert set(get_args(ErrorType)) - UNREACHED - {"value_error"} == ZH.keys()


def test_an_unknown_type_of_error_is_told_nevertheless() -> None:
    sentence = worded({"type": "of_tomorrow", "msg": "Input should be blue"})
    assert (sentence, sentence.zh) == ("Input should be blue", "这个值不符合要求：Input should be blue")
    # A context of another version lacks a word: better the English than a failure.
    assert worded({"type": "less_than", "msg": "too much", "ctx": {}}).zh == "这个值不符合要求：too much"


def test_a_message_without_chinese_stays_as_it_is() -> None:
    errors = [field_error(["body"], "as it is", "x"), field_error(["body"], Sentence("both", "两种"), "y")]
    assert [error["msg"] for error in in_language(errors, "zh")] == ["as it is", "两种"]
    assert [error["msg"] for error in in_language(errors, "en")] == ["as it is", "both"]
