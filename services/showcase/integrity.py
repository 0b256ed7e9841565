"""Integrity: a settled contest's report for everybody, from what its result was counted to what was taken out and why."""

from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import select
from sqlmodel import col

from kit.app import router
from kit.db import SessionDep
from kit.errors import problems
from kit.http import cacheable
from kit.shapes import Instant, Out
from services.showcase.contests import ContestNotFound
from services.showcase.integrity_models import QuarantineRun, Settlement
from services.showcase.models import Contest, Result
from services.showcase.settlement import ResultsNotReady
from services.showcase.vote_rules import RuleName

api = router(prefix="/v1/contests/{contest_id}/integrity", tags=["contests"])

DIGEST: Final = "sha-256"


class RuleRunOut(Out):
    """A rule that took votes out, with what it was told; `params` is null where it was lifted again."""

    rule: RuleName
    params: dict[str, Any] | None
    votes: int
    entries: int
    at: Instant


class RemovedVotesOut(Out):
    """Votes that a rule had taken out when the contest was settled."""

    rule: RuleName
    votes: int


class TieOut(Out):
    """A rank that votes alone did not decide, and the key that did."""

    rank: int
    entry_id: UUID
    tie_break: str


class IntegrityOut(Out):
    """How a contest was counted.

    `votes` were cast by `voters`; `counted` of them made the result, `removed` were taken out, the others went to works that
    were withdrawn or rejected. `digest` is of every vote as it stood then: whoever counts again from the rows gets the same.
    """

    contest_id: UUID
    settled_at: Instant
    votes: int
    voters: int
    counted: int
    removed: list[RemovedVotesOut]
    runs: list[RuleRunOut]
    tie_chain: list[str]
    ties: list[TieOut]
    digest_algorithm: str
    digest: str


@api.get("", response_model=IntegrityOut, responses=problems(ContestNotFound, ResultsNotReady))
async def read_integrity(contest_id: UUID, request: Request, session: SessionDep) -> Response:
    """How a settled contest was counted: totals, votes taken out by which rule, how ties were decided, and a digest."""
    if await session.get(Contest, contest_id) is None:
        raise ContestNotFound
    summed = await session.get(Settlement, contest_id)
    if summed is None:
        raise ResultsNotReady
    runs = select(QuarantineRun).where(col(QuarantineRun.contest_id) == contest_id).order_by(col(QuarantineRun.id))
    ties = (
        select(col(Result.rank), col(Result.entry_id), col(Result.tie_break))
        .where(col(Result.contest_id) == contest_id, col(Result.tie_break).is_not(None))
        .order_by(col(Result.rank))
    )
    fields = ("rule", "params", "votes", "entries", "at")
    report = summed.model_dump() | {
        "digest_algorithm": DIGEST,
        "runs": [{name: getattr(run, name) for name in fields} for run in (await session.execute(runs)).scalars()],
        "ties": [row._asdict() for row in await session.execute(ties)],
    }
    return cacheable(request, report)
