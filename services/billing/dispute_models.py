"""The table of disputes."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, String, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.billing.registry import Model

DisputeStatus = Literal["inquiry", "open", "won", "lost", "closed", "parked"]


class Dispute(Model, table=True):
    """A payer's bank that asks for the money of a payment back, as the provider told it last.

    `inquiry` asks without taking, `closed` is one that took nothing in the end, `parked` waits for a person, who finds
    the reason in `note`. `opened_at` is when its order became disputed, `decided_at` when the house won or lost it.
    """

    __tablename__ = "dispute"
    __table_args__ = (
        CheckConstraint("amount >= 0 AND fee >= 0", name="amount"),
        Index("dispute_recent", "created_at", "id"),
        Index("dispute_check", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    provider_ref: str = Field(unique=True)
    payment_ref: str | None = None
    order_id: UUID | None = Field(default=None, foreign_key="order.id", index=True)
    status: DisputeStatus = Field(sa_type=String)
    provider_status: str
    reason: str
    note: str = ""
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    withdrawn: bool = False
    fee: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    fee_currency: str
    removes_time: bool = False
    created_at: datetime = Field(sa_column=instant())
    opened_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    decided_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    next_check_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
