"""Settlement: once a contest is over its final ranks are counted from the vote rows, once, and published."""

from datetime import datetime
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.showcase import EntryPlaced, PrizeWon
from kit import audit, clock
from kit.app import router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.events import emit
from kit.http import cacheable, json_response
from kit.ids import new_id
from kit.shapes import Instant, Out
from services.showcase.cards import MemberOut
from services.showcase.contests import TIE_CHAIN, ContestNotFound
from services.showcase.integrity_models import Settlement
from services.showcase.models import Contest, Entry, MemberCard, Result
from services.showcase.prizes import Prize
from services.showcase.signals import refresh_signals

api = router(prefix="/v1")

TOP_PLACES: Final = 10


class ContestOpen(Conflict):
    """This contest is not over yet; settle it after its end."""

    zh = "比赛还没有结束，请在结束之后再结算。"


class ResultsNotReady(NotFound):
    """The results of this contest are not out yet; come back after it is settled."""

    zh = "比赛结果还没有公布，请在结算之后再来查看。"


class PlaceOut(Out):
    """A final rank; `tie_break` is the key that set it apart from a neighbour with as many votes.

    `trees` are the invite trees its voters came from, `reached_at` is when its last counted vote came.
    """

    rank: int
    entry_id: UUID
    title: str
    member: MemberOut
    votes: int
    trees: int
    reached_at: Instant | None
    submitted_at: Instant
    tie_break: str | None
    prize: Prize | None


class RemovedOut(Out):
    """Votes that a rule took out."""

    rule: str
    votes: int


class ResultsOut(Out):
    """What came out of a contest."""

    settled_at: Instant
    items: list[PlaceOut]
    removed: list[RemovedOut]


# An invite tree is everybody whom one member's invitations led here; whoever came by none is a tree of their own.
_COUNT = text("""
SELECT e.id AS entry_id, e.member_id, e.submitted_at, count(v.member_id) AS votes, max(v.cast_at) AS reached_at,
    count(DISTINCT v.tree) AS trees
FROM entry e
LEFT JOIN vote v ON v.entry_id = e.id AND v.quarantine IS NULL
WHERE e.contest_id = :contest AND e.status = 'approved'
GROUP BY e.id
ORDER BY votes DESC, trees DESC, reached_at, e.submitted_at, e.id
""")
# Byte for byte what `recount` makes of the same rows.
_SUM_UP = text("""
WITH entries AS (
    SELECT entry_id, count(*) AS votes, sha256(string_agg(
        uuid_send(entry_id) || uuid_send(member_id) || int4send(day - date '2000-01-01')
        || int8send(CAST(extract(epoch FROM cast_at) * 1000000 AS bigint)) || tree
        || convert_to(coalesce(quarantine, ''), 'UTF8'), '' ORDER BY member_id, day)) AS digest
    FROM vote WHERE contest_id = :contest GROUP BY entry_id
)
SELECT CAST(coalesce(sum(votes), 0) AS int) AS votes,
    encode(sha256(coalesce(string_agg(digest, '' ORDER BY entry_id), '')), 'hex') AS digest,
    (SELECT count(DISTINCT member_id) FROM vote WHERE contest_id = :contest) AS voters
FROM entries
""")
_REMOVED = text("""
SELECT quarantine AS rule, count(*) AS votes FROM vote WHERE contest_id = :contest AND quarantine IS NOT NULL
GROUP BY quarantine ORDER BY quarantine
""")


@api.post(
    "/admin/contests/{contest_id}/settle",
    tags=["admin contests"],
    dependencies=[admin_with("contests:write")],
    response_model=ResultsOut,
    responses=problems(ContestNotFound, ContestOpen),
)
async def settle_contest(contest_id: UUID, session: SessionDep) -> Response:
    """Count the votes and publish the results; a second call answers the first ones."""
    # Waits for the votes and works being written, and holds up those that come after.
    contest = await session.get(Contest, contest_id, with_for_update=True)
    if contest is None:
        raise ContestNotFound
    now = clock.now()
    if now < contest.ends_at:
        raise ContestOpen
    if contest.settled_at is None:
        await refresh_signals(session, contest_id)
        rows = (await session.execute(_COUNT, {"contest": contest_id})).all()
        places = _places(contest, rows)
        if places:
            await session.execute(insert(Result), places)
        # Added up, not asked for: an author may have withdrawn a work in between.
        session.add(await _sum_up(session, contest_id, now, counted=sum(row.votes for row in rows)))
        contest.settled_at = now
        contest.signal_secret = None
        contest.version += 1
        await session.flush()
        # A place that nobody voted for is no distinction.
        first = [(rank, row) for rank, row in enumerate(rows[:TOP_PLACES], 1) if row.votes]
        await emit(session, *(_placed(contest, row, rank, now) for rank, row in first))
        await emit(session, *_won(contest, rows, places, now))
        await audit.record(session, "contest.settled", contest_id, after={"settled_at": now, "places": len(places)})
    else:
        await audit.record(session, "contest.settled", contest_id, before={}, after={})  # nothing was done
    return json_response(await _results(session, contest))


