"""Entries: members put a work into a contest, show it, and may withdraw it."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Response
from pydantic import Field
from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.showcase import EntryApproved
from kit import clock
from kit.app import router
from kit.auth import Caller, MemberDep, OptionalMemberDep
from kit.db import SessionDep
from kit.errors import Conflict, Forbidden, NotFound, Unprocessable, problems
from kit.events import emit
from kit.http import json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import In, Instant, Out, Text
from services.showcase.cards import MemberOut
from services.showcase.contests import ContestClosed, ContestNotFound, phase_of, totals_hidden
from services.showcase.lesson_works import tell_lesson
from services.showcase.models import Contest, Entry, EntryImage, MemberCard, Tally, Upload
from services.showcase.uploads import AddressDep, ImageOut, image_out

api = router(prefix="/v1", tags=["entries"])

Status = Literal["pending", "approved", "rejected", "withdrawn"]
PRIVATE: Final = {"Cache-Control": "private, no-store"}
MAX_IMAGES: Final = 9


class EntryNotFound(NotFound):
    """There is no such work, or it is not on show."""

    zh = "没有这件作品，或者它没有公开。"


class UploadUnknown(Unprocessable):
    """A picture named here is not one of your uploads; upload it first and use the id you get."""

    zh = "有图片不是你上传的，请先上传，再使用返回的 id。"
    loc = ("body", "upload_ids")


class UploadUsed(Conflict):
    """A picture named here already stands in this contest; show another one."""

    zh = "有图片已经用在这个比赛里了，请换一张。"


class NotYourEntry(Forbidden):
    """Only its author may withdraw a work."""

    zh = "只有作者本人可以撤回作品。"


class EntryIn(In):
    """A work: its pictures in the order they are shown, and the lesson it was learned from."""

    title: Text(1, 80)  # type: ignore[valid-type]  # Text() makes a type
    story: Text(0, 5000) = ""  # type: ignore[valid-type]  # Text() makes a type
    upload_ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_IMAGES)]
    lesson_id: UUID | None = None


class EntryOut(Out):
    """A work; `votes` is null while its contest hides them, `reason` is why it was rejected."""

    id: UUID
    contest_id: UUID
    member: MemberOut
    title: str
    story: str
    images: list[ImageOut]
    lesson_id: UUID | None
    status: Status
    reason: str | None
    votes: int | None
    submitted_at: Instant


def with_votes() -> Select[Any]:
    """Entries with their author's nickname, their votes and what decides whether those are shown."""
    votes = func.coalesce(col(Tally.votes), 0).label("votes")
    nickname = func.coalesce(col(MemberCard.nickname), "").label("nickname")
    contest = (col(Contest.hide_totals), col(Contest.settled_at))
    return (
        select(*Entry.__table__.c, votes, nickname, *contest)  # type: ignore[attr-defined]  # SQLModel hides it
        .join(Contest, col(Contest.id) == col(Entry.contest_id))
        .outerjoin(Tally, col(Tally.entry_id) == col(Entry.id))
        .outerjoin(MemberCard, col(MemberCard.member_id) == col(Entry.member_id))
    )


async def shown(session: AsyncSession, rows: list[Any], address: str) -> list[dict[str, Any]]:
    """Rows of `with_votes` as EntryOut's fields, with their pictures."""
    images: dict[UUID, list[dict[str, Any]]] = {row.id: [] for row in rows}
    found = await session.execute(
        select(col(EntryImage.entry_id), *Upload.__table__.c)  # type: ignore[attr-defined]  # as above
        .join(Upload, col(Upload.id) == col(EntryImage.upload_id))
        .where(col(EntryImage.entry_id).in_(images))
        .order_by(col(EntryImage.entry_id), col(EntryImage.position))
    )
    for image in found:
        images[image.entry_id].append(image_out(image, address))
    return [
        {
            "id": row.id,
            "contest_id": row.contest_id,
            "member": {"id": row.member_id, "nickname": row.nickname},
            "title": row.title,
            "story": row.story,
            "images": images[row.id],
            "lesson_id": row.lesson_id,
            "status": row.status,
            "reason": row.reason,
            "votes": None if totals_hidden(row) else row.votes,
            "submitted_at": row.submitted_at,
        }
        for row in rows
    ]


async def show_one(session: AsyncSession, entry_id: UUID, address: str) -> dict[str, Any]:
    """One entry as EntryOut's fields, whatever its status; raises EntryNotFound."""
    rows = (await session.execute(with_votes().where(col(Entry.id) == entry_id))).all()
    if not rows:
        raise EntryNotFound
    return (await shown(session, list(rows), address))[0]


