"""Merged accounts: progress, completions, ratings, purchases and seats follow, and what both did counts once."""

from typing import Final
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.courses import QuestionUpvoteUndone
from contracts.merging import Merging
from kit.events import emit
from services.courses.enrolments import give_back
from services.courses.models import Enrolment, LiveLesson
from services.courses.points_payments import give_points_back
from services.courses.room_models import PointsPayment

_MOVES: Final = (
    text("UPDATE purchase SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE live_lesson SET instructor_id = :kept WHERE instructor_id = :merged"),
    text("UPDATE instructor SET member_id = :kept WHERE member_id = :merged"),
    # Each second counts once, whoever watched it; the place is where the person was last.
    text("""
    WITH theirs AS (DELETE FROM progress WHERE member_id = :merged RETURNING *)
    INSERT INTO progress AS mine (member_id, lesson_id, watched, position_s, updated_at)
    SELECT :kept, lesson_id, watched, position_s, updated_at FROM theirs
    ON CONFLICT (member_id, lesson_id) DO UPDATE SET watched = mine.watched + excluded.watched,
        position_s = CASE WHEN excluded.updated_at > mine.updated_at THEN excluded.position_s ELSE mine.position_s END,
        updated_at = greatest(mine.updated_at, excluded.updated_at)
    """),
    text("""
    WITH theirs AS (DELETE FROM completion WHERE member_id = :merged RETURNING *)
    INSERT INTO completion AS mine (member_id, lesson_id, completed_at, duration_s, course_version)
    SELECT :kept, lesson_id, completed_at, duration_s, course_version FROM theirs
    ON CONFLICT (member_id, lesson_id) DO UPDATE SET completed_at = least(mine.completed_at, excluded.completed_at)
    """),
    text("""
    WITH theirs AS (DELETE FROM course_completion WHERE member_id = :merged RETURNING *)
    INSERT INTO course_completion AS mine (member_id, course_id, version, lessons, completed_at)
    SELECT :kept, course_id, version, lessons, completed_at FROM theirs
    ON CONFLICT (member_id, course_id) DO UPDATE SET version = greatest(mine.version, excluded.version),
        lessons = CASE WHEN excluded.version > mine.version THEN excluded.lessons ELSE mine.lessons END,
        completed_at = least(mine.completed_at, excluded.completed_at)
    """),
    # Of two ratings of one lesson the later stays, and the course's tally loses the other.
    text("""
    WITH gone AS (
        DELETE FROM rating USING rating other
        WHERE rating.member_id IN (:kept, :merged) AND other.member_id IN (:kept, :merged)
        AND other.lesson_id = rating.lesson_id AND other.member_id <> rating.member_id
        AND (rating.updated_at, rating.member_id) < (other.updated_at, other.member_id)
        RETURNING rating.lesson_id, rating.score
    ), lost AS (
        SELECT course_id, sum(score) AS sum, count(*) AS count, count(*) FILTER (WHERE score <= 2) AS negative,
            count(*) FILTER (WHERE score >= 4) AS positive
        FROM gone JOIN lesson ON lesson.id = gone.lesson_id GROUP BY course_id
    )
    UPDATE course SET rating_sum = rating_sum - lost.sum, rating_count = rating_count - lost.count,
        rating_negative = rating_negative - lost.negative, rating_positive = rating_positive - lost.positive,
        rating_mean = coalesce((rating_sum - lost.sum)::float8 / nullif(rating_count - lost.count, 0), 0)
    FROM lost WHERE course.id = lost.course_id
    """),
    text("UPDATE rating SET member_id = :kept WHERE member_id = :merged"),
    text("DELETE FROM person WHERE member_id = :merged"),
    # What both have together is told of the kept one.
    text("DELETE FROM points_balance WHERE member_id = :merged"),
    text("""
    WITH theirs AS (DELETE FROM live_grant WHERE member_id = :merged RETURNING *)
    INSERT INTO live_grant (lesson_id, member_id, reason, granted_at)
    SELECT lesson_id, :kept, reason, granted_at FROM theirs ON CONFLICT DO NOTHING
    """),
    text("""
    WITH theirs AS (DELETE FROM attendance WHERE member_id = :merged RETURNING *)
    INSERT INTO attendance AS mine (lesson_id, member_id, spans) SELECT lesson_id, :kept, spans FROM theirs
    ON CONFLICT (lesson_id, member_id) DO UPDATE SET spans = mine.spans + excluded.spans
    """),
    text("UPDATE room_evidence SET member_id = :kept WHERE member_id = :merged"),
    # Of two links to one lesson the kept one takes the arrivals.
    text("""
    UPDATE arrival SET link_id = mine.id FROM invite_link AS mine, invite_link AS other
    WHERE arrival.link_id = other.id AND other.member_id = :merged AND mine.member_id = :kept
    AND mine.lesson_id = other.lesson_id
    """),
    text("""
    DELETE FROM invite_link AS other USING invite_link AS mine
    WHERE other.member_id = :merged AND mine.member_id = :kept AND mine.lesson_id = other.lesson_id
    """),
    text("UPDATE invite_link SET member_id = :kept WHERE member_id = :merged"),
    text("""
    DELETE FROM arrival AS other USING arrival AS mine WHERE other.member_id = :merged AND mine.member_id = :kept
    """),
    text("UPDATE arrival SET member_id = :kept WHERE member_id = :merged"),
    # Nobody arrives by their own link.
    text("""
    DELETE FROM arrival USING invite_link
    WHERE invite_link.id = arrival.link_id AND invite_link.member_id = arrival.member_id AND arrival.member_id = :kept
    """),
    text("UPDATE lesson_work SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE question SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE question_answer SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE question_upvote SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE lesson_request SET member_id = :kept WHERE member_id = :merged"),
    text("""
    WITH gone AS (
        DELETE FROM lesson_request_vote AS vote USING lesson_request_vote AS mine WHERE vote.member_id = :merged
        AND mine.member_id = :kept AND mine.request_id = vote.request_id RETURNING vote.request_id
    )
    UPDATE lesson_request SET votes = votes - 1 FROM gone WHERE lesson_request.id = gone.request_id
    """),
    text("UPDATE lesson_request_vote SET member_id = :kept WHERE member_id = :merged"),
    text("""
    DELETE FROM calendar_feed AS other USING calendar_feed AS mine
    WHERE other.member_id = :merged AND mine.member_id = :kept
    """),
    text("UPDATE calendar_feed SET member_id = :kept WHERE member_id = :merged"),
)

