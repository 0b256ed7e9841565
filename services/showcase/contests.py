"""Contests: calls for works, whose phase follows from the clock."""

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import ColumnElement, Select, false, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.http import cacheable
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.showcase.models import Contest, Entry
from services.showcase.prizes import Prize

api = router(prefix="/v1/contests", tags=["contests"])

Phase = Literal["upcoming", "open", "closed", "settled"]
FRESH_S = 2
TIE_CHAIN: Final = ("votes", "trees", "reached_at", "submitted_at", "entry_id")
"""What decides a rank, key by key: votes, voters from distinct invite trees, when the last vote came, when the work did."""


class ContestNotFound(NotFound):
    """There is no such contest."""

    zh = "没有这个比赛。"


class ContestClosed(Conflict):
    """This contest is not open now: works and votes count from its start to its end."""

    zh = "比赛现在没有开放：只有在开始和结束之间才能参赛和投票。"


class ContestOut(Out):
    """A contest; `entries` is how many works stand in it, `tie_chain` what will decide between equal votes, key by key."""

    id: UUID
    title: str
    rules: str
    phase: Phase
    starts_at: Instant
    ends_at: Instant
    votes_per_day: int
    accounts_before: Instant
    moderation: Literal["pre", "post"]
    hide_totals: bool
    prizes: list[Prize]
    entries: int
    settled_at: Instant | None
    tie_chain: list[str]


def phase_of(contest: Any, now: datetime) -> Phase:
    """The phase at an instant, of a Contest or a row with its columns; the end itself is closed."""
    if contest.settled_at is not None:
        return "settled"
    if now < contest.starts_at:
        return "upcoming"
    return "open" if now < contest.ends_at else "closed"


def totals_hidden(contest: Any) -> bool:
    """Whether nobody may see how many votes there are: until the results are out."""
    return bool(contest.hide_totals) and contest.settled_at is None


def with_entries() -> Select[Any]:
    """Contests with how many works stand in each."""
    standing = (
        select(func.count())
        .where(col(Entry.contest_id) == col(Contest.id), col(Entry.status) == "approved")
        .correlate(Contest)
        .scalar_subquery()
    )
    return select(*Contest.__table__.c, standing.label("entries"))  # type: ignore[attr-defined]  # SQLModel hides it


def shown(row: Any) -> dict[str, Any]:
    """A row of `with_entries` as ContestOut's fields."""
    fields = {name: getattr(row, name) for name in ContestOut.model_fields if name not in ("phase", "tie_chain")}
    return fields | {"phase": phase_of(row, clock.now()), "tie_chain": TIE_CHAIN}


async def load_contest(session: AsyncSession, contest_id: UUID) -> Any:
    """One row of `with_entries`; raises ContestNotFound."""
    row = (await session.execute(with_entries().where(col(Contest.id) == contest_id))).one_or_none()
    if row is None:
        raise ContestNotFound
    return row


def _in_phase(phase: Phase) -> ColumnElement[bool]:
    now = clock.now()
    starts_at, ends_at, settled_at = col(Contest.starts_at), col(Contest.ends_at), col(Contest.settled_at)
    if phase == "settled":
        return settled_at.is_not(None)
    spans = {"upcoming": starts_at > now, "open": (starts_at <= now) & (ends_at > now), "closed": ends_at <= now}
    return spans.get(phase, false()) & settled_at.is_(None)


@api.get("", response_model=Page[ContestOut])
async def list_contests(request: Request, session: SessionDep, page: PageDep, phase: Phase | None = None) -> Response:
    """The contests, the one that ends last first."""
    found = with_entries()
    if phase is not None:
        found = found.where(_in_phase(phase))
    rows, next_cursor = await keyset(session, found, page, (col(Contest.ends_at).desc(), col(Contest.id).desc()))
    items = [shown(row) for row in rows]
    return cacheable(request, {"items": items, "next_cursor": next_cursor}, max_age_s=FRESH_S)


@api.get("/{contest_id}", response_model=ContestOut, responses=problems(ContestNotFound))
async def read_contest(contest_id: UUID, request: Request, session: SessionDep) -> Response:
    """One contest."""
    return cacheable(request, shown(await load_contest(session, contest_id)), max_age_s=FRESH_S)
