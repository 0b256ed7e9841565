"""The tables of the live rhythm: private calendars, reminders, what members want taught."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, String
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.courses.models import Model


class CalendarFeed(Model, table=True):
    """The token of a member's private calendar."""

    __tablename__ = "calendar_feed"
    __table_args__ = (Index("calendar_feed_token", "token", unique=True),)

    member_id: UUID = Field(primary_key=True)
    token: str
    created_at: datetime = Field(sa_column=instant())


class LiveReminder(Model, table=True):
    """A reminder that was sent for a lesson at this start; a new start is reminded of anew."""

    __tablename__ = "live_reminder"

    lesson_id: UUID = Field(primary_key=True, foreign_key="live_lesson.id")
    kind: str = Field(primary_key=True)
    starts_at: datetime = Field(sa_column=instant(primary_key=True))


class LessonRequest(Model, table=True):
    """What a member wants taught; `votes` is a tally of its vote rows, `live_lesson_id` what became of it."""

    __tablename__ = "lesson_request"
    __table_args__ = (CheckConstraint("votes >= 0", name="votes"), Index("lesson_request_member", "member_id"))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID | None = None
    title: str = Field(sa_type=String)
    votes: int = 0
    live_lesson_id: UUID | None = Field(default=None, foreign_key="live_lesson.id")
    created_at: datetime = Field(sa_column=instant())


class LessonRequestVote(Model, table=True):
    """A member who wants it, too."""

    __tablename__ = "lesson_request_vote"
    __table_args__ = (Index("lesson_request_vote_member", "member_id"),)

    request_id: UUID = Field(primary_key=True, foreign_key="lesson_request.id")
    member_id: UUID = Field(primary_key=True)
    voted_at: datetime = Field(sa_column=instant())
