"""The tables of grants in bulk: a file of members who are given a coupon each, and what became of every row."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.referrals.models import Model


class GrantBatch(Model, table=True):
    """A file of members; the same file for the same campaign is the same batch."""

    __tablename__ = "grant_batch"
    __table_args__ = (
        UniqueConstraint("campaign_id", "digest", name="grant_batch_campaign_digest_key"),
        Index("grant_batch_campaign_id_idx", "campaign_id", "created_at", "id"),
        Index("grant_batch_unfinished_idx", "created_at", "id", postgresql_where=text("finished_at IS NULL")),
        CheckConstraint("granted >= 0 AND refused >= 0 AND granted + refused <= rows", name="counts"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    campaign_id: UUID = Field(foreign_key="campaign.id")
    file_name: str
    digest: bytes
    rows: int
    granted: int = 0
    refused: int = 0
    requested_by: UUID
    created_at: datetime = Field(sa_column=instant())
    finished_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class GrantRow(Model, table=True):
    """A member of a file; `number` counts the header as row 1, the note is the admin's own."""

    __tablename__ = "grant_row"
    __table_args__ = (
        Index("grant_row_member_id_idx", "member_id"),
        Index("grant_row_status_idx", "batch_id", "status", "number"),
        CheckConstraint("status IN ('waiting', 'granted', 'refused')", name="status"),
    )

    batch_id: UUID = Field(primary_key=True, foreign_key="grant_batch.id")
    number: int = Field(primary_key=True)
    member_id: UUID
    note: str | None = None
    status: str = "waiting"
    code: str | None = None
    coupon_id: UUID | None = Field(default=None, foreign_key="coupon.id")
