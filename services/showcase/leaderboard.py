"""Leaderboards: the works of a contest by votes, found in Redis, held against the rows that are shown."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import Runtime, RuntimeDep, router
from kit.db import SessionDep
from kit.errors import problems
from kit.http import cacheable
from kit.shapes import Digits, Out
from services.showcase.cards import MemberOut
from services.showcase.contests import ContestNotFound, totals_hidden
from services.showcase.standings import RedisAway, standings_of

api = router(prefix="/v1/contests/{contest_id}/leaderboard", tags=["contests"])

TRIES: Final = 3
"""While votes come in, rows and copy differ for a moment; after so many looks the rows have the last word."""


class LeaderOut(Out):
    """A work and its rank; equal votes share one (1, 2, 2, 4), `votes` is null while they are hidden."""

    rank: int
    entry_id: UUID
    title: str
    votes: int | None
    member: MemberOut


class LeaderboardOut(Out):
    """The works with the most votes."""

    items: list[LeaderOut]


Limit = Annotated[int, Query(ge=1, le=100, description="how many at most"), Digits]

_CONTEST: Final = text("SELECT hide_totals, settled_at FROM contest WHERE id = :contest")
_SHOWN: Final = """
SELECT e.id, e.title, e.member_id, coalesce(m.nickname, '') AS nickname, coalesce(t.votes, 0) AS votes,
    coalesce(t.changes, 0) AS changes
FROM entry e LEFT JOIN tally t ON t.entry_id = e.id LEFT JOIN member_card m ON m.member_id = e.member_id
"""
_NAMED: Final = text(f"{_SHOWN} WHERE e.id = ANY(:ids) AND e.status = 'approved'")
_COUNTED: Final = text(f"""
{_SHOWN} WHERE e.contest_id = :contest AND e.status = 'approved' ORDER BY coalesce(t.votes, 0) DESC, e.id LIMIT :limit
""")


async def leaders(rt: Runtime, session: AsyncSession, contest_id: UUID, limit: int) -> dict[str, Any]:
    """LeaderboardOut's fields; raises ContestNotFound."""
    contest = (await session.execute(_CONTEST, {"contest": contest_id})).one_or_none()
    if contest is None:
        raise ContestNotFound
    try:
        rows = await _copied(rt, session, contest_id, limit)
    except RedisAway:
        rows = list((await session.execute(_COUNTED, {"contest": contest_id, "limit": limit})).all())
    hidden = totals_hidden(contest)
    items: list[dict[str, Any]] = []
    rank, votes = 0, None
    for place, row in enumerate(rows, 1):
        if row.votes != votes:
            rank, votes = place, row.votes
        items.append(
            {
                "rank": rank,
                "entry_id": row.id,
                "title": row.title,
                "votes": None if hidden else row.votes,
                "member": {"id": row.member_id, "nickname": row.nickname},
            }
        )
    return {"items": items}


async def _copied(rt: Runtime, session: AsyncSession, contest_id: UUID, limit: int) -> list[Any]:
    """The first works as the copy has them, once their rows say the same."""
    standings, rows = standings_of(rt), {}
    for _ in range(TRIES):
        first = await standings.top(session, contest_id, limit)
        found = await session.execute(_NAMED, {"ids": [entry_id for entry_id, _ in first]})
        rows = {row.id: row for row in found}
        if len(rows) < len(first):
            # One of them was withdrawn, and another came in its place.
            await standings.make(session, contest_id)
        elif wrong := [rows[entry_id] for entry_id, votes in first if rows[entry_id].votes != votes]:
            await standings.correct(contest_id, [(row.id, row.votes, row.changes) for row in wrong])
        else:
            return [rows[entry_id] for entry_id, _ in first]
    return sorted(rows.values(), key=lambda row: (-row.votes, row.id))


@api.get("", response_model=LeaderboardOut, responses=problems(ContestNotFound))
async def read_leaderboard(
    contest_id: UUID, request: Request, rt: RuntimeDep, session: SessionDep, limit: Limit = 20
) -> Response:
    """The works with the most votes; those with equally many share a rank."""
    return cacheable(request, await leaders(rt, session, contest_id, limit), max_age_s=1)
