"""Two languages: which one a caller reads, and what is wrong with a field in both, pydantic's findings and our rules."""

import re
from collections.abc import Mapping
from typing import Any, Final, Self

FIRST_SHOWN: Final = 50
"""A body with a thousand mistakes is told of so many."""


class Sentence(str):
    """A message in English that has its Chinese beside it."""

    __slots__ = ("zh",)
    zh: str

    def __new__(cls, english: str, zh: str) -> Self:
        """The English text, which also is this string's own value, and the Chinese one."""
        sentence = super().__new__(cls, english)
        sentence.zh = zh
        return sentence


class Wrong(ValueError):
    """What a validator of ours raises: the rule that was broken, in both languages."""

    def __init__(self, english: str, zh: str) -> None:
        super().__init__(english)
        self.sentence = Sentence(english, zh)


# By pydantic's error types (pydantic_core.core_schema.ErrorType); braces are filled from the error's context.
ZH: Final[Mapping[str, str]] = {
    "missing": "缺少这个字段",
    "extra_forbidden": "这里没有这个字段，请去掉",
    "none_required": "只能是 null",
    "json_invalid": "不是有效的 JSON",
    "json_type": "应为 JSON 文本",
    "recursion_loop": "内容引用了自身",
    "model_type": "应为一个对象",
    "model_attributes_type": "应为一个对象",
    "dict_type": "应为一个对象",
    "mapping_type": "应为一个对象",
    "invalid_key": "字段名应为文字",
    "list_type": "应为一个列表",
    "tuple_type": "应为一个列表",
    "set_type": "应为一个列表",
    "iterable_type": "应为一个列表",
    "too_short": "至少要有 {min_length} 项",
    "too_long": "最多 {max_length} 项",
    "string_type": "应为文字",
    "string_unicode": "不是有效的 Unicode 文字",
    "string_too_short": "至少 {min_length} 个字符",
    "string_too_long": "最多 {max_length} 个字符",
    "string_pattern_mismatch": "格式不对，应符合 {pattern}",
    "string_not_ascii": "只能用 ASCII 字符",
    "enum": "只能是 {expected} 之一",
    "literal_error": "只能是 {expected}",
    "bool_type": "应为 true 或 false",
    "bool_parsing": "应为 true 或 false",
    "int_type": "应为整数",
    "int_parsing": "应为整数",
    "int_parsing_size": "这个整数太大了",
    "int_from_float": "应为整数，不能带小数",
    "float_type": "应为数字",
    "float_parsing": "应为数字",
    "finite_number": "应为有限的数字",
    "decimal_type": "应为数字",
    "decimal_parsing": "应为数字",
    "multiple_of": "应为 {multiple_of} 的倍数",
    "greater_than": "应大于 {gt}",
    "greater_than_equal": "不能小于 {ge}",
    "less_than": "应小于 {lt}",
    "less_than_equal": "不能大于 {le}",
    "bytes_type": "应为文件",
    "bytes_too_long": "最多 {max_length} 字节",
    "date_type": "应为日期，如 2026-05-01",
    "date_parsing": "应为日期，如 2026-05-01",
    "date_from_datetime_parsing": "应为日期，如 2026-05-01",
    "date_from_datetime_inexact": "应为日期，不带时间，如 2026-05-01",
    "date_past": "应为过去的日期",
    "date_future": "应为将来的日期",
    "time_type": "应为时间，如 09:30",
    "time_parsing": "应为时间，如 09:30",
    "datetime_type": "应为带时区的时间，如 2026-05-01T08:00:00Z",
    "datetime_parsing": "应为带时区的时间，如 2026-05-01T08:00:00Z",
    "datetime_object_invalid": "应为带时区的时间，如 2026-05-01T08:00:00Z",
    "datetime_from_date_parsing": "应为带时区的时间，如 2026-05-01T08:00:00Z",
    "datetime_past": "应为过去的时间",
    "datetime_future": "应为将来的时间",
    "timezone_aware": "缺少时区，请写成如 2026-05-01T08:00:00Z",
    "timezone_naive": "不能带时区",
    "timezone_offset": "时区不对",
    "time_delta_type": "应为一段时长，如 P31D",
    "time_delta_parsing": "应为一段时长，如 P31D",
    "union_tag_invalid": "{discriminator} 只能是 {expected_tags} 之一",
    "union_tag_not_found": "缺少 {discriminator}",
    "url_type": "应为网址",
    "url_parsing": "不是有效的网址",
    "url_syntax_violation": "不是有效的网址",
    "url_too_long": "网址最多 {max_length} 个字符",
    "url_scheme": "网址应以 {expected_schemes} 开头",
    "uuid_type": "应为 UUID",
    "uuid_parsing": "应为 UUID",
    "uuid_version": "应为第 {expected_version} 版 UUID",
}

_OF_TEXT: Final = {
    "too_short": ("String should have at least {} characters", "至少 {} 个字符"),
    "too_long": ("String should have at most {} characters", "最多 {} 个字符"),
}


def worded(error: Mapping[str, Any]) -> Sentence:
    """One of pydantic's errors (a dict of `errors()`) as a sentence; what was sent is not in it."""
    context = error.get("ctx") or {}
    own = context.get("error")
    if isinstance(own, Wrong):
        return own.sentence
    if isinstance(own, ValueError) and error["type"] == "value_error":
        return Sentence(str(own), f"这个值不符合要求：{own}")
    if error["type"] in _OF_TEXT and isinstance(error.get("input"), str):
        # Behind a validator of ours pydantic has forgotten that what it counts are characters.
        bound = context.get("min_length", context.get("max_length"))
        english, zh = _OF_TEXT[error["type"]]
        return Sentence(english.format(bound), zh.format(bound))
    words = {name: str(value).replace(" or ", " 或 ") for name, value in context.items()}
    try:
        zh = ZH[error["type"]].format_map(words)
    except KeyError:
        zh = f"这个值不符合要求：{error['msg']}"
    return Sentence(str(error["msg"]), zh)


def field_error(loc: list[str | int], message: str, code: str) -> dict[str, Any]:
    """An item of a 422's `errors`; a `Sentence` is told in the caller's language."""
    return {"loc": loc, "msg": message, "code": code}


def in_language(errors: list[dict[str, Any]], language: str) -> list[dict[str, Any]]:
    """These items with each `msg` in `zh` or `en`, as far as it has both."""
    if language != "zh":
        return [error | {"msg": str(error["msg"])} for error in errors]
    return [error | {"msg": getattr(error["msg"], "zh", str(error["msg"]))} for error in errors]


def language_of(accept_language: str) -> str:
    """`zh` or `en`, whichever Accept-Language (RFC 9110 12.5.4) ranks higher; `zh` when it names neither."""
    best, best_quality = "zh", 0.0
    for item in accept_language.split(","):
        tag, _, parameter = item.strip().partition(";")
        language = tag.strip().lower()[:2]
        match = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", parameter)
        quality = float(match[1]) if match else 1.0
        if language in ("zh", "en") and quality > best_quality:
            best, best_quality = language, quality
    return best
