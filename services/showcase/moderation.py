"""Moderation: admins approve works and reject them, with a reason their author sees."""

from typing import Literal, Self
from uuid import UUID

from fastapi import Response
from pydantic import model_validator
from sqlmodel import col

from kit import audit, clock
from kit.app import router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.errors import Conflict, problems
from kit.http import json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import StrictIn, Text
from kit.wording import Wrong
from services.showcase.duplicates import HAS_DUPLICATE, duplicates_of
from services.showcase.entries import EntryNotFound, EntryOut, Status, approve, show_one, shown, with_votes
from services.showcase.lesson_works import tell_lesson
from services.showcase.models import Contest, Entry
from services.showcase.uploads import AddressDep

api = router(prefix="/v1/admin/entries", tags=["admin contests"])

READER = [admin_with("contests:read")]
MODERATOR = [admin_with("contests:write")]


class EntryWithdrawn(Conflict):
    """Its author has withdrawn this work; there is nothing left to decide."""

    zh = "作者已经撤回了这件作品，无需再审核。"


class ContestSettled(Conflict):
    """This contest is settled and its results stand; a work can still be rejected, but none is let in any more."""

    zh = "比赛已经结算，结果不再改变：仍可驳回作品，但不能再通过新的作品。"


class ModeratedEntry(EntryOut):
    """A work as moderators see it; `same_picture` are the works of its contest that show a picture of it, too."""

    same_picture: list[UUID]


class DecisionIn(StrictIn):
    """A decision; a rejection names its reason."""

    decision: Literal["approve", "reject"]
    reason: Text(0, 500) = ""  # type: ignore[valid-type]  # Text() makes a type

    @model_validator(mode="after")
    def _is_explained(self) -> Self:
        if self.decision == "reject" and not self.reason:
            raise Wrong("a rejection needs a reason", "驳回时请写明原因")
        return self


@api.get("", dependencies=READER, response_model=Page[ModeratedEntry])
async def list_entries_to_moderate(
    session: SessionDep,
    page: PageDep,
    address: AddressDep,
    contest_id: UUID | None = None,
    status: Status = "pending",
    *,
    same_picture: bool = False,
) -> Response:
    """Works by status, the one that has waited longest first; only those that share a picture, where that is asked."""
    found = with_votes().where(col(Entry.status) == status)
    if same_picture:
        found = found.where(HAS_DUPLICATE)
    if contest_id is not None:
        found = found.where(col(Entry.contest_id) == contest_id)
    rows, next_cursor = await keyset(session, found, page, (col(Entry.id).asc(),))
    items = await shown(session, rows, address)
    duplicates = await duplicates_of(session, [item["id"] for item in items])
    items = [item | {"same_picture": duplicates[item["id"]]} for item in items]
    return json_response({"items": items, "next_cursor": next_cursor})


@api.post(
    "/{entry_id}/moderation",
    dependencies=MODERATOR,
    response_model=EntryOut,
    responses=problems(EntryNotFound, EntryWithdrawn, ContestSettled),
)
async def moderate_entry(entry_id: UUID, body: DecisionIn, session: SessionDep, address: AddressDep) -> Response:
    """Approve or reject a work; deciding the same again changes nothing.

    A work that is rejected after its contest was settled is not shown any more; the place it took stays published.
    """
    entry = await session.get(Entry, entry_id)
    if entry is None:
        raise EntryNotFound
    contest = await session.get(Contest, entry.contest_id, with_for_update={"read": True})
    await session.refresh(entry, with_for_update=True)
    if entry.status == "withdrawn":
        raise EntryWithdrawn
    if contest is None or (contest.settled_at is not None and body.decision == "approve"):
        raise ContestSettled
    before = {"status": entry.status, "reason": entry.reason}
    if body.decision == "approve":
        await approve(session, entry, clock.now())
    else:
        entry.status, entry.reason = "rejected", body.reason
    await session.flush()
    after = {"status": entry.status, "reason": entry.reason}
    if before["status"] != after["status"] and "approved" in {before["status"], after["status"]}:
        await tell_lesson(session, entry, address)
    await audit.record(session, "entry.moderated", entry_id, before=before, after=after)
    return json_response(await show_one(session, entry_id, address))
