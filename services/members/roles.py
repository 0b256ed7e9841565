"""Roles: tags for what members did in the last 28 days, judged hourly; those an admin set by hand are left alone."""

from datetime import timedelta
from typing import Final

from sqlalchemy import text

from kit import clock
from kit.app import Due, Runtime

WINDOW: Final = timedelta(days=28)
SHARED_WORKS: Final = 3

# A sharer showed three works; a lurker was here, is no newcomer, and showed none. Other tags are kept as they are.
_JUDGE: Final = text("""
WITH shared AS (
    SELECT member_id, count(*) AS works FROM evidence
    WHERE kind = 'work_approved' AND at > :since AND at <= :now GROUP BY member_id
), present AS (
    SELECT DISTINCT subject_id AS member_id FROM login_session WHERE role = 'member' AND last_seen_at > :since
), concerned AS (
    SELECT member_id FROM shared UNION SELECT member_id FROM present
    UNION SELECT id FROM member WHERE roles && ARRAY['sharer', 'lurker']::varchar[]
), judged AS (
    SELECT member.id, array_remove(array_remove(member.roles, 'sharer'), 'lurker')
        || CASE WHEN shared.works >= :works THEN ARRAY['sharer']::varchar[] ELSE '{}' END
        || CASE WHEN shared.works IS NULL AND present.member_id IS NOT NULL AND member.created_at <= :since
            THEN ARRAY['lurker']::varchar[] ELSE '{}' END AS roles
    FROM concerned JOIN member ON member.id = concerned.member_id
    LEFT JOIN shared ON shared.member_id = member.id
    LEFT JOIN present ON present.member_id = member.id
    WHERE member.erased_at IS NULL AND NOT member.roles_by_admin
), changing AS (
    SELECT member.id, judged.roles FROM judged JOIN member ON member.id = judged.id
    WHERE member.roles IS DISTINCT FROM judged.roles ORDER BY member.id LIMIT 5000 FOR UPDATE OF member
)
UPDATE member SET roles = changing.roles, version = version + 1 FROM changing WHERE member.id = changing.id
RETURNING member.id
""")


async def judge_roles(rt: Runtime) -> int:
    """Give and take the computed tags, some thousands of members at a time; how many changed."""
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        values = {"now": now, "since": now - WINDOW, "works": SHARED_WORKS}
        return len((await session.execute(_JUDGE, values)).all())


due = Due("judge roles", judge_roles, every_s=3600.0)
