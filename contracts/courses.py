"""What courses tells: what was learned, what was asked, and what there is to buy."""

from typing import Literal
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


class WorkFiled(Event, type="courses.work.filed"):
    """A work came on show that was made from a lesson; told by who knows in which category that lesson is."""

    entry_id: UUID
    member_id: UUID
    lesson_id: UUID
    category: str


class QuestionAsked(Event, type="courses.question.asked"):
    """A member asked a question in a live lesson."""

    question_id: UUID
    live_lesson_id: UUID
    member_id: UUID
    asked_at: AwareDatetime


class QuestionUpvoted(Event, type="courses.question.upvoted"):
    """A member found another's question worth asking; told once for each question and voter. `member_id` asked it."""

    question_id: UUID
    member_id: UUID
    voter_id: UUID
    upvoted_at: AwareDatetime


class QuestionUpvoteUndone(Event, type="courses.question.upvote_undone"):
    """A voice that was told counts no more: it was one person's second, or for their own question. `member_id` asked it."""

    question_id: UUID
    member_id: UUID
    voter_id: UUID


class CourseChanged(Event, type="courses.course.changed"):
    """A course is new, was edited or taken away; the whole picture, a listener ignores a version not above the one it holds.

    `amount` in minor units is there for a paid course.
    """

    course_id: UUID
    version: int
    title: str
    access: Literal["free", "member", "paid"]
    amount: int | None = None
    currency: str = "CNY"
    published: bool


class LiveLessonCanceled(Event, type="courses.live_lesson.canceled"):
    """A live lesson will not happen; told once for each. Whoever bought it, with its id as the course's, gets the money back."""

    lesson_id: UUID
    canceled_at: AwareDatetime


class PointsWanted(Event, type="courses.points.wanted"):
    """A member pays with points; members takes them, once for each request, and answers with PointsAnswered."""

    request_id: UUID
    member_id: UUID
    points: int
    purpose: Literal["live_lesson"]
    subject_id: UUID
    wanted_at: AwareDatetime


class PointsReturned(Event, type="courses.points.returned"):
    """Points that were taken for this request go back to the member; told at most once."""

    request_id: UUID
    member_id: UUID
    points: int
    returned_at: AwareDatetime


class CoursesAdminActed(AdminActed, type="courses.admin.acted"):
    """An admin acted in courses; members keeps the audit log."""
