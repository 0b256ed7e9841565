"""Votes: members vote for works, a few a day, and may take a vote back while the contest is open."""

from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from fastapi import Request, Response
from sqlalchemy import text

from kit import clock
from kit.app import RuntimeDep, router, shortcut
from kit.auth import MemberDep
from kit.db import Database, SessionDep
from kit.errors import problems
from kit.group import GroupCommit, QueueFull
from kit.http import json_response
from kit.idempotency import answers_in_group
from kit.shapes import Out
from services.showcase.ballots import REFUSALS, Ballot, Standing, VoteNotFound, VotesBusy, cast
from services.showcase.contests import ContestClosed
from services.showcase.entries import PRIVATE, EntryNotFound
from services.showcase.signals import VISITOR_HEADER, signals_of
from services.showcase.standings import standings_of

api = router(prefix="/v1/entries/{entry_id}/votes", tags=["votes"])

_groups: WeakKeyDictionary[Database, GroupCommit[Ballot, Standing]] = WeakKeyDictionary()


class VoteOut(Out):
    """The work's votes now, null while the contest hides them, and how many the caller has left today."""

    entry_votes: int | None
    votes_left_today: int


@api.post(
    "",
    status_code=201,
    response_model=VoteOut,
    responses=problems(*REFUSALS.values(), VotesBusy, QueueFull),
    openapi_extra=VISITOR_HEADER,
)
@shortcut
@answers_in_group
async def vote_for_entry(entry_id: UUID, request: Request, caller: MemberDep, rt: RuntimeDep) -> Response:
    """Vote for a work: once a day, never one's own, a few times a day in each contest."""
    ballot = Ballot(entry_id, caller.id, *signals_of(request, rt))
    standing, response = await _group_of(rt.db).answer(request, ballot, _counted)
    if standing is not None:
        standings_of(rt).note(standing.contest_id, entry_id, standing.votes, standing.changes)
    return response


def _counted(standing: Standing) -> Response:
    return _shown(standing.entry_votes, standing.votes_left_today, 201)


_TAKE_BACK = text("""
WITH held AS MATERIALIZED (
    SELECT c.*, e.status FROM entry e JOIN contest c ON c.id = e.contest_id WHERE e.id = :entry FOR SHARE OF c
), judged AS MATERIALIZED (
    SELECT *, settled_at IS NULL AND starts_at <= :now AND ends_at > :now AS is_open FROM held
), gone AS (
    DELETE FROM vote WHERE entry_id = :entry AND member_id = :member AND (SELECT is_open FROM judged)
        AND day = (SELECT max(day) FROM vote WHERE entry_id = :entry AND member_id = :member)
    RETURNING day, quarantine
), counted AS (
    UPDATE tally SET votes = votes - CASE WHEN gone.quarantine IS NULL THEN 1 ELSE 0 END, changes = changes + 1
    FROM gone WHERE entry_id = :entry RETURNING votes
)
SELECT j.is_open, j.status, CASE WHEN NOT j.hide_totals THEN counted.votes END AS entry_votes,
    j.id AS contest_id,
    (SELECT day FROM gone) AS gone_day,
    j.votes_per_day - (
        SELECT count(*) FROM vote v WHERE v.contest_id = j.id AND v.member_id = :member AND v.day = :day
    ) + (SELECT count(*) FROM gone WHERE gone.day = :day) AS votes_left
FROM judged j LEFT JOIN counted ON true
""")


@api.delete("", response_model=VoteOut, responses=problems(EntryNotFound, VoteNotFound, ContestClosed))
async def take_back_vote(entry_id: UUID, caller: MemberDep, session: SessionDep, rt: RuntimeDep) -> Response:
    """Take back the caller's latest vote for a work while its contest is open; it may be cast again the same day."""
    now = clock.now()
    values: dict[str, Any] = {"entry": entry_id, "member": caller.id, "now": now}
    row = (await session.execute(_TAKE_BACK, values | {"day": now.astimezone(clock.ZONE).date()})).one_or_none()
    if row is None:
        raise EntryNotFound
    if not row.is_open:
        raise ContestClosed
    if row.gone_day is None:
        raise VoteNotFound if row.status == "approved" else EntryNotFound
    standings_of(rt).doubt(row.contest_id)
    return _shown(row.entry_votes, row.votes_left, 200)


def _shown(entry_votes: int | None, left: int, status: int) -> Response:
    return json_response({"entry_votes": entry_votes, "votes_left_today": left}, status, PRIVATE)


def _group_of(db: Database) -> GroupCommit[Ballot, Standing]:
    group = _groups.get(db)
    if group is None:
        group = _groups[db] = GroupCommit(db, cast, name="votes", at_once=2, commits_itself=True)
    return group
