"""What a field takes, and how the document tells of it."""

from datetime import date
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from kit.page import Page
from kit.shapes import CleanStr, Day, Digits, Instant, Matching, Out, StrictIn, Text


class StayIn(StrictIn):
    """Everything that is told of text and days."""

    day: Day
    title: Text(1, 5)  # type: ignore[valid-type]
    note: Text(0, 5) = ""  # type: ignore[valid-type]
    code: Annotated[CleanStr, Field(min_length=2, max_length=9), Matching("^[a-z]+$")] | None = None


class StayOut(Out):
    """An item of a list."""

    day: date


def test_a_day_is_written_out_and_nothing_else() -> None:
    assert StayIn.model_validate_json('{"day": "2026-05-01", "title": "a"}').day == date(2026, 5, 1)
    for written in (
        "0",
        '"0"',
        '"1777593600"',
        '"2026-05-01T00:00:00Z"',
        '"2026-5-1"',
        '"20260501"',
        '"2026-02-30"',
        "[]",
    ):
        with pytest.raises(ValidationError):
            StayIn.model_validate_json(f'{{"day": {written}, "title": "a"}}')


def test_an_instant_is_rfc_3339_and_an_integer_of_a_query_is_digits() -> None:
    instant, whole = TypeAdapter(Instant), TypeAdapter(Annotated[int, Digits])
    assert instant.validate_python("2026-05-01T08:00:00+08:00") == instant.validate_python("2026-05-01T00:00:00Z")
    assert instant.validate_python("2026-05-01T08:00:00 08:00") == instant.validate_python("2026-05-01T00:00:00Z")
    assert [whole.validate_python(written) for written in ("12", "-1", "05", 7)] == [12, -1, 5, 7]
    for written in ("0", "5.96e-08", "-1e9", "1777593600", "2026-05-01", "2026-05-01T08:00:00", 0, 1.5, None):
        with pytest.raises(ValidationError):
            instant.validate_python(written)
    for written in ("1_0", "1.0", "+5", " 5", "１", "1e1", ""):
        with pytest.raises(ValidationError, match="int_parsing"):
            whole.validate_python(written)


def test_the_document_tells_the_bounds_and_the_form_that_text_must_have() -> None:
    told = StayIn.model_json_schema()["properties"]
    assert told["title"] == {"type": "string", "title": "Title", "minLength": 1, "maxLength": 5, "pattern": r"\S"}
    assert told["note"] == {"type": "string", "title": "Note", "maxLength": 5, "default": ""}
    assert told["code"]["anyOf"][0] == {"type": "string", "minLength": 2, "maxLength": 9, "pattern": "^[a-z]+$"}
    for refused in ("   ", "", "abcdefghij", "A"):
        with pytest.raises(ValidationError):
            StayIn.model_validate({"day": "2026-05-01", "title": "a", "code": refused})
    # Five letters may arrive as ten: an accent of its own behind each.
    assert StayIn.model_validate({"day": "2026-05-01", "title": "e\u0301" * 5}).title == "é" * 5


def test_a_page_is_called_after_what_is_on_it() -> None:
    assert Page[StayOut].model_json_schema()["title"] == "StayPage"
