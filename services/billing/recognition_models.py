"""The tables of recognition: what every paid order has still to earn, and what it earned on which day."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, text
from sqlmodel import Field

from kit.db import instant
from services.billing.registry import Model


def _money() -> Column[int]:
    return Column(BigInteger, nullable=False)


class RevenueSchedule(Model, table=True):
    """How an order is earned: `amount` in all, evenly from `from_at`, where `from_earned` was earned, to `ends_at`.

    `starts_at` and `ends_at` are its time as last told by members of `holder_id`; null while it has none. `next_on` is
    the next business day to recognise, null while there is none, `through_on` the last one that was.
    """

    __tablename__ = "revenue_schedule"
    __table_args__ = (
        CheckConstraint("earned BETWEEN 0 AND amount", name="earned"),
        CheckConstraint("discount_earned BETWEEN 0 AND discount", name="discount_earned"),
        CheckConstraint("(starts_at IS NULL) = (ends_at IS NULL) AND starts_at <= ends_at", name="span"),
        CheckConstraint("next_on IS NULL OR from_at IS NOT NULL", name="next_on"),
        CheckConstraint("next_on > through_on", name="forward"),
        Index("revenue_schedule_due", "next_on", "order_id", postgresql_where=text("next_on IS NOT NULL")),
        Index(
            "revenue_schedule_unplanned",
            "order_id",
            postgresql_where=text("starts_at IS NULL AND (earned < amount OR discount_earned < discount)"),
        ),
    )

    order_id: UUID = Field(primary_key=True, foreign_key="order.id")
    currency: str
    amount: int = Field(sa_column=_money())
    discount: int = Field(sa_column=_money())
    earned: int = Field(default=0, sa_column=_money())
    discount_earned: int = Field(default=0, sa_column=_money())
    holder_id: UUID | None = Field(default=None, index=True)
    starts_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    ends_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    from_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    from_earned: int = Field(default=0, sa_column=_money())
    from_discount: int = Field(default=0, sa_column=_money())
    through_on: date | None = None
    next_on: date | None = None


class RevenueRecognition(Model, table=True):
    """What an order earned on a business day, once; `entry_id` is the entry of the ledger that it is part of."""

    __tablename__ = "revenue_recognition"
    __table_args__ = (
        CheckConstraint("amount >= 0 AND discount >= 0 AND amount + discount > 0", name="something"),
        Index("revenue_recognition_entry", "entry_id"),
    )

    order_id: UUID = Field(primary_key=True, foreign_key="revenue_schedule.order_id")
    day: date = Field(primary_key=True)
    amount: int = Field(sa_column=_money())
    discount: int = Field(sa_column=_money())
    entry_id: UUID
