"""A file of grants: member ids and notes as CSV, taken whole or not at all, every bad row named."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from kit.errors import Unprocessable
from kit.shapes import CleanStr
from kit.wording import Sentence, field_error, worded

COLUMNS: Final = ("member_id", "note")
MAX_BYTES: Final = 20 << 20
MAX_ROWS: Final = 100_000
MAX_ERRORS: Final = 1000


class NotUtf8(Unprocessable):
    """This file is not UTF-8 text; save it as "CSV UTF-8" and send it again."""

    zh = "文件不是 UTF-8 编码，请另存为“CSV UTF-8”后重新上传。"
    loc = ("body", "file")


class GrantFileRefused(Unprocessable):
    """Some rows are wrong, so nobody is given anything; correct what `errors` names (the header is row 1) and send it again."""

    zh = "有的行不正确，因此没有发放任何优惠券；请按 `errors` 逐处改正（表头算第 1 行）后重新上传。"


class _Cells(BaseModel):
    member_id: UUID
    note: Annotated[CleanStr, Field(max_length=200)] = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the file."""

    number: int
    member_id: UUID
    note: str


def read_lines(content: bytes) -> list[Line]:
    """The members of a file; NotUtf8, or GrantFileRefused with the errors in it."""
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise NotUtf8 from failure
    errors: list[dict[str, Any]] = []
    lines = _parse(decoded, errors)
    if not lines and not errors:
        errors.append(_error(2, "member_id", Sentence("the file has no rows", "文件里没有数据行"), "missing"))
    if errors:
        raise GrantFileRefused(extra={"errors": errors[:MAX_ERRORS]})
    return lines


def _error(number: int, column: str, message: str, code: str) -> dict[str, Any]:
    return field_error(["row", number, column], message, code)


def _parse(decoded: str, errors: list[dict[str, Any]]) -> list[Line]:
    table = csv.reader(io.StringIO(decoded, newline=""), strict=True)
    lines: dict[UUID, Line] = {}
    number = 1
    try:
        header = [cell.strip() for cell in next(table, [])]
        _check_header(header, errors)
        for number, cells in enumerate([] if errors else table, 2):
            if number > MAX_ROWS + 1:
                said = Sentence(f"a file has at most {MAX_ROWS} rows", f"一个文件最多 {MAX_ROWS} 行")
                errors.append(_error(number, "member_id", said, "too_many_rows"))
                break
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                said = Sentence("more cells than the header has columns", "单元格比表头的列多")
                errors.append(_error(number, header[-1], said, "too_many_cells"))
                continue
            line = _read(number, dict(zip(header, map(str.strip, cells), strict=False)), errors)
            if line is not None and (first := lines.setdefault(line.member_id, line)) is not line:
                said = Sentence(f"the member of row {first.number}", f"和第 {first.number} 行是同一位会员")
                errors.append(_error(number, "member_id", said, "member_repeated"))
    except csv.Error as failure:
        said = Sentence(f"not readable as CSV: {failure}", f"不是有效的 CSV：{failure}")
        errors.append(_error(number + 1, "member_id", said, "csv_invalid"))
    return list(lines.values())


def _read(number: int, cells: Mapping[str, str], errors: list[dict[str, Any]]) -> Line | None:
    try:
        read = _Cells.model_validate(cells)
    except ValidationError as failure:
        wrong = failure.errors(include_url=False, include_input=False)
        errors += [_error(number, str(error["loc"][0]), worded(error), error["type"]) for error in wrong]
        return None
    return Line(number, read.member_id, read.note)


def _check_header(header: Sequence[str], errors: list[dict[str, Any]]) -> None:
    said = Sentence("this column is not known", "没有这一列")
    errors += [_error(1, column[:100], said, "unknown_column") for column in header if column not in COLUMNS]
    said = Sentence("this column is there more than once", "这一列重复了")
    errors += [_error(1, column, said, "repeated") for column in COLUMNS if header.count(column) > 1]
    if "member_id" not in header:
        errors.append(_error(1, "member_id", Sentence("this column is needed", "需要这一列"), "missing"))