# One voice a person, and none for one's own question; the tally loses the others.
_VOICES: Final = text("""
WITH gone AS (
    DELETE FROM question_upvote AS vote USING question
    WHERE question.id = vote.question_id AND vote.member_id IN (:kept, :merged) AND (
        question.member_id IN (:kept, :merged) OR (vote.member_id = :merged AND EXISTS (
            SELECT FROM question_upvote AS mine WHERE mine.question_id = vote.question_id AND mine.member_id = :kept
        ))
    )
    RETURNING vote.question_id, vote.member_id AS voter_id
), lost AS (
    SELECT question_id, count(*) AS votes FROM gone GROUP BY question_id
), counted AS (
    UPDATE question SET upvotes = upvotes - lost.votes FROM lost WHERE question.id = lost.question_id
    RETURNING question.id, question.member_id
)
SELECT counted.id AS question_id, counted.member_id, gone.voter_id FROM gone
JOIN counted ON counted.id = gone.question_id WHERE counted.member_id IS NOT NULL
""")


async def move(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """Give the kept member what the merged one learned, bought and reserved."""
    silenced = await session.execute(_VOICES, {"kept": kept_id, "merged": merged_id})
    await emit(session, *(QuestionUpvoteUndone(**row._asdict()) for row in silenced))
    for statement in _MOVES:
        await session.execute(statement, {"kept": kept_id, "merged": merged_id})
    await _move_points(session, kept_id, merged_id)
    await _move_seats(session, kept_id, merged_id)


async def _move_points(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """One person pays a lesson once; what the other paid goes back."""
    mine = select(col(PointsPayment.lesson_id)).where(
        col(PointsPayment.member_id) == kept_id, col(PointsPayment.status).in_(("pending", "paid"))
    )
    twice = (col(PointsPayment.member_id) == merged_id, col(PointsPayment.lesson_id).in_(mine))
    await give_points_back(session, *twice)
    theirs = update(PointsPayment).where(col(PointsPayment.member_id) == merged_id).values(member_id=kept_id)
    await session.execute(theirs.execution_options(synchronize_session=False))


async def _move_seats(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """One person needs one seat: the better of two stays, the other goes to the queue."""
    theirs = select(col(Enrolment.lesson_id)).where(col(Enrolment.member_id) == merged_id)
    lessons = select(LiveLesson).where(col(LiveLesson.id).in_(theirs)).order_by(col(LiveLesson.id)).with_for_update()
    found = await session.execute(lessons.execution_options(populate_existing=True))
    for lesson in found.scalars().all():
        mine = await session.get(Enrolment, (lesson.id, kept_id), populate_existing=True)
        other = await session.get(Enrolment, (lesson.id, merged_id), populate_existing=True)
        if other is None:
            continue
        if mine is not None:
            worse = max(mine, other, key=lambda seat: (seat.status != "enrolled", seat.place))
            await give_back(session, lesson, worse.member_id)
            if worse is other:
                continue
        await session.execute(
            update(Enrolment)
            .where(col(Enrolment.lesson_id) == lesson.id, col(Enrolment.member_id) == merged_id)
            .values(member_id=kept_id)
            .execution_options(synchronize_session=False)
        )


merging = Merging(move)
