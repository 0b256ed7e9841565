"""Building blocks of request and response bodies: strict integers, clean text, UTC instants."""

import re
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
)
from pydantic_core import PydanticKnownError

from kit.text import clean_text, instant
from kit.wording import Wrong

MAX_INTEGER = 2**53
"""Largest integer that JavaScript reads exactly; the API's bound for every number."""

# Outside them a change of zone or a sum of months leaves what a datetime can hold.
FIRST_YEAR, LAST_YEAR = 1900, 9990

DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
NOT_A_DAY = ("a day is written YYYY-MM-DD", "日期应写成 YYYY-MM-DD，如 2026-05-01")
NOT_RFC_3339 = ("an instant is RFC 3339 text", "时间应为 RFC 3339 文本，如 2026-05-01T08:00:00Z")


def _strip(value: str) -> str:
    return clean_text(value).strip()


def _instant_text(value: object) -> object:
    # Numbers are no instants (api.md: RFC 3339); pydantic would take 0 as 1970.
    if not isinstance(value, (str, datetime)):
        raise Wrong(*NOT_RFC_3339)
    if isinstance(value, str) and not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]", value):
        raise Wrong(*NOT_RFC_3339)
    # A plus that was not encoded arrives from a query as a space.
    return re.sub(r" ([0-9]{2}:[0-9]{2})$", r"+\1", value) if isinstance(value, str) and value[10:11] != " " else value


def _day_text(value: object) -> object:
    # Neither seconds since 1970 nor an instant is a day; pydantic would take both.
    if isinstance(value, datetime) or not isinstance(value, (str, date)):
        raise Wrong(*NOT_A_DAY)
    if isinstance(value, str) and not re.fullmatch(DAY, value):
        raise Wrong(*NOT_A_DAY)
    return value


def _digits(value: object) -> object:
    # Of what stands in a query, pydantic takes `1_0` and `1.0` for whole numbers as well.
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise PydanticKnownError("int_parsing")
    return value


def _in_reach(value: datetime) -> datetime:
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise Wrong(
            f"an instant lies in the years {FIRST_YEAR} to {LAST_YEAR}",
            f"时间应在 {FIRST_YEAR} 年到 {LAST_YEAR} 年之间",
        )
    return value


CleanStr = Annotated[str, AfterValidator(_strip)]


def Text(minimum: int = 0, maximum: int = 2000) -> Any:  # noqa: N802 - reads as a type in annotations
    """A type for text of so many characters after NFC and stripping, without NUL or lone surrogates."""
    told: dict[str, JsonValue] = {"maxLength": maximum} | ({"minLength": minimum, "pattern": r"\S"} if minimum else {})
    # More may arrive than counts in the end, but not without bound.
    arriving = Field(max_length=maximum * 4, json_schema_extra=told)
    return Annotated[CleanStr, arriving, AfterValidator(_between(minimum, maximum))]


def Matching(pattern: str) -> Any:  # noqa: N802 - stands in annotations beside Field
    """The form that a cleaned text must have; pydantic checks a pattern behind a validator, but does not tell of it."""
    return Field(pattern=pattern, json_schema_extra={"pattern": pattern})


def _between(minimum: int, maximum: int) -> Any:
    def check(value: str) -> str:
        if not minimum <= len(value) <= maximum:
            raise Wrong(f"must be {minimum} to {maximum} characters", f"应为 {minimum} 到 {maximum} 个字符")
        return value

    return check


Count = Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER)]
"""A strict integer from 0 to 2^53: no `true`, no `"12"`, no `1.5`."""

Digits = BeforeValidator(_digits)
"""Beside an integer of a query: written in digits."""

Fen = Count
"""Money in minor units."""

Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_instant_text),
    AfterValidator(_in_reach),
    PlainSerializer(instant, when_used="json"),
]
"""An RFC 3339 instant with an offset; answers carry UTC with Z."""


Day = Annotated[date, BeforeValidator(_day_text)]
"""A calendar day in a request, as YYYY-MM-DD and nothing else."""


class In(BaseModel):
    """A request body that ignores fields it does not know."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, str_max_length=100_000)


class StrictIn(In):
    """A request body of an admin or money endpoint: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Out(BaseModel):
    """A response body."""

    model_config = ConfigDict(from_attributes=True, json_encoders={datetime: instant})
