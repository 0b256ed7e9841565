"""The tables of membership time: its segments, its version, and what was heard that bears on them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, Index, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.members.models import Model

Pause = list[str | None]
"""From when until when a segment is suspended, two RFC 3339 instants; None while nobody knows until when."""


def _words() -> Column[list[str]]:
    return Column(ARRAY(String), nullable=False, server_default=text("'{}'"))


class Segment(Model, table=True):
    """One piece of membership time; its span is a cache rewritten whenever the member's ledger changes.

    `revoked_at` is what a refund, an admin or a lost reward did; `pauses` are what disputes of its payment did.
    """

    __tablename__ = "segment"
    __table_args__ = (
        UniqueConstraint("source", "source_id"),
        CheckConstraint("(months > 0 AND days = 0) OR (months = 0 AND days > 0)", name="months_or_days"),
        CheckConstraint("starts_at IS NULL OR starts_at <= ends_at", name="span"),
        Index("segment_member_id_ends_at_idx", "member_id", "ends_at"),
        Index("segment_ends_at_idx", "ends_at", "starts_at", "member_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID
    source: str
    source_id: UUID
    plan_code: str
    months: int = 0
    days: int = 0
    benefits: list[str] = Field(default_factory=list, sa_column=_words())
    added_at: datetime = Field(sa_column=instant())
    not_before: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    pauses: list[Pause] = Field(
        default_factory=list, sa_column=Column(JSONB, nullable=False, server_default=text("'[]'"))
    )
    starts_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    ends_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))

    @property
    def out_since(self) -> datetime | None:
        """Since when it is out of the ledger, for good or while a dispute lasts; None for a live one."""
        open_since = [datetime.fromisoformat(start) for start, end in self.pauses if start and end is None]
        return min([*open_since, *([self.revoked_at] if self.revoked_at else [])], default=None)


class MembershipVersion(Model, table=True):
    """How often a member's ledger changed; its row is the lock under which it changes.

    `renewing` is whether a subscription will be charged again, `grace_until` the end of the access that this leaves
    after the last paid instant.
    """

    __tablename__ = "membership_version"
    __table_args__ = (
        Index(
            "membership_version_grace_until_idx",
            "grace_until",
            "member_id",
            postgresql_where=text("grace_until IS NOT NULL"),
        ),
    )

    member_id: UUID = Field(primary_key=True)
    version: int = 0
    renewing: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    grace_until: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class EarlyRevocation(Model, table=True):
    """A refund heard before the payment it undoes."""

    __tablename__ = "early_revocation"

    source: str = Field(primary_key=True)
    source_id: UUID = Field(primary_key=True)
    revoked_at: datetime = Field(sa_column=instant())


class Dispute(Model, table=True):
    """A step of a dispute about the payment behind a segment, whether or not the segment is there yet."""

    __tablename__ = "dispute"

    source: str = Field(primary_key=True)
    source_id: UUID = Field(primary_key=True)
    at: datetime = Field(sa_column=instant(primary_key=True))
    outcome: str = Field(primary_key=True)
    removes_time: bool


class Renewal(Model, table=True):
    """How a member's auto-renewal stands, as billing told it last."""

    __tablename__ = "renewal"
    __table_args__ = (Index("renewal_member_id_idx", "member_id"),)

    subscription_id: UUID = Field(primary_key=True)
    member_id: UUID
    version: int
    status: str
    renewing: bool


class PlanBenefits(Model, table=True):
    """The benefits of a plan: as the plan's newest revision told, else as the latest paid order showed them."""

    __tablename__ = "plan_benefits"

    plan_code: str = Field(primary_key=True)
    benefits: list[str] = Field(default_factory=list, sa_column=_words())
    seen_at: datetime = Field(sa_column=instant())
    revision: int | None = None
