"""Ratings: a member's score of a lesson, one each, tallied on its course."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.shapes import In, Out, Text
from services.courses.courses import RatingTally, tally
from services.courses.lessons import REFUSALS, WatchableLesson

router = new_router(prefix="/v1/lessons/{lesson_id}/rating", tags=["lessons"])


NEGATIVE, POSITIVE = 2, 4
"""Scores of so much or less, and of so much or more."""


class RatingIn(In):
    """A score from 1 to 5, with or without words."""

    score: Annotated[int, Field(strict=True, ge=1, le=5)]
    comment: Text(0, 1000) | None = None  # type: ignore[valid-type]


class RatingOut(Out):
    """The caller's rating, and the course's as it is now."""

    score: int
    comment: str | None
    rating: RatingTally


_HELD = text("SELECT score FROM rating WHERE lesson_id = :lesson_id AND member_id = :member_id FOR UPDATE")
_FIRST = text(
    "INSERT INTO rating (lesson_id, member_id, score, comment, updated_at) "
    "VALUES (:lesson_id, :member_id, :score, :comment, :now) ON CONFLICT DO NOTHING RETURNING score"
)
_AGAIN = text(
    "UPDATE rating SET score = :score, comment = :comment, updated_at = :now "
    "WHERE lesson_id = :lesson_id AND member_id = :member_id"
)
_TALLY = text(
    "UPDATE course SET rating_sum = rating_sum + :sum, rating_count = rating_count + :count, "
    "rating_negative = rating_negative + :negative, rating_positive = rating_positive + :positive, rating_mean = coalesce("
    "(rating_sum + :sum)::float8 / nullif(rating_count + :count, 0), 0) "
    "WHERE id = :course_id RETURNING rating_sum, rating_count, rating_negative, rating_positive"
)


@router.put("", responses=REFUSALS)
async def rate_lesson(body: RatingIn, lesson: WatchableLesson, caller: MemberDep, session: SessionDep) -> RatingOut:
    """Rate a lesson; a second rating replaces the first."""
    row = {"lesson_id": lesson.id, "member_id": caller.id, "now": clock.now()}
    row |= {"score": body.score, "comment": body.comment or None}
    held: int | None = None
    if (await session.execute(_FIRST, row)).first() is None:
        held = (await session.execute(_HELD, {"lesson_id": lesson.id, "member_id": caller.id})).scalar_one()
        await session.execute(_AGAIN, row)
    tallied = await _tally(session, lesson.course_id, held, body.score)
    return RatingOut(score=body.score, comment=row["comment"], rating=RatingTally.model_validate(tallied))


async def _tally(session: AsyncSession, course_id: UUID, held: int | None, score: int) -> dict[str, Any]:
    change = {
        "course_id": course_id,
        "sum": score - (held or 0),
        "count": int(held is None),
        "negative": int(score <= NEGATIVE) - int(held is not None and held <= NEGATIVE),
        "positive": int(score >= POSITIVE) - int(held is not None and held >= POSITIVE),
    }
    row = (await session.execute(_TALLY, change)).one()
    return tally(*row)
