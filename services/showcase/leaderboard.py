"""Leaderboards: the works of a contest by votes, read from the tallies."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import router
from kit.db import SessionDep
from kit.errors import problems
from kit.http import cacheable
from kit.shapes import Out
from services.showcase.cards import MemberOut
from services.showcase.contests import ContestNotFound, totals_hidden
from services.showcase.models import Contest, Entry, MemberCard, Tally

api = router(prefix="/v1/contests/{contest_id}/leaderboard", tags=["contests"])


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


Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]


async def leaders(session: AsyncSession, contest_id: UUID, limit: int) -> dict[str, Any]:
    """LeaderboardOut's fields; raises ContestNotFound."""
    contest = await session.get(Contest, contest_id)
    if contest is None:
        raise ContestNotFound
    votes = func.coalesce(col(Tally.votes), 0)
    ranked = (
        select(
            func.rank().over(order_by=votes.desc()).label("rank"),
            col(Entry.id),
            col(Entry.title),
            votes.label("votes"),
            col(Entry.member_id),
            func.coalesce(col(MemberCard.nickname), "").label("nickname"),
        )
        .outerjoin(Tally, col(Tally.entry_id) == col(Entry.id))
        .outerjoin(MemberCard, col(MemberCard.member_id) == col(Entry.member_id))
        .where(col(Entry.contest_id) == contest_id, col(Entry.status) == "approved")
        .order_by(votes.desc(), col(Entry.id))
        .limit(limit)
    )
    hidden = totals_hidden(contest)
    items = [
        {
            "rank": row.rank,
            "entry_id": row.id,
            "title": row.title,
            "votes": None if hidden else row.votes,
            "member": {"id": row.member_id, "nickname": row.nickname},
        }
        for row in await session.execute(ranked)
    ]
    return {"items": items}


@api.get("", response_model=LeaderboardOut, responses=problems(ContestNotFound))
async def read_leaderboard(contest_id: UUID, request: Request, session: SessionDep, limit: Limit = 20) -> Response:
    """The works with the most votes; those with equally many share a rank."""
    return cacheable(request, await leaders(session, contest_id, limit), max_age_s=1)
