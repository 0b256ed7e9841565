"""Promotions: the tier that the evidence proves, raised when it first proves more, with the history of every change."""

from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.events import emit
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.members.models import Member
from services.members.profile import changed
from services.members.tier_models import TierChange
from services.members.tiers import TIERS, Tier

api = router(prefix="/v1/admin/members/{member_id}/tier-changes", tags=["admin members"])

Cause = Literal["evidence", "admin", "certificate", "merge"]

RANK: Final[dict[str, int]] = {tier.code: rank for rank, tier in enumerate(TIERS)}

EXPERT_LESSONS = 30
EXPERT_WORKS = 10

# In one category: what was learned there, and works that follow a lesson of it.
_COUNTS: Final = text("""
WITH mine AS (
    SELECT kind, category FROM evidence LEFT JOIN lesson_category USING (lesson_id) WHERE member_id = :id
)
SELECT (SELECT coalesce(jsonb_object_agg(kind, n), '{}') FROM (SELECT kind, count(*) AS n FROM mine GROUP BY kind) k)
    AS counts,
    (
        SELECT category FROM mine WHERE category IS NOT NULL GROUP BY category
        HAVING count(*) FILTER (WHERE kind = 'lesson_finished') >= 10
            AND count(*) FILTER (WHERE kind = 'work_approved') >= 3
        ORDER BY count(*) DESC, category LIMIT 1
    ) AS strongest
""")


class TierChangeOut(Out):
    """A change of tier: from what to what, why, and what the evidence was by then."""

    before: Tier
    after: Tier
    cause: Cause
    evidence: dict[str, Any]
    at: Instant


def proven(counts: dict[str, int], strongest: str | None) -> Tier:
    """The tier that so much evidence proves, by the rules that `GET /v1/tiers` shows."""
    lessons, works = counts.get("lesson_finished", 0), counts.get("work_approved", 0)
    distinguished = counts.get("top_place", 0) or counts.get("work_featured", 0)
    if lessons >= EXPERT_LESSONS and works >= EXPERT_WORKS and distinguished:
        return "expert"
    if strongest is not None:
        return "enthusiast"
    return "beginner" if lessons or works else "potential"


async def judge(session: AsyncSession, member: Member, cause: Cause = "evidence") -> None:
    """Count a member's evidence anew; raise their tier when it proves one it never proved before. The row is held."""
    await session.flush()
    row = (await session.execute(_COUNTS, {"id": member.id})).one()
    certificate = {name: proof for name, proof in member.evidence.items() if name == "certificate"}
    member.evidence = certificate | row.counts
    tier = proven(row.counts, row.strongest)
    if RANK[tier] <= RANK[member.proven_tier]:
        return
    # What an admin took away does not come back by the evidence that was there already, only by more.
    member.proven_tier = tier
    if RANK[tier] > RANK[member.tier]:
        before, member.tier = member.tier, tier
        member.version += 1
        note_tier(session, member, before, cause)
        await emit(session, changed(member))


def note_tier(session: AsyncSession, member: Member, before: str, cause: Cause) -> None:
    """Keep a change of tier in the member's history."""
    session.add(
        TierChange(
            member_id=member.id,
            before=before,
            after=member.tier,
            cause=cause,
            evidence=member.evidence,
            at=clock.now(),
        )
    )


@api.get("", dependencies=[admin_with("members:read")])
async def read_tier_changes(member_id: UUID, session: SessionDep, page: PageDep) -> Page[TierChangeOut]:
    """A member's changes of tier, newest first, each with its cause and the evidence of the moment."""
    statement = select(TierChange).where(col(TierChange.member_id) == member_id)
    order = (col(TierChange.at).desc(), col(TierChange.id).desc())
    changes, next_cursor = await keyset(session, statement, page, order)
    return Page(items=[TierChangeOut.model_validate(change) for change in changes], next_cursor=next_cursor)
