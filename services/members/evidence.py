"""Evidence: what members did is counted, gives points, and raises the tier it proves; nothing here lowers one."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.courses import LessonCompleted
from contracts.showcase import EntryApproved
from kit.events import emit
from services.members.points import factor, give_points
from services.members.profile import changed, lock_kept

LESSON_POINTS = 5
WORK_POINTS = 10


async def on_lesson_completed(session: AsyncSession, event: LessonCompleted) -> None:
    """A finished lesson is worth five points, and makes a beginner."""
    await _credit(session, event.member_id, "lesson_finished", event.lesson_id, LESSON_POINTS, event.completed_at)


async def on_entry_approved(session: AsyncSession, event: EntryApproved) -> None:
    """An approved work is worth ten points, and makes a beginner."""
    await _credit(session, event.member_id, "work_approved", event.entry_id, WORK_POINTS, event.approved_at)


async def _credit(
    session: AsyncSession, member_id: UUID, reason: str, reference: UUID, points: int, at: datetime
) -> None:
    member = await lock_kept(session, member_id)
    if member is None:
        return
    delta = points * await factor(session, member.id, at)
    if not await give_points(session, member.id, delta, reason, str(reference), at):
        return
    member.evidence = member.evidence | {reason: member.evidence.get(reason, 0) + 1}
    if member.tier == "potential":
        member.tier = "beginner"
        member.version += 1
        await emit(session, changed(member))