async def approve(session: AsyncSession, entry: Entry, now: datetime) -> None:
    """Put an entry on show; the first time is told to the others."""
    if entry.approved_at is None:
        entry.approved_at = now
        await emit(
            session,
            EntryApproved(
                entry_id=entry.id,
                contest_id=entry.contest_id,
                member_id=entry.member_id,
                lesson_id=entry.lesson_id,
                approved_at=now,
            ),
        )
    entry.status, entry.reason = "approved", None


@api.post(
    "/contests/{contest_id}/entries",
    status_code=201,
    response_model=EntryOut,
    responses=problems(ContestNotFound, ContestClosed, UploadUnknown, UploadUsed),
)
async def submit_entry(
    contest_id: UUID, body: EntryIn, caller: MemberDep, session: SessionDep, address: AddressDep
) -> Response:
    """Put a work into an open contest; in one that moderates first it waits for approval."""
    # Shared lock: whoever settles the contest waits for the works that came in time, and then takes no more.
    contest = await session.get(Contest, contest_id, with_for_update={"read": True})
    if contest is None:
        raise ContestNotFound
    now = clock.now()
    if phase_of(contest, now) != "open":
        raise ContestClosed
    await _require_uploads(session, caller.id, body.upload_ids)
    entry = Entry(
        contest_id=contest_id,
        member_id=caller.id,
        title=body.title,
        story=body.story,
        lesson_id=body.lesson_id,
        status="pending",
        submitted_at=now,
    )
    if contest.moderation == "post":
        await approve(session, entry, now)
    session.add(entry)
    await session.flush()
    await session.execute(insert(Tally).values(entry_id=entry.id, votes=0))
    await _hang(session, entry, body.upload_ids)
    if entry.status == "approved":
        await tell_lesson(session, entry, address)
    return json_response(await show_one(session, entry.id, address), 201, PRIVATE)


async def _require_uploads(session: AsyncSession, member_id: UUID, wanted: list[UUID]) -> None:
    own = await session.scalars(
        select(col(Upload.id)).where(col(Upload.id).in_(wanted), col(Upload.member_id) == member_id, col(Upload.stored))
    )
    if missing := set(wanted) - set(own):
        raise UploadUnknown(extra={"upload_ids": sorted(map(str, missing))})


async def _hang(session: AsyncSession, entry: Entry, uploads: list[UUID]) -> None:
    rows = [
        {"entry_id": entry.id, "position": place, "contest_id": entry.contest_id, "upload_id": item, "standing": True}
        for place, item in enumerate(uploads)
    ]
    hung = await session.execute(
        upsert(EntryImage).values(rows).on_conflict_do_nothing().returning(col(EntryImage.position))
    )
    if len(hung.all()) < len(rows):
        raise UploadUsed


@api.get("/entries", response_model=Page[EntryOut])
async def list_own_entries(caller: MemberDep, session: SessionDep, page: PageDep, address: AddressDep) -> Response:
    """The caller's own works in all contests, whatever their status, the latest first."""
    found = with_votes().where(col(Entry.member_id) == caller.id)
    rows, next_cursor = await keyset(session, found, page, (col(Entry.id).desc(),))
    return json_response({"items": await shown(session, rows, address), "next_cursor": next_cursor}, headers=PRIVATE)


@api.get("/entries/{entry_id}", response_model=EntryOut, responses=problems(EntryNotFound))
async def read_entry(entry_id: UUID, caller: OptionalMemberDep, session: SessionDep, address: AddressDep) -> Response:
    """One work: approved ones for everybody, others for their author."""
    entry = await show_one(session, entry_id, address)
    if entry["status"] != "approved" and not _is_author(entry["member"]["id"], caller):
        raise EntryNotFound
    return json_response(entry, headers=PRIVATE)


@api.delete("/entries/{entry_id}", status_code=204, responses=problems(EntryNotFound, NotYourEntry))
async def withdraw_entry(entry_id: UUID, caller: MemberDep, session: SessionDep, address: AddressDep) -> None:
    """Withdraw an own work; its pictures may then be entered again."""
    entry = await session.get(Entry, entry_id, with_for_update=True)
    if entry is None or (entry.status != "approved" and not _is_author(entry.member_id, caller)):
        raise EntryNotFound
    if not _is_author(entry.member_id, caller):
        raise NotYourEntry
    was_shown = entry.status == "approved"
    entry.status = "withdrawn"
    await session.execute(update(EntryImage).where(col(EntryImage.entry_id) == entry_id).values(standing=False))
    if was_shown:
        await tell_lesson(session, entry, address)


def _is_author(member_id: UUID, caller: Caller | None) -> bool:
    return caller is not None and caller.id == member_id
