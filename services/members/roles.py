"""Roles: tags for what members did in the last 28 days, judged hourly, with the history of every change."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Due, Runtime, router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.members.models import Member
from services.members.role_models import RoleChange
from services.members.tiers import Role

api = router(prefix="/v1/admin/members/{member_id}/role-changes", tags=["admin members"])

Cause = Literal["evidence", "admin", "merge"]

WINDOW: Final = timedelta(days=28)
APPOINTED: Final = "organizer"
# What somebody is who has done nothing yet; an admin who leaves it out when they appoint somebody decides nothing by it.
SILENT: Final = "lurker"
PORTION: Final = 5000
RULES: Final = {"upvotes": 20, "questions": 3, "shared": 3, "reports": 2}

# One pass over what was done in the window. A lurker was here and produced nothing; what others thought of older works
# is not producing. Organizers are appointed: that tag is kept as it is.
_JUDGE: Final = text("""
WITH recent AS (
    SELECT member_id, jsonb_object_agg(kind, n) AS counts,
        coalesce(sum(n) FILTER (WHERE kind IN ('work_approved', 'comment_posted')), 0) AS shared,
        coalesce(sum(n) FILTER (WHERE kind = 'question_asked'), 0) AS asked,
        coalesce(sum(n) FILTER (WHERE kind = 'report_upheld'), 0) AS reported,
        coalesce(sum(n) FILTER (WHERE kind = 'question_upvoted'), 0) AS upvoted,
        coalesce(sum(n) FILTER (WHERE kind = 'work_featured'), 0) AS featured
    FROM (
        SELECT member_id, kind, count(*) AS n FROM evidence WHERE at > :since AND at <= :now
        AND kind IN ('work_approved', 'comment_posted', 'question_asked', 'report_upheld', 'question_upvoted',
            'work_featured')
        GROUP BY member_id, kind
    ) kinds GROUP BY member_id
), present AS (
    SELECT DISTINCT subject_id AS member_id FROM login_session WHERE role = 'member' AND last_seen_at > :since
), concerned AS (
    SELECT member_id FROM recent UNION SELECT member_id FROM present
    UNION SELECT id FROM member
    WHERE roles && ARRAY['influencer', 'seeker', 'sharer', 'challenger', 'lurker']::varchar[]
), judged AS (
    SELECT member.id, coalesce(recent.counts, '{}') AS counts, array_remove(ARRAY[
        CASE WHEN 'organizer' = ANY(member.roles) THEN 'organizer' END,
        CASE WHEN member.tier IN ('expert', 'instructor') AND (recent.upvoted >= :upvotes OR recent.featured > 0)
            THEN 'influencer' END,
        CASE WHEN recent.asked >= :questions THEN 'seeker' END,
        CASE WHEN recent.shared >= :shared THEN 'sharer' END,
        CASE WHEN recent.reported >= :reports THEN 'challenger' END,
        CASE WHEN coalesce(recent.shared + recent.asked + recent.reported, 0) = 0
            AND present.member_id IS NOT NULL THEN 'lurker' END
        ]::varchar[], NULL) AS roles
    FROM concerned JOIN member ON member.id = concerned.member_id
    LEFT JOIN recent ON recent.member_id = member.id
    LEFT JOIN present ON present.member_id = member.id
    WHERE member.erased_at IS NULL AND NOT member.roles_by_admin
), changing AS (
    SELECT member.id, member.roles AS before, judged.roles, judged.counts
    FROM judged JOIN member ON member.id = judged.id
    WHERE member.roles IS DISTINCT FROM judged.roles ORDER BY member.id LIMIT :portion FOR UPDATE OF member
), noted AS (
    INSERT INTO role_change (id, member_id, before, after, cause, evidence, at)
    SELECT uuidv7(), id, before, roles, 'evidence', counts, :now FROM changing
)
UPDATE member SET roles = changing.roles, version = version + 1 FROM changing WHERE member.id = changing.id
RETURNING member.id
""")


class RoleChangeOut(Out):
    """A change of roles: from what to what, why, and what the member had done in the 28 days before."""

    before: list[Role]
    after: list[Role]
    cause: Cause
    evidence: dict[str, Any]
    at: Instant


async def judge_roles(rt: Runtime) -> int:
    """Give and take the computed tags, some thousands of members at a time; how many changed."""
    now, total = clock.now(), 0
    values = {"now": now, "since": now - WINDOW, "portion": PORTION} | RULES
    while True:
        async with rt.db.session() as session, session.begin():
            done = len((await session.execute(_JUDGE, values)).all())
        total += done
        if done < PORTION:
            return total


def note_roles(session: AsyncSession, member: Member, before: Iterable[str], cause: Cause) -> None:
    """Keep a change of roles in the member's history."""
    session.add(
        RoleChange(member_id=member.id, before=list(before), after=list(member.roles), cause=cause, at=clock.now())
    )


@api.get("", dependencies=[admin_with("members:read")])
async def read_role_changes(member_id: UUID, session: SessionDep, page: PageDep) -> Page[RoleChangeOut]:
    """A member's changes of roles, newest first, each with its cause and what had been done by then."""
    statement = select(RoleChange).where(col(RoleChange.member_id) == member_id)
    order = (col(RoleChange.at).desc(), col(RoleChange.id).desc())
    changes, next_cursor = await keyset(session, statement, page, order)
    return Page(items=[RoleChangeOut.model_validate(change) for change in changes], next_cursor=next_cursor)


due = Due("judge roles", judge_roles, every_s=3600.0)
