"""The tables of reconciliation: which days were compared, and what differed."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.billing.registry import Model

RunStatus = Literal["running", "done", "failed"]
DifferenceStatus = Literal["open", "repaired"]
Kind = Literal[
    "missing_payment",
    "missing_at_provider",
    "amount_mismatch",
    "parked",
    "surplus_kept",
    "missing_refund",
    "refund_state_differs",
    "missing_dispute",
    "dispute_state_differs",
    "order_differs",
    "double_renewal",
    "ledger_missing",
    "ledger_differs",
    "deferred_differs",
]
Repair = Literal["settle", "record", "follow", "post", "person"]


class Reconciliation(Model, table=True):
    """A comparison of one business day; by itself once a day, and whenever an admin asks."""

    __tablename__ = "reconciliation"
    __table_args__ = (
        Index("reconciliation_daily", "day", unique=True, postgresql_where=text("requested_by IS NULL")),
        Index("reconciliation_recent", "started_at", "id"),
        Index("reconciliation_due", "next_attempt_at", postgresql_where=text("status = 'running'")),
        CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="finished_at"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    day: date
    status: RunStatus = Field(sa_type=String)
    requested_by: UUID | None = None
    payments: int = 0
    refunds: int = 0
    error: str | None = None
    started_at: datetime = Field(sa_column=instant())
    next_attempt_at: datetime = Field(sa_column=instant())
    finished_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class ReconciliationDifference(Model, table=True):
    """One thing on which two of provider, orders and ledger do not agree; `source_id` is our payment or refund, if any."""

    __tablename__ = "reconciliation_difference"
    __table_args__ = (
        Index("reconciliation_difference_run", "reconciliation_id", "position", unique=True),
        Index("reconciliation_difference_order", "order_id", postgresql_where=text("order_id IS NOT NULL")),
        CheckConstraint("(status = 'open') = (repaired_at IS NULL)", name="repaired_at"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    reconciliation_id: UUID = Field(foreign_key="reconciliation.id")
    position: int
    kind: Kind = Field(sa_type=String)
    order_id: UUID | None = None
    source_id: UUID | None = None
    provider_ref: str | None = None
    expected: Any = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    found: Any = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    currency: str | None = None
    repair: Repair = Field(sa_type=String)
    status: DifferenceStatus = Field(default="open", sa_type=String)
    outcome: str | None = None
    repaired_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    repaired_by: UUID | None = None
