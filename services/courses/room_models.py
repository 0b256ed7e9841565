"""The tables of live lessons' rooms: ways in, what was told, asked and attended."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB, TSTZMULTIRANGE
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.courses.models import Model

PaymentStatus = Literal["pending", "paid", "refused", "returned"]


class Person(Model, table=True):
    """What a member is called, as members told last."""

    __tablename__ = "person"

    member_id: UUID = Field(primary_key=True)
    nickname: str


class PointsBalance(Model, table=True):
    """How many points a member has, as members told last."""

    __tablename__ = "points_balance"

    member_id: UUID = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    balance: int = Field(sa_type=BigInteger)


class LiveGrant(Model, table=True):
    """A live lesson opened to a member by an admin, or by what they earned before an admin changed its ways in."""

    __tablename__ = "live_grant"
    __table_args__ = (Index("live_grant_member", "member_id"),)

    lesson_id: UUID = Field(primary_key=True, foreign_key="live_lesson.id")
    member_id: UUID = Field(primary_key=True)
    reason: str
    granted_at: datetime = Field(sa_column=instant())


class InviteLink(Model, table=True):
    """A member's link to a live lesson; one for each pair."""

    __tablename__ = "invite_link"
    __table_args__ = (
        Index("invite_link_of", "member_id", "lesson_id", unique=True),
        Index("invite_link_token", "token", unique=True),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    lesson_id: UUID = Field(foreign_key="live_lesson.id")
    member_id: UUID
    token: str
    created_at: datetime = Field(sa_column=instant())


class Arrival(Model, table=True):
    """A person who registered through a link; one registers once, so arrives once."""

    __tablename__ = "arrival"
    __table_args__ = (Index("arrival_link", "link_id"),)

    member_id: UUID = Field(primary_key=True)
    link_id: UUID = Field(foreign_key="invite_link.id")
    arrived_at: datetime = Field(sa_column=instant())


class PointsPayment(Model, table=True):
    """Points that a member pays for a live lesson; members takes them, or says that there are not enough."""

    __tablename__ = "points_payment"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'paid', 'refused', 'returned')", name="status"),
        CheckConstraint("points > 0", name="points"),
        Index(
            "points_payment_open",
            "lesson_id",
            "member_id",
            unique=True,
            postgresql_where=text("status IN ('pending', 'paid')"),
        ),
        Index("points_payment_member", "member_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    lesson_id: UUID = Field(foreign_key="live_lesson.id")
    member_id: UUID
    points: int = Field(sa_column=Column(BigInteger, nullable=False))
    balance: int | None = Field(default=None, sa_column=Column(BigInteger))
    status: PaymentStatus = Field(default="pending", sa_type=String)
    asked_at: datetime = Field(sa_column=instant())


class ShareSwitch(Model, table=True):
    """Whether members of one channel are offered to invite others; a channel without a row is."""

    __tablename__ = "share_switch"
    __table_args__ = (CheckConstraint("channel IN ('mini_program', 'h5', 'app')", name="channel"),)

    channel: str = Field(primary_key=True)
    invites: bool


class LiveRoom(Model, table=True):
    """A live lesson's room: the number of what was told last, and its life at the provider."""

    __tablename__ = "live_room"
    __table_args__ = (
        Index("live_room_to_close", "next_attempt_at", postgresql_where=text("closed_at IS NULL AND close_wanted")),
    )

    lesson_id: UUID = Field(primary_key=True, foreign_key="live_lesson.id")
    told: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    opened_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    close_wanted: bool = False
    closed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class LiveEvent(Model, table=True):
    """Something told to everyone who follows a live lesson; numbers of a lesson are given in the order of commits."""

    __tablename__ = "live_event"

    lesson_id: UUID = Field(primary_key=True, foreign_key="live_lesson.id")
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    kind: str
    body: Any = Field(sa_column=Column(JSONB, nullable=False))
    at: datetime = Field(sa_column=instant())


class RoomEvidence(Model, table=True):
    """What the room's provider said of somebody's coming and going; it is unreliable, so it only adds evidence."""

    __tablename__ = "room_evidence"
    __table_args__ = (Index("room_evidence_member", "member_id"), Index("room_evidence_lesson", "lesson_id"))

    id: str = Field(primary_key=True)
    lesson_id: UUID = Field(foreign_key="live_lesson.id")
    member_id: UUID | None = None
    kind: str
    at: datetime = Field(sa_column=instant())


class Question(Model, table=True):
    """A question in a live lesson; `upvotes` is a tally of its upvote rows, kept in the same transaction."""

    __tablename__ = "question"
    __table_args__ = (
        CheckConstraint("upvotes >= 0", name="upvotes"),
        Index("question_lesson", "lesson_id"),
        Index("question_member", "member_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    lesson_id: UUID = Field(foreign_key="live_lesson.id")
    member_id: UUID | None = None
    text: str
    priority: bool
    upvotes: int = 0
    asked_at: datetime = Field(sa_column=instant())


class QuestionUpvote(Model, table=True):
    """A member who would like a question answered."""

    __tablename__ = "question_upvote"
    __table_args__ = (Index("question_upvote_member", "member_id"),)

    question_id: UUID = Field(primary_key=True, foreign_key="question.id")
    member_id: UUID = Field(primary_key=True)
    upvoted_at: datetime = Field(sa_column=instant())


class QuestionAnswer(Model, table=True):
    """An answer by a member, or by an admin, who has no `member_id`."""

    __tablename__ = "question_answer"
    __table_args__ = (Index("question_answer_of", "question_id", "id"), Index("question_answer_member", "member_id"))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    question_id: UUID = Field(foreign_key="question.id")
    member_id: UUID | None = None
    by_admin: bool
    text: str
    answered_at: datetime = Field(sa_column=instant())


class Attendance(Model, table=True):
    """When a member was there, each second once."""

    __tablename__ = "attendance"
    __table_args__ = (Index("attendance_member", "member_id"),)

    lesson_id: UUID = Field(primary_key=True, foreign_key="live_lesson.id")
    member_id: UUID = Field(primary_key=True)
    spans: Any = Field(sa_column=Column(TSTZMULTIRANGE, nullable=False))
