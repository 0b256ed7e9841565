"""Evidence: what members did is kept, gives points, and raises the tier it proves; nothing here lowers one."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.courses import LessonCompleted, QuestionAsked, QuestionUpvoted, QuestionUpvoteUndone, WorkFiled
from contracts.showcase import CommentPosted, EntryApproved, EntryFeatured, EntryPlaced, ReportUpheld
from services.members.points import factor, give_points
from services.members.profile import lock_kept
from services.members.promotions import judge
from services.members.tier_models import Evidence, LessonCategory

LESSON_POINTS = 5
WORK_POINTS = 10
TOP_PLACES = 10
UNDONE = "upvote_undone"


async def on_lesson_completed(session: AsyncSession, event: LessonCompleted) -> None:
    """A finished lesson is worth five points, and counts in its category."""
    if event.category is not None:
        await _keep_category(session, event.lesson_id, event.category)
    fact = _fact("lesson_finished", event.lesson_id, event.lesson_id)
    await _credit(session, event.member_id, fact, event.completed_at, LESSON_POINTS)


async def on_entry_approved(session: AsyncSession, event: EntryApproved) -> None:
    """An approved work is worth ten points, and counts in the category of the lesson it follows."""
    fact = _fact("work_approved", event.entry_id, event.lesson_id)
    await _credit(session, event.member_id, fact, event.approved_at, WORK_POINTS)


async def on_work_filed(session: AsyncSession, event: WorkFiled) -> None:
    """A work counts in its lesson's category, also when nobody finished that lesson; it may be approved before or after."""
    await _keep_category(session, event.lesson_id, event.category)
    member = await lock_kept(session, event.member_id)
    if member is not None:
        await judge(session, member)


async def on_entry_placed(session: AsyncSession, event: EntryPlaced) -> None:
    """A place among the first ten of a contest is evidence, without points."""
    if event.rank <= TOP_PLACES:
        await _credit(session, event.member_id, _fact("top_place", event.entry_id), event.settled_at)


async def on_entry_featured(session: AsyncSession, event: EntryFeatured) -> None:
    """A featured work is evidence, once however often it is featured."""
    await _credit(session, event.member_id, _fact("work_featured", event.entry_id), event.featured_at)


async def on_comment_posted(session: AsyncSession, event: CommentPosted) -> None:
    """A comment counts among what its author shares."""
    await _credit(session, event.member_id, _fact("comment_posted", event.comment_id), event.posted_at)


async def on_report_upheld(session: AsyncSession, event: ReportUpheld) -> None:
    """A report that was right counts for who made it."""
    await _credit(session, event.member_id, _fact("report_upheld", event.report_id), event.upheld_at)


async def on_question_asked(session: AsyncSession, event: QuestionAsked) -> None:
    """A question counts for who asked it."""
    await _credit(session, event.member_id, _fact("question_asked", event.question_id), event.asked_at)


async def on_question_upvoted(session: AsyncSession, event: QuestionUpvoted) -> None:
    """An upvote counts for who asked, once for each voter, and never one's own; who voted is not kept."""
    voice = uuid5(event.question_id, event.voter_id.hex)
    member = await lock_kept(session, event.member_id)
    if member is None or event.voter_id == event.member_id:
        return
    undone = await session.get(Evidence, (member.id, UNDONE, voice))
    if undone is None:
        await _credit(session, member.id, _fact("question_upvoted", voice), event.upvoted_at)


async def on_question_upvote_undone(session: AsyncSession, event: QuestionUpvoteUndone) -> None:
    """A voice that counts no more goes, and is remembered, because what was told of it before may come after."""
    member = await lock_kept(session, event.member_id)
    if member is None:
        return
    voice = uuid5(event.question_id, event.voter_id.hex)
    theirs = (col(Evidence.member_id) == member.id, col(Evidence.reference) == voice)
    await session.execute(delete(Evidence).where(*theirs, col(Evidence.kind) == "question_upvoted"))
    row = _fact(UNDONE, voice) | {"member_id": member.id, "at": event.at}
    await session.execute(insert(Evidence).values(row).on_conflict_do_nothing())


async def _keep_category(session: AsyncSession, lesson_id: UUID, category: str) -> None:
    row = insert(LessonCategory).values(lesson_id=lesson_id, category=category)
    newer = row.on_conflict_do_update(
        index_elements=["lesson_id"],
        set_={"category": row.excluded.category},
        where=col(LessonCategory.category) != row.excluded.category,
    )
    await session.execute(newer)


def _fact(kind: str, reference: UUID, lesson_id: UUID | None = None) -> dict[str, Any]:
    return {"kind": kind, "reference": reference, "lesson_id": lesson_id}


async def _credit(session: AsyncSession, member_id: UUID, fact: dict[str, Any], at: datetime, points: int = 0) -> None:
    member = await lock_kept(session, member_id)
    if member is None:
        return
    row = insert(Evidence).values(fact | {"member_id": member.id, "at": at}).on_conflict_do_nothing()
    if (await session.execute(row.returning(col(Evidence.kind)))).one_or_none() is None:
        return
    if points:
        delta = points * await factor(session, member.id, at)
        await give_points(session, member.id, delta, fact["kind"], str(fact["reference"]), at)
    await judge(session, member)
