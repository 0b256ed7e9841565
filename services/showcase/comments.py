"""Comments: what members write under a work."""

from typing import Any
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import Select, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.showcase import CommentPosted
from kit import clock
from kit.app import router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Forbidden, NotFound, TooManyRequests, problems
from kit.events import emit
from kit.http import json_response
from kit.ids import new_id
from kit.limits import limit
from kit.page import Page, PageDep, keyset
from kit.shapes import In, Instant, Out, Text
from services.showcase.cards import MemberOut
from services.showcase.entries import PRIVATE, EntryNotFound
from services.showcase.models import Comment, Entry, MemberCard

api = router(prefix="/v1/entries/{entry_id}/comments", tags=["entries"])


class CommentNotFound(NotFound):
    """There is no such comment under this work; it may have been removed."""

    zh = "这件作品下没有这条评论，它可能已被删除。"


class NotYourComment(Forbidden):
    """Only its author may take back a comment; report it if it should not be here."""

    zh = "只有作者本人可以删除评论；如果内容不当，请举报。"


class CommentIn(In):
    """What to say."""

    text: Text(1, 2000)  # type: ignore[valid-type]  # Text() makes a type


class CommentOut(Out):
    """A comment."""

    id: UUID
    member: MemberOut
    text: str
    created_at: Instant


@api.get("", response_model=Page[CommentOut], responses=problems(EntryNotFound))
async def list_comments(entry_id: UUID, session: SessionDep, page: PageDep) -> Response:
    """The comments under a work, the latest first."""
    await _require_on_show(session, entry_id)
    found = _with_authors().where(col(Comment.entry_id) == entry_id)
    rows, next_cursor = await keyset(session, found, page, (col(Comment.id).desc(),))
    return json_response({"items": [_shown(row) for row in rows], "next_cursor": next_cursor}, headers=PRIVATE)


@api.post("", status_code=201, response_model=CommentOut, responses=problems(EntryNotFound, TooManyRequests))
async def comment_on_entry(
    entry_id: UUID, body: CommentIn, request: Request, caller: MemberDep, session: SessionDep
) -> Response:
    """Write under a work."""
    await limit(request, "comments", str(caller.id), times=30, seconds=60)
    await _require_on_show(session, entry_id)
    row = {"id": new_id(), "entry_id": entry_id, "member_id": caller.id, "text": body.text, "created_at": clock.now()}
    await session.execute(insert(Comment).values(row))
    fact = {"comment_id": row["id"], "posted_at": row["created_at"]}
    await emit(session, CommentPosted(entry_id=entry_id, member_id=caller.id, **fact))
    written = (await session.execute(_with_authors().where(col(Comment.id) == row["id"]))).one()
    return json_response(_shown(written), 201, PRIVATE)


@api.delete("/{comment_id}", status_code=204, responses=problems(CommentNotFound, NotYourComment))
async def delete_comment(entry_id: UUID, comment_id: UUID, caller: MemberDep, session: SessionDep) -> None:
    """Take back an own comment."""
    comment = await session.get(Comment, comment_id, with_for_update=True)
    if comment is None or comment.entry_id != entry_id:
        raise CommentNotFound
    if comment.member_id != caller.id:
        raise NotYourComment
    await session.delete(comment)


async def _require_on_show(session: AsyncSession, entry_id: UUID) -> None:
    entry = await session.get(Entry, entry_id)
    if entry is None or entry.status != "approved":
        raise EntryNotFound


def _with_authors() -> Select[Any]:
    nickname = func.coalesce(col(MemberCard.nickname), "").label("nickname")
    return select(*Comment.__table__.c, nickname).outerjoin(  # type: ignore[attr-defined]  # SQLModel hides it
        MemberCard, col(MemberCard.member_id) == col(Comment.member_id)
    )


def _shown(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "member": {"id": row.member_id, "nickname": row.nickname},
        "text": row.text,
        "created_at": row.created_at,
    }
