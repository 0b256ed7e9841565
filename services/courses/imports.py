"""Import: a catalogue as CSV, taken whole or not at all, every bad row named."""

import asyncio
import csv
import io
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import File, UploadFile
from pydantic import ValidationError

from kit import audit
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Unprocessable, problems
from kit.wording import Sentence, field_error, worded
from services.courses.admin_courses import EDITOR
from services.courses.catalogue import COLUMNS, ImportOut, Row, import_rows

router = new_router(prefix="/v1/admin/courses/import", tags=["admin courses"])

MAX_BYTES = 20 << 20
MAX_ROWS = 20_000


class NotUtf8(Unprocessable):
    """This file is not UTF-8 text; save it as "CSV UTF-8" and send it again."""

    zh = "文件不是 UTF-8 编码，请另存为“CSV UTF-8”后重新上传。"
    loc = ("body", "file")


class ImportRefused(Unprocessable):
    """Some rows are wrong, so nothing was imported; `errors` names each, counting the header as row 1."""

    zh = "有的行不正确，因此没有导入任何内容；`errors` 列出了每一处，表头算第 1 行。"


class _Errors(list[dict[str, Any]]):
    def note(self, number: int, column: str, message: str, code: str) -> None:
        self.append(field_error(["row", number, column], message, code))


def read_rows(content: bytes) -> list[Row]:
    """The rows of a file; NotUtf8, or ImportRefused with every error in it."""
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise NotUtf8 from failure
    errors = _Errors()
    rows = _parse(decoded, errors)
    if not errors:
        _compare(rows, errors)
    if not rows and not errors:
        errors.note(2, COLUMNS[0], Sentence("the file has no rows", "文件里没有数据行"), "missing")
    if errors:
        raise ImportRefused(extra={"errors": sorted(errors, key=lambda error: error["loc"][1])})
    return [row for _, row in rows]


def _parse(decoded: str, errors: _Errors) -> list[tuple[int, Row]]:
    lines = csv.reader(io.StringIO(decoded, newline=""), strict=True)
    rows: list[tuple[int, Row]] = []
    number = 1
    try:
        header = [cell.strip() for cell in next(lines, [])]
        if not _check_header(header, errors):
            return rows
        for number, cells in enumerate(lines, 2):
            if number > MAX_ROWS + 1:
                said = Sentence(f"a file has at most {MAX_ROWS} rows", f"一个文件最多 {MAX_ROWS} 行")
                errors.note(number, COLUMNS[0], said, "too_many_rows")
                break
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                said = Sentence("more cells than the header has columns", "单元格比表头的列多")
                errors.note(number, header[-1], said, "too_many_cells")
                continue
            try:
                rows.append((number, Row.model_validate(dict(zip(header, map(str.strip, cells), strict=False)))))
            except ValidationError as failure:
                for error in failure.errors(include_url=False, include_input=False):
                    errors.note(number, str(error["loc"][0]), worded(error), error["type"])
    except csv.Error as failure:
        said = Sentence(f"not readable as CSV: {failure}", f"不是有效的 CSV：{failure}")
        errors.note(number + 1, COLUMNS[0], said, "csv_invalid")
    return rows


def _check_header(header: Sequence[str], errors: _Errors) -> bool:
    for column in COLUMNS:
        if header.count(column) != 1:
            said = Sentence("this column is needed once", "需要且只能有一次这一列")
            errors.note(1, column, said, "missing" if column not in header else "repeated")
    for column in header:
        if column not in COLUMNS:
            errors.note(1, column[:100], Sentence("this column is not known", "没有这一列"), "unknown_column")
    return not errors


def _compare(rows: Sequence[tuple[int, Row]], errors: _Errors) -> None:
    courses: dict[str, dict[str, Any]] = {}
    lessons: set[tuple[str, str]] = set()
    for number, row in rows:
        first = courses.setdefault(row.course, row.of_course())
        for column, value in row.of_course().items():
            if first[column] != value:
                said = Sentence("differs from an earlier row of the same course", "和前面同一门课的行不一致")
                errors.note(number, column, said, "course_differs")
        if (row.course, row.lesson) in lessons:
            said = Sentence("this course has the lesson already in an earlier row", "前面的行里这门课已有这一节")
            errors.note(number, "lesson", said, "lesson_repeated")
        lessons.add((row.course, row.lesson))


@router.post(
    "", dependencies=EDITOR, status_code=201, max_body_size=MAX_BYTES, responses=problems(NotUtf8, ImportRefused)
)
async def import_courses(
    file: Annotated[UploadFile, File()],
    session: SessionDep,
    dry_run: bool = False,  # noqa: FBT001, FBT002 - a query parameter, by name
) -> ImportOut:
    """Take a CSV file of courses and lessons, published at once.

    Columns: `course,category,level,access,amount,description,lesson,lesson_description,duration_s`; UTF-8 with or
    without BOM. Titles tell courses, and within a course lessons, apart: known ones are updated, new lessons come last,
    nothing is removed.
    """
    rows = await asyncio.to_thread(read_rows, await file.read())
    done = await import_rows(session, rows, dry_run=dry_run)
    if not dry_run:
        await audit.record(session, "courses.imported", file.filename or "", after=done.model_dump())
    return done
