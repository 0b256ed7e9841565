"""Announcements: what a course, or a live lesson for sale, is now, told in the transaction that made it so to who sells it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.courses import CourseChanged
from kit.events import emit
from services.courses.models import Course, LiveLesson


async def announce(session: AsyncSession, *courses: Course) -> None:
    """Tell what these courses are; their changes must be flushed."""
    await emit(session, *map(_picture, courses))


def _picture(course: Course) -> CourseChanged:
    return CourseChanged(
        course_id=course.id,
        version=course.version,
        title=course.title,
        access=course.access,
        amount=course.amount,
        currency=course.currency,
        published=course.published and course.deleted_at is None,
    )


async def offer(
    session: AsyncSession, lesson: LiveLesson, usual_amount: int, before: Sequence[dict[str, Any]] = ()
) -> None:
    """Tell what a live lesson costs that can be bought, or could `before`: it is sold as a course with the lesson's id."""
    way = next((way for way in lesson.access if way["kind"] == "purchase"), None)
    if way is None and all(way["kind"] != "purchase" for way in before):
        return
    picture = CourseChanged(
        course_id=lesson.id,
        version=lesson.version,
        title=lesson.title,
        access="paid" if way else "free",
        amount=(way.get("amount") or usual_amount) if way else None,
        published=lesson.deleted_at is None and lesson.status not in {"draft", "canceled"},
    )
    await emit(session, picture)
