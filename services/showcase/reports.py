"""Reports: members say what is wrong with a work or a comment, and admins uphold or dismiss it."""

from typing import Any, Final, Literal, Self
from uuid import UUID

from fastapi import Request, Response
from pydantic import model_validator
from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberErased
from contracts.showcase import ReportUpheld
from kit import audit, clock
from kit.app import router
from kit.auth import MemberDep, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, Forbidden, NotFound, TooManyRequests, problems
from kit.events import emit
from kit.http import json_response
from kit.limits import limit
from kit.page import Page, PageDep, keyset
from kit.shapes import In, Instant, Out, StrictIn, Text
from kit.wording import Wrong
from services.showcase.comments import CommentNotFound
from services.showcase.entries import PRIVATE, EntryNotFound
from services.showcase.lesson_works import tell_lesson
from services.showcase.models import Comment, Entry
from services.showcase.report_models import Report
from services.showcase.uploads import AddressDep

api = router(prefix="/v1/entries/{entry_id}", tags=["entries"])
admin_api = router(prefix="/v1/admin/reports", tags=["admin contests"])

Reason = Literal["spam", "stolen", "offensive", "unsafe", "other"]
ReportStatus = Literal["open", "upheld", "dismissed"]
AN_HOUR: Final = 30
# What was reported may still have to be taken down, whoever said so.
_FORGET: Final = (
    text("UPDATE report SET member_id = gen_random_uuid(), text = '' WHERE member_id = :id"),
    text("UPDATE report SET author_id = gen_random_uuid(), quote = '' WHERE author_id = :id"),
)


class OwnContent(Forbidden):
    """This is your own; withdraw or delete it instead of reporting it."""

    zh = "这是你自己的内容，请直接撤回或删除，不需要举报。"


class ReportNotFound(NotFound):
    """There is no such report."""

    zh = "没有这条举报。"


class ReportDecided(Conflict):
    """This report was decided otherwise already; what was decided stands."""

    zh = "这条举报已有不同的处理结果，不能再更改。"


class ReportIn(In):
    """What is wrong; `other` says it in words."""

    reason: Reason
    text: Text(0, 500) = ""  # type: ignore[valid-type]  # Text() makes a type

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if self.reason == "other" and not self.text:
            raise Wrong("say in text what is wrong", "请在 text 中说明问题")
        return self


class ReportOut(Out):
    """A report as its author sees it."""

    id: UUID
    entry_id: UUID
    comment_id: UUID | None
    reason: Reason
    text: str
    status: ReportStatus
    created_at: Instant


class ReportDetail(ReportOut):
    """A report as admins see it: who reported what of whom, and what was decided and why."""

    member_id: UUID
    author_id: UUID
    quote: str
    decision: str | None
    decided_at: Instant | None


class ReportDecision(StrictIn):
    """What becomes of a report; the author of what is taken down sees the reason."""

    decision: Literal["uphold", "dismiss"]
    reason: Text(1, 500)  # type: ignore[valid-type]  # Text() makes a type


@api.post(
    "/reports",
    status_code=201,
    response_model=ReportOut,
    responses=problems(EntryNotFound, OwnContent, TooManyRequests),
)
async def report_entry(
    entry_id: UUID, body: ReportIn, request: Request, caller: MemberDep, session: SessionDep
) -> Response:
    """Report a work; a second report of the same by the same member answers 200 with the first."""
    entry = await _shown_entry(session, entry_id)
    about = {"entry_id": entry_id, "comment_id": None, "author_id": entry.member_id, "quote": entry.title}
    return await _report(request, session, caller.id, about, body)


@api.post(
    "/comments/{comment_id}/reports",
    status_code=201,
    response_model=ReportOut,
    responses=problems(EntryNotFound, CommentNotFound, OwnContent, TooManyRequests),
)
async def report_comment(
    entry_id: UUID, comment_id: UUID, body: ReportIn, request: Request, caller: MemberDep, session: SessionDep
) -> Response:
    """Report a comment; a second report of the same by the same member answers 200 with the first."""
    await _shown_entry(session, entry_id)
    comment = await session.get(Comment, comment_id)
    if comment is None or comment.entry_id != entry_id:
        raise CommentNotFound
    about = {"entry_id": entry_id, "comment_id": comment_id, "author_id": comment.member_id, "quote": comment.text}
    return await _report(request, session, caller.id, about, body)


