"""Import: people from a CSV file, every one or none, every bad row named, written behind the answer by a job."""

import asyncio
import csv
import io
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import File, Response, UploadFile
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from kit import clock
from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import NotFound, Unprocessable, problems
from kit.shapes import CleanStr, Instant, Out
from kit.vault import open_vault
from kit.wording import Sentence, field_error, worded
from services.members import audit
from services.members.importing import seal_rows
from services.members.models import MemberImport
from services.members.phones import Phone
from services.members.settings import SettingsDep
from services.members.tiers import Tier

api = router(prefix="/v1/admin/members/imports", tags=["admin members"])

COLUMNS = ("nickname", "phone", "labels", "tier")
MAX_BYTES = 20 << 20
MAX_ROWS = 100_000
MAX_ERRORS = 1000


class NotUtf8(Unprocessable):
    """This file is not UTF-8 text; save it as "CSV UTF-8" and send it again."""

    zh = "文件不是 UTF-8 编码，请另存为“CSV UTF-8”后重新上传。"
    loc = ("body", "file")


class ImportRefused(Unprocessable):
    """Some rows are wrong, so nothing was imported; `errors` names each, counting the header as row 1."""

    zh = "有的行不正确，因此没有导入任何内容；`errors` 列出了每一处，表头算第 1 行。"


class ImportNotFound(NotFound):
    """There is no such import."""

    zh = "没有这次导入。"


def _labels(value: object) -> object:
    return list(dict.fromkeys(filter(None, map(str.strip, value.split(";"))))) if isinstance(value, str) else value


def _or_none(value: object) -> object:
    return value or None


class Row(BaseModel):
    """One person; labels are joined by `;`, a nickname and a tier may be left empty."""

    nickname: Annotated[CleanStr, Field(max_length=30)] = ""
    phone: Phone
    labels: Annotated[
        list[Annotated[CleanStr, Field(min_length=1, max_length=40)]], Field(max_length=50), BeforeValidator(_labels)
    ] = Field(default_factory=list)
    tier: Annotated[Tier | None, BeforeValidator(_or_none)] = None


class MemberImportOut(Out):
    """An import: of `rows` people `done` are written; nothing of it is to be seen until all are."""

    id: UUID
    file_name: str
    status: Literal["pending", "done", "failed"]
    rows: int
    done: int
    created: int
    updated: int
    created_at: Instant
    finished_at: Instant | None


def read_rows(content: bytes) -> list[Row]:
    """The people of a file; NotUtf8, or ImportRefused with the errors in it."""
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise NotUtf8 from failure
    errors: list[dict[str, Any]] = []
    rows = _parse(decoded, errors)
    if not rows and not errors:
        errors.append(_error(2, "phone", Sentence("the file has no rows", "文件里没有数据行"), "missing"))
    if errors:
        raise ImportRefused(extra={"errors": errors[:MAX_ERRORS]})
    return rows


def _error(number: int, column: str, message: str, code: str) -> dict[str, Any]:
    return field_error(["row", number, column], message, code)


def _parse(decoded: str, errors: list[dict[str, Any]]) -> list[Row]:
    lines = csv.reader(io.StringIO(decoded, newline=""), strict=True)
    rows: list[Row] = []
    seen: dict[str, int] = {}
    number = 1
    try:
        header = [cell.strip() for cell in next(lines, [])]
        _check_header(header, errors)
        for number, cells in enumerate([] if errors else lines, 2):
            if number > MAX_ROWS + 1:
                said = Sentence(f"a file has at most {MAX_ROWS} rows", f"一个文件最多 {MAX_ROWS} 行")
                errors.append(_error(number, "phone", said, "too_many_rows"))
                break
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                said = Sentence("more cells than the header has columns", "单元格比表头的列多")
                errors.append(_error(number, header[-1], said, "too_many_cells"))
                continue
            row = _read(number, dict(zip(header, map(str.strip, cells), strict=False)), errors)
            if row is None:
                continue
            if (first := seen.setdefault(row.phone, number)) != number:
                said = Sentence(f"the phone of row {first}", f"和第 {first} 行的手机号相同")
                errors.append(_error(number, "phone", said, "phone_repeated"))
            rows.append(row)
    except csv.Error as failure:
        said = Sentence(f"not readable as CSV: {failure}", f"不是有效的 CSV：{failure}")
        errors.append(_error(number + 1, "phone", said, "csv_invalid"))
    return rows


def _read(number: int, cells: dict[str, str], errors: list[dict[str, Any]]) -> Row | None:
    try:
        return Row.model_validate(cells)
    except ValidationError as failure:
        wrong = failure.errors(include_url=False, include_input=False)
        errors += [_error(number, str(error["loc"][0]), worded(error), error["type"]) for error in wrong]
        return None


def _check_header(header: list[str], errors: list[dict[str, Any]]) -> None:
    unknown = [column[:100] for column in header if column not in COLUMNS]
    repeated = [column for column in COLUMNS if header.count(column) > 1]
    said = Sentence("this column is not known", "没有这一列")
    errors += [_error(1, column, said, "unknown_column") for column in unknown]
    said = Sentence("this column is there more than once", "这一列重复了")
    errors += [_error(1, column, said, "repeated") for column in repeated]
    if "phone" not in header:
        errors.append(_error(1, "phone", Sentence("this column is needed", "需要这一列"), "missing"))


@api.post("", status_code=202, max_body_size=MAX_BYTES, responses=problems(NotUtf8, ImportRefused))
async def import_members(
    file: Annotated[UploadFile, File()],
    caller: Annotated[Caller, admin_with("members:write")],
    session: SessionDep,
    settings: SettingsDep,
    response: Response,
) -> MemberImportOut:
    """Take a CSV file of people: all of them, or with one bad row none; the answer names where to see how far it is.

    Columns: `nickname,phone,labels,tier`, of which only `phone` is needed; UTF-8 with or without BOM. A phone that
    nobody has registers its owner. Whoever has an account keeps their nickname, gets the labels beside their own, and
    the tier when one is given.
    """
    rows = await asyncio.to_thread(read_rows, await file.read())
    people = [row.model_dump() for row in rows]
    job = MemberImport(
        file_name=(file.filename or "")[:200],
        rows=len(rows),
        # Many people's phones: sealed while they wait, gone when they are written.
        sealed=await asyncio.to_thread(seal_rows, open_vault(settings.key), people),
        requested_by=caller.id,
        created_at=clock.now(),
    )
    session.add(job)
    await session.flush()
    audit.record(session, caller, "members.import_asked", job.id, after={"file": job.file_name, "rows": job.rows})
    response.headers["Location"] = f"/v1/admin/members/imports/{job.id}"
    return MemberImportOut.model_validate(job)


@api.get("/{import_id}", dependencies=[admin_with("members:read")], responses=problems(ImportNotFound))
async def read_import(import_id: UUID, session: SessionDep) -> MemberImportOut:
    """How far an import is."""
    job = await session.get(MemberImport, import_id)
    if job is None:
        raise ImportNotFound
    return MemberImportOut.model_validate(job)
