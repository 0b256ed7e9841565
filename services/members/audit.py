"""The audit log: every act of an admin in any service, with what was before and after."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.audit import AdminActed, fit
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Out
from services.members.models import AuditEntry

api = router(prefix="/v1/admin/audit", tags=["admin members"])


class AuditOut(Out):
    """Who did what to whom, and how it was before and after."""

    id: UUID
    actor: UUID
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    at: Instant


def record(
    session: AsyncSession,
    actor: Caller,
    action: str,
    target: UUID,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Note an admin's act in the transaction of the act itself."""
    entry = AuditEntry(actor=actor.id, action=action, target=str(target), at=clock.now())
    entry.before, entry.after = fit(before), fit(after)
    session.add(entry)


async def on_admin_acted(session: AsyncSession, event: AdminActed) -> None:
    """Keep what an admin did in another service."""
    row = {
        "id": event.id,
        "actor": event.actor_id,
        "action": event.action,
        "target": event.target,
        "before": event.before,
        "after": event.after,
        "at": event.at,
    }
    await session.execute(insert(AuditEntry).values(row).on_conflict_do_nothing())


@api.get("", dependencies=[admin_with("audit:read")])
async def read_audit(
    session: SessionDep,
    page: PageDep,
    target: Annotated[CleanStr | None, Query(max_length=100)] = None,
    actor: UUID | None = None,
) -> Page[AuditOut]:
    """Admin acts, newest first, of one admin or on one target."""
    statement = select(AuditEntry)
    if target is not None:
        statement = statement.where(col(AuditEntry.target) == target)
    if actor is not None:
        statement = statement.where(col(AuditEntry.actor) == actor)
    order = (col(AuditEntry.at).desc(), col(AuditEntry.id).desc())
    entries, next_cursor = await keyset(session, statement, page, order)
    return Page(items=[AuditOut.model_validate(entry) for entry in entries], next_cursor=next_cursor)
