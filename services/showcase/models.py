"""The tables of the showcase service."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from contracts.erasing import ErasedMemberColumns
from contracts.merging import MergedMemberColumns
from kit.db import UNCHECKED, instant, new_registry
from kit.ids import new_id


class Model(SQLModel, registry=new_registry()):
    """A table of this service."""

    model_config = UNCHECKED


class MemberCard(Model, table=True):
    """What showcase knows of a member: from events, in whatever order they came.

    `tree_id` is the member at the root of the invitations that led here, null for one whom nobody invited; `device` is a
    keyed digest of the device they registered on.
    """

    __tablename__ = "member_card"
    __table_args__ = (Index("member_card_tree_id_idx", "tree_id", postgresql_where=text("tree_id IS NOT NULL")),)

    member_id: UUID = Field(primary_key=True)
    nickname: str = ""
    registered_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    invite_code: str | None = None
    tree_id: UUID | None = None
    device: bytes | None = None
    changed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Contest(Model, table=True):
    """A call for works; its phase follows from the clock, and from `settled_at`.

    `signal_secret` keys the signals of its votes, so that they compare with those of no other contest; it is destroyed at
    settlement, and then they tell nothing beyond which are equal.
    """

    __tablename__ = "contest"
    __table_args__ = (
        CheckConstraint("ends_at > starts_at", name="span"),
        CheckConstraint("accounts_before <= ends_at", name="accounts"),
        CheckConstraint("votes_per_day BETWEEN 1 AND 1000", name="votes_per_day"),
        CheckConstraint("moderation IN ('pre', 'post')", name="moderation"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    title: str
    rules: str
    starts_at: datetime = Field(sa_column=instant())
    ends_at: datetime = Field(sa_column=instant())
    votes_per_day: int
    accounts_before: datetime = Field(sa_column=instant())
    moderation: str
    hide_totals: bool
    prizes: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    settled_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    signal_secret: bytes | None = Field(
        default=None, sa_column=Column(LargeBinary, server_default=text("uuid_send(gen_random_uuid())"))
    )


class Upload(Model, table=True):
    """A picture a member brought; `content` names its files, which are all there once it is `stored`."""

    __tablename__ = "upload"
    __table_args__ = (Index("upload_unfinished_idx", "created_at", postgresql_where=text("NOT stored")),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID = Field(index=True)
    content: str = Field(index=True)
    suffix: str
    width: int
    height: int
    stored: bool = False
    created_at: datetime = Field(sa_column=instant())


class Entry(Model, table=True):
    """A work in a contest."""

    __tablename__ = "entry"
    __table_args__ = (
        Index("entry_contest_id_idx", "contest_id", "status", "id"),
        Index("entry_member_id_idx", "member_id", "id"),
        CheckConstraint("status IN ('pending', 'approved', 'rejected', 'withdrawn')", name="status"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    contest_id: UUID = Field(foreign_key="contest.id")
    member_id: UUID
    title: str
    story: str
    lesson_id: UUID | None = None
    status: str
    reason: str | None = None
    submitted_at: datetime = Field(sa_column=instant())
    approved_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class EntryImage(Model, table=True):
    """A picture of an entry, in its place; an upload stands in a contest once, until its entry is withdrawn."""

    __tablename__ = "entry_image"
    __table_args__ = (
        Index("entry_image_standing_key", "contest_id", "upload_id", unique=True, postgresql_where=text("standing")),
    )

    entry_id: UUID = Field(primary_key=True, foreign_key="entry.id")
    position: int = Field(primary_key=True)
    contest_id: UUID
    upload_id: UUID = Field(foreign_key="upload.id", index=True)
    standing: bool = True


class Vote(Model, table=True):
    """One vote of a member on a business day.

    `slot` is its number among that member's votes of the day in the contest: that it is unique, and never above the
    contest's `votes_per_day`, is what holds the limit however many processes write. Entries and contests are never
    deleted once they have votes, and a check of two foreign keys for every vote would cost a third of the throughput.

    Its signals are what rules of quarantine judge by: whole hours the account was old, and keyed digests, comparable
    within the contest alone, of the address' prefix, the device and the invite tree. `quarantine` names the rule that
    took the vote out: it stands, and does not count.
    """

    __tablename__ = "vote"
    __table_args__ = (
        UniqueConstraint("contest_id", "member_id", "day", "slot"),
        CheckConstraint("slot BETWEEN 1 AND 1000", name="slot"),
    )

    entry_id: UUID = Field(primary_key=True)
    member_id: UUID = Field(primary_key=True)
    day: date = Field(primary_key=True)
    contest_id: UUID
    slot: int
    cast_at: datetime = Field(sa_column=instant())
    account_hours: int
    address: bytes | None = None
    device: bytes | None = None
    tree: bytes
    quarantine: str | None = None


class Tally(Model, table=True):
    """How many votes count for an entry, written in the statement that writes them; `changes` orders copies of it."""

    __tablename__ = "tally"
    # Room on each page lets PostgreSQL update in place (HOT): a hot entry changes thousands of times a second.
    __table_args__ = (CheckConstraint("votes >= 0", name="votes"), {"postgresql_with": {"fillfactor": "50"}})

    entry_id: UUID = Field(primary_key=True, foreign_key="entry.id")
    votes: int = 0
    changes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default=text("0")))


class Comment(Model, table=True):
    """What somebody wrote under an entry."""

    __tablename__ = "comment"
    __table_args__ = (Index("comment_entry_id_idx", "entry_id", "id"), Index("comment_member_id_idx", "member_id"))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    entry_id: UUID = Field(foreign_key="entry.id")
    member_id: UUID
    text: str
    created_at: datetime = Field(sa_column=instant())


class Result(Model, table=True):
    """An entry's final place, written once when its contest is settled, with every key of the tie chain."""

    __tablename__ = "result"
    __table_args__ = (UniqueConstraint("contest_id", "rank"),)

    entry_id: UUID = Field(primary_key=True, foreign_key="entry.id")
    contest_id: UUID = Field(foreign_key="contest.id")
    rank: int
    votes: int
    trees: int
    reached_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    submitted_at: datetime = Field(sa_column=instant())
    tie_break: str | None = None
    prize: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB))


class MergedMember(MergedMemberColumns, Model, table=True):
    """Whose account became part of whose."""

    __tablename__ = "merged_member"


class ErasedMember(ErasedMemberColumns, Model, table=True):
    """Who left."""

    __tablename__ = "erased_member"
