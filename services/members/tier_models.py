"""The tables of tiers: what a tier is judged by, and who got which when."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.members.models import Model


class Evidence(Model, table=True):
    """One thing that speaks for a member's tier or roles: a lesson finished, a work approved, a question asked."""

    __tablename__ = "evidence"
    __table_args__ = (Index("evidence_kind_at_idx", "kind", "at"),)

    member_id: UUID = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    reference: UUID = Field(primary_key=True)
    lesson_id: UUID | None = None
    at: datetime = Field(sa_column=instant())


class LessonCategory(Model, table=True):
    """The category of a lesson, as courses told it."""

    __tablename__ = "lesson_category"

    lesson_id: UUID = Field(primary_key=True)
    category: str


class TierChange(Model, table=True):
    """A member's tier changed: why, and what the evidence was."""

    __tablename__ = "tier_change"
    __table_args__ = (Index("tier_change_member_id_idx", "member_id", "at", "id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID
    before: str
    after: str
    cause: str
    evidence: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    at: datetime = Field(sa_column=instant())
