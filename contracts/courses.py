"""What courses tells: what was learned."""

from uuid import UUID

from pydantic import AwareDatetime

from kit.audit import AdminActed
from kit.events import Event


class LessonCompleted(Event, type="courses.lesson.completed"):
    """A member finished a lesson; told once for each member and lesson."""

    member_id: UUID
    lesson_id: UUID
    course_id: UUID
    category: str | None = None
    completed_at: AwareDatetime


class CoursesAdminActed(AdminActed, type="courses.admin.acted"):
    """An admin acted in courses; members keeps the audit log."""
