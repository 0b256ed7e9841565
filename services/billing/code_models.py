"""The tables of codes: batches that admins make, and every code, of a batch or of a gift."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, Index, LargeBinary, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.billing.registry import Model


class CodeBatch(Model, table=True):
    """Codes made at once; `seed` makes them again until they were downloaded. What they give stays as it was then."""

    __tablename__ = "code_batch"
    __table_args__ = (
        CheckConstraint("count > 0 AND months > 0", name="count"),
        CheckConstraint("(seed IS NULL) = (downloaded_at IS NOT NULL)", name="seed"),
        Index("code_batch_recent", "created_at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    plan_code: str = Field(foreign_key="plan.code")
    months: int
    benefits: list[str] = Field(sa_column=Column(ARRAY(String), nullable=False))
    count: int
    expires_at: datetime = Field(sa_column=instant())
    note: str
    seed: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    created_at: datetime = Field(sa_column=instant())
    downloaded_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    voided_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class RedeemCode(Model, table=True):
    """A code by its digest, of a batch or of an order that is a gift; its redeemer got `segment_id`, `first_time` or not."""

    __tablename__ = "redeem_code"
    __table_args__ = (
        CheckConstraint("(batch_id IS NULL) <> (order_id IS NULL)", name="source"),
        CheckConstraint(
            "(status = 'redeemed') = (member_id IS NOT NULL) AND (status = 'redeemed') = (redeemed_at IS NOT NULL) "
            "AND (status = 'redeemed') = (segment_id IS NOT NULL)",
            name="redeemed",
        ),
        Index("redeem_code_batch", "batch_id", "status"),
        Index("redeem_code_member", "member_id", "redeemed_at"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    code_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    batch_id: UUID | None = Field(default=None, foreign_key="code_batch.id")
    order_id: UUID | None = Field(default=None, foreign_key="order.id", unique=True)
    status: Literal["unpaid", "open", "redeemed", "void"] = Field(sa_type=String)
    expires_at: datetime = Field(sa_column=instant())
    member_id: UUID | None = None
    segment_id: UUID | None = Field(default=None, unique=True)
    first_time: bool | None = None
    redeemed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
