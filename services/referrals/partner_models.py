"""The tables of partners: who they are, on what terms, their links, and what they are owed and were paid."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.referrals.models import Model


class Partner(Model, table=True):
    """A teacher, the centre of a circle; `version` counts edits, `client_version` what members must know of.

    `member_id` is their own account as a member, by whose purchases they earn nothing.
    """

    __tablename__ = "partner"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str
    email: str
    client_id: str = Field(unique=True)
    secret_hash: str
    member_id: UUID | None = Field(default=None, index=True)
    active: bool = True
    version: int = 1
    client_version: int = 1
    created_at: datetime = Field(sa_column=instant())


class PartnerTerms(Model, table=True):
    """What a partner earns; a new version with every change, and the one in force at the touch is the one that counts."""

    __tablename__ = "partner_terms"
    __table_args__ = (
        CheckConstraint("percent BETWEEN 0 AND 100", name="percent"),
        CheckConstraint("trial_amount > 0", name="trial_amount"),
        CheckConstraint("months > 0", name="months"),
    )

    partner_id: UUID = Field(primary_key=True, foreign_key="partner.id")
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    trial_amount: int | None = Field(default=None, sa_column=Column(BigInteger))
    percent: int
    months: int | None = None
    hold_days: int
    starts_at: datetime = Field(sa_column=instant())


class PartnerLink(Model, table=True):
    """A link of a partner; its code works wherever a member's invitation code does."""

    __tablename__ = "partner_link"
    __table_args__ = (Index("partner_link_partner_id_idx", "partner_id", "created_at", "id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    partner_id: UUID = Field(foreign_key="partner.id")
    title: str
    code: str = Field(unique=True)
    channel_code: str | None = Field(default=None, foreign_key="channel.code")
    created_at: datetime = Field(sa_column=instant())


class PayoutRun(Model, table=True):
    """Everything that was due at an instant, paid out together; its rows never change once it is made."""

    __tablename__ = "payout_run"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        Index("payout_run_created_idx", "created_at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    until: datetime = Field(sa_column=instant())
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    created_at: datetime = Field(sa_column=instant())
    paid_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Payout(Model, table=True):
    """One partner's part of a run."""

    __tablename__ = "payout"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        Index("payout_run_partner_key", "run_id", "partner_id", unique=True),
        Index("payout_partner_id_idx", "partner_id", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    run_id: UUID = Field(foreign_key="payout_run.id")
    partner_id: UUID = Field(foreign_key="partner.id")
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))


class Commission(Model, table=True):
    """Something owed to a partner, or with a negative amount taken back; `held` while somebody looks into it."""

    __tablename__ = "commission"
    __table_args__ = (
        CheckConstraint("kind IN ('trial', 'sale', 'reversal')", name="kind"),
        CheckConstraint("status IN ('pending', 'due', 'paid', 'held', 'voided')", name="status"),
        CheckConstraint("(kind = 'reversal') = (amount < 0) AND amount <> 0", name="amount"),
        CheckConstraint("(kind = 'trial') = (order_id IS NULL)", name="order"),
        CheckConstraint("(kind = 'reversal') = (reverses_id IS NOT NULL)", name="reverses"),
        CheckConstraint("payout_id IS NULL OR status IN ('due', 'paid')", name="payout"),
        # Two stages, each once: a member tries once, an order is sold once.
        Index("commission_trial_key", "member_id", unique=True, postgresql_where=text("kind = 'trial'")),
        Index("commission_sale_key", "order_id", unique=True, postgresql_where=text("kind = 'sale'")),
        Index("commission_partner_id_idx", "partner_id", "accrued_at", "id"),
        Index(
            "commission_due_idx", "due_at", postgresql_where=text("status IN ('pending', 'due') AND payout_id IS NULL")
        ),
        Index("commission_pending_idx", "due_at", postgresql_where=text("status = 'pending'")),
        Index("commission_member_id_idx", "member_id"),
        Index("commission_order_id_idx", "order_id"),
        Index("commission_payout_id_idx", "payout_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    partner_id: UUID = Field(foreign_key="partner.id")
    kind: str
    member_id: UUID
    order_id: UUID | None = None
    reverses_id: UUID | None = Field(default=None, foreign_key="commission.id")
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    status: str = "pending"
    accrued_at: datetime = Field(sa_column=instant())
    due_at: datetime = Field(sa_column=instant())
    voided_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    payout_id: UUID | None = Field(default=None, foreign_key="payout.id")


class CommissionHold(Model, table=True):
    """Why a commission waits, or waited: a dispute, or a fraud case; it goes on when the last reason is gone."""

    __tablename__ = "commission_hold"

    commission_id: UUID = Field(primary_key=True, foreign_key="commission.id")
    cause: str = Field(primary_key=True, index=True)
    at: datetime = Field(sa_column=instant())
    ended_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
