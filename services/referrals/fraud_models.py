"""The tables of fraud cases: what was noticed, about whom, and what waits for a person's word."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.referrals.models import Model


class FraudCase(Model, table=True):
    """Something that looks wrong; there is one open case for each kind and thing it is about."""

    __tablename__ = "fraud_case"
    __table_args__ = (
        CheckConstraint("status IN ('open', 'released', 'voided')", name="status"),
        Index("fraud_case_open_key", "kind", "subject", unique=True, postgresql_where=text("status = 'open'")),
        Index("fraud_case_subject_idx", "kind", "subject", "resolved_at"),
        Index("fraud_case_status_idx", "status", "created_at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    kind: str
    subject: str
    status: str = "open"
    evidence: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSONB, nullable=False))
    created_at: datetime = Field(sa_column=instant())
    resolved_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    resolved_by: UUID | None = None
    reason: str | None = None


class FraudCaseMember(Model, table=True):
    """A member a case is about; what they earn others waits while `holds` and the case is open."""

    __tablename__ = "fraud_case_member"

    case_id: UUID = Field(primary_key=True, foreign_key="fraud_case.id")
    member_id: UUID = Field(primary_key=True, index=True)
    holds: bool


class FraudHold(Model, table=True):
    """A reward that waits for the end of a case."""

    __tablename__ = "fraud_hold"

    case_id: UUID = Field(primary_key=True, foreign_key="fraud_case.id")
    reward_id: UUID = Field(primary_key=True, foreign_key="reward.id", index=True)
