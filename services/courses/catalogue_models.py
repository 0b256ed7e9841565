"""The tables around courses: who teaches them, what they belong to, what comes with their lessons."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, String, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.courses.models import Model


class Instructor(Model, table=True):
    """Who teaches courses, as members see them; `member_id` is their own account, if they have one here."""

    __tablename__ = "instructor"
    __table_args__ = (
        Index("instructor_shown", "name", "id", postgresql_where=text("deleted_at IS NULL")),
        Index("instructor_member", "member_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID | None = None
    name: str = Field(sa_type=String)
    title: str
    bio: str
    avatar_url: str | None = None
    verified_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    updated_at: datetime = Field(sa_column=instant())
    deleted_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Series(Model, table=True):
    """Courses that belong together, in the order in which they are best taken."""

    __tablename__ = "series"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    title: str
    description: str
    published: bool
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    updated_at: datetime = Field(sa_column=instant())
    deleted_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class SeriesCourse(Model, table=True):
    """A course's place in a series; `position` counts from 1."""

    __tablename__ = "series_course"
    __table_args__ = (Index("series_course_of", "course_id"),)

    series_id: UUID = Field(primary_key=True, foreign_key="series.id")
    course_id: UUID = Field(primary_key=True, foreign_key="course.id")
    position: int


class Attachment(Model, table=True):
    """A file that comes with a lesson, kept by the provider of media under `attachment-<id>`."""

    __tablename__ = "attachment"
    __table_args__ = (
        Index("attachment_lesson", "lesson_id", "id"),
        Index("attachment_discarded", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    lesson_id: UUID = Field(foreign_key="lesson.id")
    name: str
    media_type: str
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = Field(sa_column=instant())
    deleted_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
