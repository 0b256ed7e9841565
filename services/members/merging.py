"""Merging: two accounts of one person become one; time, points, check-ins and evidence follow, and nothing counts twice."""

from typing import Final
from uuid import UUID

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberMerged
from kit import clock
from kit.events import emit
from services.members.check_ins import STREAKS
from services.members.ledger import lock_ledger, repack
from services.members.ledger_models import Renewal, Segment
from services.members.models import Identity, Member
from services.members.points import tell_points
from services.members.profile import changed, forget_person
from services.members.promotions import RANK, judge, note_tier
from services.members.roles import note_roles
from services.members.tokens import end_sessions

# What both did on the same day, or were given for the same thing, stays once: as the one who got more for it.
_POINTS: Final = text("""
WITH theirs AS (DELETE FROM point_entry WHERE member_id = :merged RETURNING *)
INSERT INTO point_entry AS mine (id, member_id, delta, reason, reference, at)
SELECT id, :kept, delta, reason, reference, at FROM theirs
ON CONFLICT (member_id, reason, reference) DO UPDATE SET delta = greatest(mine.delta, excluded.delta)
""")

_CHECK_INS: Final = text("""
WITH theirs AS (DELETE FROM check_in WHERE member_id = :merged RETURNING *)
INSERT INTO check_in AS mine (member_id, day, streak, points, at)
SELECT :kept, day, streak, points, at FROM theirs
ON CONFLICT (member_id, day) DO UPDATE SET points = greatest(mine.points, excluded.points)
""")

_EVIDENCE: Final = text("""
WITH theirs AS (DELETE FROM evidence WHERE member_id = :merged RETURNING *)
INSERT INTO evidence (member_id, kind, reference, lesson_id, at)
SELECT :kept, kind, reference, lesson_id, at FROM theirs ON CONFLICT DO NOTHING
""")
_NOTICES: Final = text("UPDATE notice SET member_id = :kept WHERE member_id = :merged")
_TIERS: Final = text("UPDATE tier_change SET member_id = :kept WHERE member_id = :merged")
_ROLES: Final = text("UPDATE role_change SET member_id = :kept WHERE member_id = :merged")

# Who applied with both accounts has one open application afterwards, the kept account's.
_CERTIFICATES: Final = text("""
UPDATE certificate SET member_id = :kept WHERE member_id = :merged AND NOT (status = 'pending'
    AND EXISTS (SELECT FROM certificate mine WHERE mine.member_id = :kept AND mine.status = 'pending'))
""")
_CERTIFICATES_LEFT: Final = text("DELETE FROM certificate WHERE member_id = :merged")


async def merge(session: AsyncSession, kept: Member, merged: Member) -> None:
    """Make `merged` part of `kept`; the caller holds both rows, and neither is merged or erased."""
    pair = {"kept": kept.id, "merged": merged.id}
    theirs = col(Identity.member_id) == merged.id
    await session.execute(update(Identity).where(theirs).values(member_id=kept.id))
    await _merge_time(session, kept.id, merged.id)
    for statement in (_POINTS, _CHECK_INS, _EVIDENCE, _NOTICES, _TIERS, _ROLES, _CERTIFICATES, _CERTIFICATES_LEFT):
        await session.execute(statement, pair)
    await session.execute(STREAKS, {"member": kept.id})
    shown = {name: proof for name, proof in (merged.evidence | kept.evidence).items() if name == "certificate"}
    kept.evidence = kept.evidence | shown
    for name in ("avatar_url", "city", "bio"):
        setattr(kept, name, getattr(kept, name) or getattr(merged, name))
    roles, kept.roles = kept.roles, list(dict.fromkeys([*kept.roles, *merged.roles]))
    if roles != kept.roles:
        note_roles(session, kept, roles, "merge")
    kept.labels = list(dict.fromkeys([*kept.labels, *merged.labels]))
    kept.note = "\n".join(note for note in (kept.note, merged.note) if note)
    tier, kept.tier = kept.tier, max(kept.tier, merged.tier, key=RANK.__getitem__)
    kept.proven_tier = max(kept.proven_tier, merged.proven_tier, key=RANK.__getitem__)
    if tier != kept.tier:
        note_tier(session, kept, tier, "merge")
    kept.created_at = min(kept.created_at, merged.created_at)
    kept.version += 1
    forget_person(merged)
    merged.merged_into = kept.id
    merged.erased_at = clock.now()
    merged.version += 1
    await end_sessions(session, merged.id)
    await session.flush()
    await emit(session, MemberMerged(kept_id=kept.id, merged_id=merged.id), changed(kept))
    await tell_points(session, kept.id)
    await judge(session, kept, "merge")


async def _merge_time(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """Put both ledgers on one line: what ran side by side now runs one after the other, no paid day is lost.

    Renewals come along; billing ends one of two.
    """
    # Always in the same order: two merges that touch the same ledgers never wait for each other in a ring.
    ledgers = [await lock_ledger(session, member_id) for member_id in sorted((kept_id, merged_id))]
    theirs = update(Segment).where(col(Segment.member_id) == merged_id).values(member_id=kept_id)
    segments = (await session.execute(theirs.returning(col(Segment.id)))).all()
    charged = update(Renewal).where(col(Renewal.member_id) == merged_id).values(member_id=kept_id)
    renewals = (await session.execute(charged.returning(col(Renewal.subscription_id)))).all()
    if segments or renewals:
        for ledger in ledgers:
            await repack(session, ledger)