def _placed(contest: Contest, row: Any, rank: int, now: datetime) -> EntryPlaced:
    fact = {"entry_id": row.entry_id, "contest_id": contest.id, "member_id": row.member_id}
    return EntryPlaced(**fact, rank=rank, settled_at=now)


def _won(contest: Contest, rows: Any, places: list[dict[str, Any]], now: datetime) -> list[PrizeWon]:
    """What the first of all win; settled once, told once, and whoever gives it knows it by its id."""
    return [
        PrizeWon(
            prize_id=new_id(),
            contest_id=contest.id,
            entry_id=row.entry_id,
            member_id=row.member_id,
            rank=place["rank"],
            title=place["prize"]["title"],
            reward=place["prize"]["reward"]["kind"],
            value=place["prize"]["reward"]["value"],
            won_at=now,
        )
        for row, place in zip(rows, places, strict=True)
        if place["prize"]
    ]


async def _sum_up(session: AsyncSession, contest_id: UUID, now: datetime, *, counted: int) -> Settlement:
    """What the result was counted from."""
    of_contest = {"contest": contest_id}
    total = (await session.execute(_SUM_UP, of_contest)).one()
    removed = [row._asdict() for row in await session.execute(_REMOVED, of_contest)]
    counts = {"votes": total.votes, "voters": total.voters, "counted": counted, "removed": removed}
    return Settlement(contest_id=contest_id, settled_at=now, tie_chain=list(TIE_CHAIN), digest=total.digest, **counts)


def _places(contest: Contest, rows: Any) -> list[dict[str, Any]]:
    """The result rows of counted entries, best first."""
    apart = [_first_difference(better, worse) for better, worse in pairwise(rows)]
    places = []
    for index, row in enumerate(rows):
        rank = index + 1
        neighbours = [key for key in (*apart[max(0, index - 1) : index], *apart[index : index + 1]) if key != "votes"]
        places.append(
            {
                "entry_id": row.entry_id,
                "contest_id": contest.id,
                "rank": rank,
                "votes": row.votes,
                "trees": row.trees,
                "reached_at": row.reached_at,
                "submitted_at": row.submitted_at,
                "tie_break": neighbours[0] if neighbours else None,
                "prize": next((prize for prize in contest.prizes if prize["from"] <= rank <= prize["to"]), None),
            }
        )
    return places


def _first_difference(better: Any, worse: Any) -> str:
    return next(key for key in TIE_CHAIN if getattr(better, key) != getattr(worse, key))


async def _results(session: AsyncSession, contest: Contest) -> dict[str, Any]:
    found = await session.execute(
        select(
            *Result.__table__.c,  # type: ignore[attr-defined]  # SQLModel hides it
            col(Entry.title),
            col(Entry.member_id),
            func.coalesce(col(MemberCard.nickname), "").label("nickname"),
        )
        .join(Entry, col(Entry.id) == col(Result.entry_id))
        .outerjoin(MemberCard, col(MemberCard.member_id) == col(Entry.member_id))
        .where(col(Result.contest_id) == contest.id)
        .order_by(col(Result.rank))
    )
    items = [
        {
            "rank": row.rank,
            "entry_id": row.entry_id,
            "title": row.title,
            "member": {"id": row.member_id, "nickname": row.nickname},
            "votes": row.votes,
            "trees": row.trees,
            "reached_at": row.reached_at,
            "submitted_at": row.submitted_at,
            "tie_break": row.tie_break,
            "prize": row.prize,
        }
        for row in found
    ]
    summed = await session.get(Settlement, contest.id)
    return {"settled_at": contest.settled_at, "items": items, "removed": summed.removed if summed else []}


@api.get(
    "/contests/{contest_id}/results",
    tags=["contests"],
    response_model=ResultsOut,
    responses=problems(ContestNotFound, ResultsNotReady),
)
async def read_results(contest_id: UUID, request: Request, session: SessionDep) -> Response:
    """The final ranks, with the prizes, and with what decided between equal votes."""
    contest = await session.get(Contest, contest_id)
    if contest is None:
        raise ContestNotFound
    if contest.settled_at is None:
        raise ResultsNotReady
    return cacheable(request, await _results(session, contest))