async def _shown_entry(session: AsyncSession, entry_id: UUID) -> Entry:
    entry = await session.get(Entry, entry_id)
    if entry is None or entry.status != "approved":
        raise EntryNotFound
    return entry


async def _report(
    request: Request, session: AsyncSession, member_id: UUID, about: dict[str, Any], body: ReportIn
) -> Response:
    if about["author_id"] == member_id:
        raise OwnContent
    await limit(request, "reports", str(member_id), times=AN_HOUR, seconds=3600)
    made = Report(**about, **body.model_dump(), member_id=member_id, created_at=clock.now())
    added = await session.execute(
        insert(Report).values(made.model_dump()).on_conflict_do_nothing().returning(col(Report.id))
    )
    if added.one_or_none() is not None:
        return json_response(_told(made), 201, PRIVATE)
    same = (col(Report.member_id) == member_id, *_of(made))
    first = (await session.execute(select(Report).where(*same))).scalar_one()
    return json_response(_told(first), 200, PRIVATE)


def _of(report: Report) -> tuple[Any, ...]:
    """The condition of all reports of the same thing."""
    return (col(Report.entry_id) == report.entry_id, col(Report.comment_id).is_not_distinct_from(report.comment_id))


def _told(report: Report) -> dict[str, Any]:
    return report.model_dump(include=set(ReportOut.model_fields))


@admin_api.get("", dependencies=[admin_with("contests:read")], response_model=Page[ReportDetail])
async def list_reports(session: SessionDep, page: PageDep, status: ReportStatus = "open") -> Response:
    """Reports by status, the one that has waited longest first."""
    found = select(Report).where(col(Report.status) == status)
    rows, next_cursor = await keyset(session, found, page, (col(Report.id).asc(),))
    return json_response({"items": [row.model_dump() for row in rows], "next_cursor": next_cursor})


@admin_api.post(
    "/{report_id}/resolution",
    dependencies=[admin_with("contests:write")],
    response_model=ReportDetail,
    responses=problems(ReportNotFound, ReportDecided),
)
async def resolve_report(report_id: UUID, body: ReportDecision, session: SessionDep, address: AddressDep) -> Response:
    """Uphold a report, which takes down what it is about, or dismiss it; with it all open ones of the same."""
    report = await session.get(Report, report_id)
    if report is None:
        raise ReportNotFound
    # Whoever decides another report of the same waits here.
    entry = await session.get_one(Entry, report.entry_id, with_for_update=True)
    await session.refresh(report)
    status = "upheld" if body.decision == "uphold" else "dismissed"
    if report.status != "open":
        if report.status != status:
            raise ReportDecided
        return json_response(report.model_dump())
    now = clock.now()
    decided = (
        update(Report)
        .where(*_of(report), col(Report.status) == "open")
        .values(status=status, decision=body.reason, decided_at=now)
        .returning(col(Report.id), col(Report.member_id))
    )
    reporters = (await session.execute(decided)).all()
    await session.refresh(report)
    if body.decision == "uphold":
        await _take_down(session, report, entry, address)
        news = (ReportUpheld(report_id=row.id, member_id=row.member_id, upheld_at=now) for row in reporters)
        await emit(session, *news)
    await audit.record(session, f"report.{status}", report_id, after=report.model_dump())
    return json_response(report.model_dump())


async def _take_down(session: AsyncSession, report: Report, entry: Entry, address: str) -> None:
    if report.comment_id is not None:
        await session.execute(delete(Comment).where(col(Comment.id) == report.comment_id))
    # In a settled contest the published place stands, and the work is not shown any more.
    elif entry.status != "withdrawn":
        entry.status, entry.reason = "rejected", report.decision
        await session.flush()
        await tell_lesson(session, entry, address)


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget who reported, in which words, and the words of theirs that were reported."""
    for statement in _FORGET:
        await session.execute(statement, {"id": event.member_id})
