"""The tables of the courses service."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Float, Identity, Index, SmallInteger, String, text
from sqlalchemy.dialects.postgresql import INT4MULTIRANGE, JSONB, TSTZMULTIRANGE
from sqlmodel import Field, SQLModel

from contracts.erasing import ErasedMemberColumns
from contracts.merging import MergedMemberColumns
from kit.db import UNCHECKED, instant, new_registry
from kit.ids import new_id

Level = Literal["beginner", "intermediate", "advanced"]
CourseAccess = Literal["free", "member", "paid"]
LiveStatus = Literal["draft", "scheduled", "live", "paused", "ended", "replay_ready", "canceled"]
SeatStatus = Literal["enrolled", "waitlisted"]


class Model(SQLModel, registry=new_registry()):
    """A table of this service."""

    model_config = UNCHECKED


class Course(Model, table=True):
    """A course; its rating is a tally of its lessons' rating rows, kept in the same transaction."""

    __tablename__ = "course"
    __table_args__ = (
        CheckConstraint("level IN ('beginner', 'intermediate', 'advanced')", name="level"),
        CheckConstraint("access IN ('free', 'member', 'paid')", name="access"),
        CheckConstraint("(access = 'paid') = (amount IS NOT NULL) AND amount > 0", name="amount"),
        CheckConstraint("rating_count >= rating_negative AND rating_negative >= 0", name="rating"),
        Index("course_title", "title"),
        Index("course_instructor", "instructor_id", postgresql_where=text("instructor_id IS NOT NULL")),
        Index("course_shown", "id", postgresql_where=text("published AND deleted_at IS NULL")),
        Index("course_not_indexed", "id", postgresql_where=text("indexed_version <> version")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    # A plain String tells keyset pages its Python type, which SQLModel's own text type does not.
    title: str = Field(sa_type=String)
    description: str
    category: str
    level: Level = Field(sa_type=String)
    access: CourseAccess = Field(sa_type=String)
    amount: int | None = Field(default=None, sa_column=Column(BigInteger))
    currency: str = "CNY"
    instructor_id: UUID | None = Field(default=None, foreign_key="instructor.id")
    published: bool
    version: int = 1
    # Which version can be searched by its words; any other is searched as it stands.
    indexed_version: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    rating_count: int = 0
    rating_sum: int = 0
    rating_negative: int = 0
    rating_positive: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    rating_mean: float = Field(default=0.0, sa_column=Column(Float, nullable=False))
    created_at: datetime = Field(sa_column=instant())
    updated_at: datetime = Field(sa_column=instant())
    deleted_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Lesson(Model, table=True):
    """A lesson of a course; `position` counts from 1 without gaps, `media` names a file of the media folder."""

    __tablename__ = "lesson"
    __table_args__ = (
        CheckConstraint("duration_s > 0", name="duration_s"),
        Index("lesson_course", "course_id", "position", postgresql_where=text("deleted_at IS NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    course_id: UUID = Field(foreign_key="course.id")
    title: str
    description: str
    duration_s: int
    position: int
    media: str | None = None
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    updated_at: datetime = Field(sa_column=instant())
    deleted_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class MediaKey(Model, table=True):
    """The one secret that signs playback links."""

    __tablename__ = "media_key"

    only: int = Field(sa_column=Column(SmallInteger, primary_key=True))
    key: bytes


class Access(Model, table=True):
    """When a member's time opens which benefit, as of the membership's `version`."""

    __tablename__ = "access"

    member_id: UUID = Field(primary_key=True)
    version: int = Field(sa_column=Column(BigInteger, nullable=False))
    member_lessons: Any = Field(sa_column=Column(TSTZMULTIRANGE, nullable=False))
    live_priority: Any = Field(sa_column=Column(TSTZMULTIRANGE, nullable=False))
    live_replay: Any = Field(sa_column=Column(TSTZMULTIRANGE, nullable=False))
    qa_priority: Any = Field(sa_column=Column(TSTZMULTIRANGE, nullable=False))


class Purchase(Model, table=True):
    """A course that an order bought; refunds and disputes may be heard of before the payment.

    `suspended` is what the last told dispute does to it.
    """

    __tablename__ = "purchase"
    __table_args__ = (Index("purchase_member", "member_id", "course_id"),)

    order_id: UUID = Field(primary_key=True)
    member_id: UUID | None = None
    course_id: UUID | None = None
    paid_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    refunded_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    suspended: bool = False
    dispute_told_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Progress(Model, table=True):
    """The seconds of a lesson that a member has watched, each counted once."""

    __tablename__ = "progress"
    __table_args__ = (
        CheckConstraint("position_s >= 0", name="position_s"),
        Index("progress_recent", "member_id", "updated_at", "lesson_id"),
    )

    member_id: UUID = Field(primary_key=True)
    lesson_id: UUID = Field(primary_key=True, foreign_key="lesson.id")
    watched: Any = Field(sa_column=Column(INT4MULTIRANGE, nullable=False))
    position_s: int
    updated_at: datetime = Field(sa_column=instant())


class Completion(Model, table=True):
    """A lesson that a member finished: written once, whatever becomes of the lesson.

    `duration_s` is how long it was then, `course_version` which version of its course it belonged to.
    """

    __tablename__ = "completion"
    __table_args__ = (Index("completion_lesson", "lesson_id", "member_id"),)

    member_id: UUID = Field(primary_key=True)
    lesson_id: UUID = Field(primary_key=True, foreign_key="lesson.id")
    completed_at: datetime = Field(sa_column=instant())
    duration_s: int | None = None
    course_version: int | None = None


class CourseCompletion(Model, table=True):
    """A course that a member had finished as it was in `version`, when a change of its lessons was published."""

    __tablename__ = "course_completion"
    __table_args__ = (Index("course_completion_course", "course_id"),)

    member_id: UUID = Field(primary_key=True)
    course_id: UUID = Field(primary_key=True, foreign_key="course.id")
    version: int
    lessons: int
    completed_at: datetime = Field(sa_column=instant())


class Rating(Model, table=True):
    """What one member thinks of one lesson."""

    __tablename__ = "rating"
    __table_args__ = (CheckConstraint("score BETWEEN 1 AND 5", name="score"), Index("rating_member", "member_id"))

    lesson_id: UUID = Field(primary_key=True, foreign_key="lesson.id")
    member_id: UUID = Field(primary_key=True)
    score: int = Field(sa_column=Column(SmallInteger, nullable=False))
    comment: str | None = None
    updated_at: datetime = Field(sa_column=instant())


class LiveLesson(Model, table=True):
    """A lesson at a fixed hour; whoever changes its seats holds its row, so the two counts are exact.

    `general` counts those enrolled without the benefit that opens the `priority_seats`; `media` names its recording.
    """

    __tablename__ = "live_lesson"
    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="span"),
        CheckConstraint(
            "status IN ('draft', 'scheduled', 'live', 'paused', 'ended', 'replay_ready', 'canceled')", name="status"
        ),
        CheckConstraint("capacity > 0 AND priority_seats BETWEEN 0 AND capacity", name="capacity"),
        CheckConstraint("enrolled <= capacity AND general BETWEEN 0 AND enrolled", name="enrolled"),
        CheckConstraint("instructor IS NOT NULL OR instructor_id IS NOT NULL", name="instructor"),
        Index("live_lesson_calendar", "starts_at", "id", postgresql_where=text("deleted_at IS NULL")),
        Index("live_lesson_running", "ends_at", postgresql_where=text("status IN ('live', 'paused')")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    title: str
    description: str
    instructor: str | None = None
    instructor_id: UUID | None = None
    starts_at: datetime = Field(sa_column=instant())
    ends_at: datetime = Field(sa_column=instant())
    zone: str
    capacity: int | None = None
    priority_seats: int = 0
    enrolled: int = 0
    general: int = 0
    access: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    media: str | None = None
    status: LiveStatus = Field(default="draft", sa_type=String)
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    updated_at: datetime = Field(sa_column=instant())
    deleted_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Enrolment(Model, table=True):
    """A member's seat in a live lesson, or their place in its queue, which `place` orders."""

    __tablename__ = "enrolment"
    __table_args__ = (
        CheckConstraint("status IN ('enrolled', 'waitlisted')", name="status"),
        Index("enrolment_queue", "lesson_id", "place", postgresql_where=text("status = 'waitlisted'")),
        Index("enrolment_member", "member_id"),
    )

    lesson_id: UUID = Field(primary_key=True, foreign_key="live_lesson.id")
    member_id: UUID = Field(primary_key=True)
    status: SeatStatus = Field(sa_type=String)
    priority: bool
    place: int = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    enrolled_at: datetime = Field(sa_column=instant())


class MergedMember(MergedMemberColumns, Model, table=True):
    """Whose account became part of whose."""

    __tablename__ = "merged_member"


class ErasedMember(ErasedMemberColumns, Model, table=True):
    """Who left."""

    __tablename__ = "erased_member"
