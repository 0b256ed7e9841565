"""Best works: what the community's own media need of a contest's best works, as one archive that is written while it is sent."""

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from starlette.responses import StreamingResponse

from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.errors import problems
from services.showcase.channel_texts import CHANNELS, Work, text_for
from services.showcase.contests import ContestNotFound
from services.showcase.models import Contest, Entry, EntryImage, MemberCard, Result, Tally, Upload
from services.showcase.settings import Settings
from services.showcase.storage import Storage, file_name

api = router(prefix="/v1/admin/contests/{contest_id}/best-works.zip", tags=["admin contests"])

COLUMNS: Final = ("place", "title", "author", "votes", "entry_id", "lesson_id", "pictures", "folder")
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Best:
    """A work of the archive with the files of its pictures, in their order."""

    row: Any
    place: int
    pictures: Sequence[str]

    @property
    def folder(self) -> str:
        """Its folder: a name that every system can unpack."""
        name = _UNSAFE.sub("", self.row.title).strip(". ")[:40] or "untitled"
        return f"{self.place:02d}-{name}"


@api.get(
    "",
    dependencies=[admin_with("contests:read")],
    response_class=StreamingResponse,
    responses={
        **problems(ContestNotFound),
        200: {"content": {"application/zip": {}}, "description": "pictures, and texts for sixteen channels"},
    },
)
async def download_best_works(
    contest_id: UUID,
    session: SessionDep,
    rt: RuntimeDep,
    limit: Annotated[int, Query(ge=1, le=100, description="how many works, the best first")] = 10,
) -> StreamingResponse:
    """The best works of a contest: by its results once it is settled, by votes before; with a text for each channel."""
    contest = await session.get(Contest, contest_id)
    if contest is None:
        raise ContestNotFound
    works = await _best(session, contest, limit)
    storage = rt.state["darkroom"].storage
    # The connection is given back before the first byte; each picture is read when its turn comes.
    headers = {
        "Content-Disposition": f'attachment; filename="best-works-{contest_id}.zip"',
        "Cache-Control": "private, no-store",
    }
    archive = write(storage, rt.settings, contest.title, works, clock.now().astimezone(clock.ZONE))
    return StreamingResponse(archive, media_type="application/zip", headers=headers)


async def _best(session: AsyncSession, contest: Contest, limit: int) -> list[Best]:
    votes = func.coalesce(col(Result.votes), col(Tally.votes), 0).label("votes")
    found = (
        select(
            col(Entry.id),
            col(Entry.title),
            col(Entry.story),
            col(Entry.lesson_id),
            func.coalesce(col(MemberCard.nickname), "").label("nickname"),
            col(Result.rank),
            votes,
        )
        .outerjoin(Tally, col(Tally.entry_id) == col(Entry.id))
        .outerjoin(Result, col(Result.entry_id) == col(Entry.id))
        .outerjoin(MemberCard, col(MemberCard.member_id) == col(Entry.member_id))
        .where(col(Entry.contest_id) == contest.id, col(Entry.status) == "approved")
        .order_by(col(Result.rank).asc().nulls_last(), votes.desc(), col(Entry.id))
        .limit(limit)
    )
    rows = (await session.execute(found)).all()
    pictures: dict[UUID, list[str]] = {row.id: [] for row in rows}
    hung = (
        select(col(EntryImage.entry_id), col(Upload.content), col(Upload.suffix))
        .join(Upload, col(Upload.id) == col(EntryImage.upload_id))
        .where(col(EntryImage.entry_id).in_(pictures))
        .order_by(col(EntryImage.entry_id), col(EntryImage.position))
    )
    for image in await session.execute(hung):
        pictures[image.entry_id].append(file_name(image.content, "original", image.suffix))
    return [Best(row, row.rank or place, pictures[row.id]) for place, row in enumerate(rows, 1)]


class _Sent(io.RawIOBase):
    """What the archive has written and nobody has taken yet."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.waiting += content
        return len(content)

    def take(self) -> bytes:
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken


def write(storage: Storage, settings: Settings, contest: str, works: Sequence[Best], now: datetime) -> Iterator[bytes]:
    """The archive in pieces, at most one picture of it in memory; blocking."""
    sent = _Sent()
    # Stored, not deflated: pictures do not shrink, and texts are small.
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> bytes:
            archive.writestr(zipfile.ZipInfo(name, now.timetuple()[:6]), content)
            return sent.take()

        yield add("works.csv", _table(works))
        for best in works:
            told = _told(best, contest)
            for code, channel in CHANNELS.items():
                text = text_for(code, told, settings.entry_link(best.row.id, channel=code))
                yield add(f"{best.folder}/texts/{code}-{channel.name}.txt", text.encode())
            for number, name in enumerate(best.pictures, 1):
                if (picture := storage.read(name)) is not None:
                    yield add(f"{best.folder}/{number}{name[name.rindex('.') :]}", picture)
    yield sent.take()


def _told(best: Best, contest: str) -> Work:
    honour = f"第 {best.row.rank} 名" if best.row.rank else f"获得 {best.row.votes} 票"
    return Work(best.row.title, best.row.story, best.row.nickname or "一位会员", contest, honour)


def _table(works: Sequence[Best]) -> bytes:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for best in works:
        row = best.row
        cells = (best.place, row.title, row.nickname, row.votes, row.id, row.lesson_id or "", len(best.pictures))
        table.writerow([_cell(cell) for cell in (*cells, best.folder)])
    # With a byte order mark, which spreadsheets want in order to read Chinese.
    return out.getvalue().encode("utf-8-sig")


def _cell(value: object) -> str:
    """As text that no spreadsheet takes for a formula."""
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
