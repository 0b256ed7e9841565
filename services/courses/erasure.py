"""Erasure: what courses forgets when a member leaves for good."""

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.erasing import Erasing
from contracts.members import MemberErased
from services.courses.enrolments import give_back
from services.courses.models import Enrolment, LiveLesson

ERASED_NAME = "已注销用户"
PERSONAL = {"live_lesson": "instructor_id = :member_id"}
"""Whose the rows are that name their member otherwise, for the export."""

# The score stays in the course's tally, so its row stays too, as nobody's.
_FORGET = (
    text("DELETE FROM progress WHERE member_id = :id"),
    text("DELETE FROM completion WHERE member_id = :id"),
    text("DELETE FROM course_completion WHERE member_id = :id"),
    text("UPDATE rating SET member_id = gen_random_uuid(), comment = NULL WHERE member_id = :id"),
    text("UPDATE purchase SET member_id = NULL WHERE member_id = :id"),
    text("UPDATE live_lesson SET instructor = :nobody, instructor_id = NULL WHERE instructor_id = :id"),
    # The courses stay, taught by nobody in particular.
    text(
        "UPDATE instructor SET member_id = NULL, name = :nobody, title = '', bio = '', avatar_url = NULL, "
        "verified_at = NULL, version = version + 1 WHERE member_id = :id"
    ),
    text("DELETE FROM access WHERE member_id = :id"),
    text("DELETE FROM person WHERE member_id = :id"),
    text("DELETE FROM live_grant WHERE member_id = :id"),
    text("DELETE FROM attendance WHERE member_id = :id"),
    text("DELETE FROM points_balance WHERE member_id = :id"),
    text("DELETE FROM points_payment WHERE member_id = :id"),
    text("UPDATE room_evidence SET member_id = NULL WHERE member_id = :id"),
    text("DELETE FROM calendar_feed WHERE member_id = :id"),
    # Whom they invited and what they wanted answered still counts, as nobody's.
    text("UPDATE invite_link SET member_id = gen_random_uuid() WHERE member_id = :id"),
    text("UPDATE arrival SET member_id = gen_random_uuid() WHERE member_id = :id"),
    text("UPDATE question_upvote SET member_id = gen_random_uuid() WHERE member_id = :id"),
    text("UPDATE lesson_request SET member_id = NULL WHERE member_id = :id"),
    text("UPDATE lesson_request_vote SET member_id = gen_random_uuid() WHERE member_id = :id"),
    text("UPDATE question SET member_id = NULL WHERE member_id = :id"),
    # Before what showcase tells of its pictures, which it deletes.
    text("DELETE FROM lesson_work WHERE member_id = :id"),
    text("UPDATE question_answer SET member_id = NULL WHERE member_id = :id"),
)


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget the member; scores stay without a name."""
    for statement in _FORGET:
        await session.execute(statement, {"id": event.member_id, "nobody": ERASED_NAME})
    seats = select(col(Enrolment.lesson_id)).where(col(Enrolment.member_id) == event.member_id)
    lessons = select(LiveLesson).where(col(LiveLesson.id).in_(seats)).order_by(col(LiveLesson.id)).with_for_update()
    for lesson in (await session.execute(lessons)).scalars().all():
        await give_back(session, lesson, event.member_id)


erasing = Erasing()
