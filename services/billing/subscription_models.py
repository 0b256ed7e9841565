"""The tables of auto-renewal: who renews what with which card, what was charged for it, and the pages where they act."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, String, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.billing.registry import Model

SubscriptionStatus = Literal["active", "past_due", "canceling", "none"]
AttemptStatus = Literal["pending", "succeeded", "failed", "action_required", "dropped"]


class Subscription(Model, table=True):
    """A member's wish to have a plan renewed when their time ends; ended ones stay as history.

    `renews_at` is the end of the member's whole time, `next_at` when something must be done. What was announced is for
    the end it names, and holds. A held one waits for a person: the database refused to charge the period once more.
    """

    __tablename__ = "subscription"
    __table_args__ = (
        Index("subscription_one_live", "member_id", unique=True, postgresql_where=text("status <> 'none'")),
        Index("subscription_due", "next_at", postgresql_where=text("next_at IS NOT NULL")),
        Index("subscription_member", "member_id", "created_at"),
        Index("subscription_recent", "created_at", "id"),
        Index("subscription_held", "held_at", "id", postgresql_where=text("held_at IS NOT NULL")),
        CheckConstraint("(status = 'none') = (ended_at IS NOT NULL)", name="ended_at"),
        CheckConstraint("status <> 'none' OR next_at IS NULL", name="next_at"),
        CheckConstraint("(held_at IS NULL) = (held_reason IS NULL)", name="held"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID
    version: int
    status: SubscriptionStatus = Field(sa_type=String)
    plan_code: str = Field(foreign_key="plan.code")
    customer_ref: str | None = None
    payment_method_ref: str | None = None
    card_brand: str | None = None
    card_last4: str | None = None
    order_id: UUID = Field(foreign_key="order.id")
    order_told: bool = False
    renewal_order_id: UUID | None = Field(default=None, foreign_key="order.id")
    renews_at: datetime = Field(sa_column=instant())
    announced_for: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    announced_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    announced_version: int | None = None
    announced_months: int | None = None
    held_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    held_reason: str | None = None
    next_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    created_at: datetime = Field(sa_column=instant())
    ended_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    end_reason: str | None = None


class RenewalAttempt(Model, table=True):
    """One charge of a kept card, written before the provider is asked with its id as the key, and asked as written."""

    __tablename__ = "renewal_attempt"
    __table_args__ = (
        Index("renewal_attempt_number", "order_id", "number", unique=True),
        Index("renewal_attempt_one_pending", "order_id", unique=True, postgresql_where=text("status = 'pending'")),
        Index("renewal_attempt_due", "next_attempt_at", postgresql_where=text("status = 'pending'")),
        CheckConstraint("(status = 'pending') = (settled_at IS NULL)", name="settled_at"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    subscription_id: UUID = Field(foreign_key="subscription.id", index=True)
    order_id: UUID = Field(foreign_key="order.id")
    number: int
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    customer_ref: str
    payment_method_ref: str
    status: AttemptStatus = Field(sa_type=String)
    provider_ref: str | None = Field(default=None, unique=True)
    failure: str | None = None
    asked: int = 0
    next_attempt_at: datetime = Field(sa_column=instant())
    created_at: datetime = Field(sa_column=instant())
    settled_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class SubscriptionPage(Model, table=True):
    """A page at the provider on which a member keeps another card, or pays a renewal; watched until it is done or over."""

    __tablename__ = "subscription_page"
    __table_args__ = (
        Index(
            "subscription_page_open",
            "subscription_id",
            "purpose",
            unique=True,
            postgresql_where=text("status = 'open'"),
        ),
        Index("subscription_page_check", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
        CheckConstraint("(purpose = 'payment') = (order_id IS NOT NULL)", name="order_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    subscription_id: UUID = Field(foreign_key="subscription.id")
    member_id: UUID = Field(index=True)
    purpose: Literal["card", "payment"] = Field(sa_type=String)
    order_id: UUID | None = Field(default=None, foreign_key="order.id")
    customer_ref: str
    status: Literal["open", "done", "over"] = Field(sa_type=String)
    success_url: str | None = None
    cancel_url: str | None = None
    session_id: str | None = Field(default=None, unique=True)
    session_url: str | None = None
    created_at: datetime = Field(sa_column=instant())
    expires_at: datetime = Field(sa_column=instant())
    next_check_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
