"""Announcements: what a course is now, told in the transaction that made it so, to whoever sells it."""

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.courses import CourseChanged
from kit.events import emit
from services.courses.models import Course


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
