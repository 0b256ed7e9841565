"""Quarantine: a named rule takes votes out of a running or finished contest without deleting them, and may put them back."""

from typing import Any, Final
from uuid import UUID

from fastapi import Response
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import RuntimeDep, router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.errors import problems
from kit.http import json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.showcase.contests import ContestNotFound
from services.showcase.integrity_models import QuarantineRun
from services.showcase.models import Contest
from services.showcase.moderation import ContestSettled
from services.showcase.signals import refresh_signals
from services.showcase.standings import standings_of
from services.showcase.vote_rules import RuleIn, RuleName, find_votes

api = router(prefix="/v1/admin/contests/{contest_id}/quarantine", tags=["admin contests"])

READER = [admin_with("contests:read")]
EDITOR = [admin_with("contests:write")]


class QuarantineOut(Out):
    """What a rule found: votes that counted and fall under it, those of them it takes out, and for how many works."""

    rule: RuleName
    dry_run: bool
    matched: int
    votes: int
    entries: int


class ReleaseOut(Out):
    """Votes that count again, and for how many works."""

    rule: RuleName
    votes: int
    entries: int


class RunOut(Out):
    """A rule that was run; `params` is null where it was lifted and its votes count again."""

    id: UUID
    rule: RuleName
    params: dict[str, Any] | None
    votes: int
    entries: int
    at: Instant


_FOUND: Final = text("SELECT count(*) AS votes, count(DISTINCT entry_id) AS entries FROM under_rule")
# In the order of entries, as a batch of votes writes them.
_TAKE_OUT: Final = text("""
WITH taken AS (
    UPDATE vote SET quarantine = :rule FROM under_rule u
    WHERE vote.entry_id = u.entry_id AND vote.member_id = u.member_id AND vote.day = u.day AND vote.quarantine IS NULL
    RETURNING vote.entry_id
), counted AS (
    UPDATE tally SET votes = votes - lost.n, changes = changes + 1
    FROM (SELECT entry_id, count(*) AS n FROM taken GROUP BY entry_id ORDER BY entry_id) lost
    WHERE tally.entry_id = lost.entry_id RETURNING lost.n
)
SELECT CAST(coalesce(sum(n), 0) AS int) AS votes, count(*) AS entries FROM counted
""")
_PUT_BACK: Final = text("""
WITH taken AS (
    UPDATE vote SET quarantine = NULL WHERE contest_id = :contest AND quarantine = :rule RETURNING entry_id
), counted AS (
    UPDATE tally SET votes = votes + won.n, changes = changes + 1
    FROM (SELECT entry_id, count(*) AS n FROM taken GROUP BY entry_id ORDER BY entry_id) won
    WHERE tally.entry_id = won.entry_id RETURNING won.n
)
SELECT CAST(coalesce(sum(n), 0) AS int) AS votes, count(*) AS entries FROM counted
""")


@api.post("", dependencies=EDITOR, response_model=QuarantineOut, responses=problems(ContestNotFound, ContestSettled))
async def quarantine_votes(contest_id: UUID, body: RuleIn, session: SessionDep, rt: RuntimeDep) -> Response:
    """Take out the votes that fall under a rule, or, in a dry run, say how many that are; they stay, and do not count."""
    await _unsettled(session, contest_id, only_look=body.dry_run)
    await refresh_signals(session, contest_id)
    await find_votes(session, contest_id, body)
    if body.dry_run:
        found = (await session.execute(_FOUND)).one()
        await _note(session, contest_id, None)
    else:
        found = (await session.execute(_TAKE_OUT, {"rule": body.rule})).one()
        await _note(session, contest_id, found, body.rule, body.params.model_dump())
        standings_of(rt).doubt(contest_id)
    counts = {"matched": found.votes, "votes": found.votes, "entries": found.entries}
    return json_response({"rule": body.rule, "dry_run": body.dry_run} | counts)


@api.get("", dependencies=READER, response_model=Page[RunOut], responses=problems(ContestNotFound))
async def list_quarantine(contest_id: UUID, session: SessionDep, page: PageDep) -> Page[RunOut]:
    """The rules that were run over a contest's votes and took any out, or were lifted; the last one first."""
    if await session.get(Contest, contest_id) is None:
        raise ContestNotFound
    found = select(QuarantineRun).where(col(QuarantineRun.contest_id) == contest_id)
    rows, next_cursor = await keyset(session, found, page, (col(QuarantineRun.id).desc(),))
    return Page(items=[RunOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@api.delete(
    "/{rule}", dependencies=EDITOR, response_model=ReleaseOut, responses=problems(ContestNotFound, ContestSettled)
)
async def lift_quarantine(contest_id: UUID, rule: RuleName, session: SessionDep, rt: RuntimeDep) -> Response:
    """Let the votes that a rule took out count again; lifting it once more changes nothing."""
    await _unsettled(session, contest_id)
    found = (await session.execute(_PUT_BACK, {"contest": contest_id, "rule": rule})).one()
    await _note(session, contest_id, found, rule)
    standings_of(rt).doubt(contest_id)
    return json_response({"rule": rule, "votes": found.votes, "entries": found.entries})


async def _unsettled(session: AsyncSession, contest_id: UUID, *, only_look: bool = False) -> None:
    """Hold the contest: nobody settles it or runs another rule meanwhile; nobody votes either, unless we only look."""
    contest = await session.get(Contest, contest_id, with_for_update={"read": True} if only_look else True)
    if contest is None:
        raise ContestNotFound
    if contest.settled_at is not None:
        raise ContestSettled


async def _note(
    session: AsyncSession, contest_id: UUID, found: Any, rule: str = "", params: dict[str, Any] | None = None
) -> None:
    """Keep what was done for the report, and tell the audit; what took nothing out and put nothing back is no act."""
    action = "contest.votes_quarantined" if params is not None else "contest.votes_released"
    if found is None or not found.votes:
        await audit.record(session, action, contest_id, before={}, after={})
        return
    what: dict[str, Any] = {"rule": rule, "params": params, "votes": found.votes, "entries": found.entries}
    session.add(QuarantineRun(contest_id=contest_id, at=clock.now(), **what))
    await audit.record(session, action, contest_id, after=what)
