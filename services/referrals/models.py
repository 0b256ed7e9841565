"""The tables of the referrals service."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from contracts.erasing import ErasedMemberColumns
from contracts.merging import MergedMemberColumns
from kit.db import UNCHECKED, instant, new_registry
from kit.ids import new_id


class Model(SQLModel, registry=new_registry()):
    """A table of this service."""

    model_config = UNCHECKED


def _words() -> Column[list[str]]:
    return Column(ARRAY(String), nullable=False, server_default=text("'{}'"))


def _fen() -> Column[int]:
    return Column(BigInteger, nullable=False)


class Channel(Model, table=True):
    """One of the community's own media; a retired one takes no more touches."""

    __tablename__ = "channel"

    code: str = Field(primary_key=True)
    name: str
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    retired_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class MemberCard(Model, table=True):
    """What referrals knows of a member: from events, in whatever order they came."""

    __tablename__ = "member_card"
    __table_args__ = (
        Index("member_card_phone_hash_idx", "phone_hash", postgresql_where=text("phone_hash IS NOT NULL")),
    )

    member_id: UUID = Field(primary_key=True)
    nickname: str = ""
    registered_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    tier: str = "potential"
    labels: list[str] = Field(default_factory=list, sa_column=_words())
    phone_hash: str | None = None
    address_prefix: str | None = None
    visitor_id: str | None = None
    changed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    erased_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    lesson_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    paid_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    membership_paid_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Device(Model, table=True):
    """A device a member was seen on, by the id the app keeps there."""

    __tablename__ = "device"

    visitor_id: str = Field(primary_key=True)
    member_id: UUID = Field(primary_key=True, index=True)


class Purchase(Model, table=True):
    """An order a member paid money for, and what of it went back."""

    __tablename__ = "purchase"
    __table_args__ = (
        Index("purchase_member_id_idx", "member_id"),
        Index("purchase_paid_at_idx", "paid_at"),
        Index("purchase_fingerprint_idx", "fingerprint", postgresql_where=text("fingerprint IS NOT NULL")),
    )

    order_id: UUID = Field(primary_key=True)
    member_id: UUID
    total: int = Field(sa_column=_fen())
    refunded: int = Field(sa_column=_fen())
    currency: str = "CNY"
    fingerprint: str | None = None
    address_prefix: str | None = None
    dispute: str | None = None
    paid_at: datetime = Field(sa_column=instant())


class InviteCode(Model, table=True):
    """The code a member invites with."""

    __tablename__ = "invite_code"

    code: str = Field(primary_key=True)
    member_id: UUID = Field(unique=True)
    created_at: datetime = Field(sa_column=instant())


class Touch(Model, table=True):
    """A link was opened; the touch that wins a registration and those that lose it are both kept."""

    __tablename__ = "touch"
    __table_args__ = (
        Index("touch_visitor_id_at_idx", "visitor_id", "at"),
        Index("touch_member_id_idx", "member_id", postgresql_where=text("member_id IS NOT NULL")),
        Index("touch_inviter_id_idx", "inviter_id", postgresql_where=text("inviter_id IS NOT NULL")),
        Index("touch_channel_code_at_idx", "channel_code", "at"),
        Index("touch_newcomer_id_idx", "newcomer_id", postgresql_where=text("newcomer_id IS NOT NULL")),
        Index("touch_idle_at_idx", "at", postgresql_where=text("newcomer_id IS NULL")),
        CheckConstraint("outcome IN ('open', 'won', 'lost')", name="outcome"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    visitor_id: str | None = None
    member_id: UUID | None = None
    invite_code: str | None = None
    inviter_id: UUID | None = None
    link_id: UUID | None = Field(default=None, foreign_key="partner_link.id")
    channel_code: str | None = Field(default=None, foreign_key="channel.code")
    at: datetime = Field(sa_column=instant())
    outcome: str = "open"
    reason: str | None = None
    newcomer_id: UUID | None = None
    # Named at registration rather than opened: it may bind, and is no link that somebody opened.
    at_registration: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


class Attribution(Model, table=True):
    """Where a member came from; a trigger refuses to change it once `fixed_at` is set."""

    __tablename__ = "attribution"
    __table_args__ = (
        Index("attribution_inviter_id_idx", "inviter_id", "bound_at", "member_id"),
        Index("attribution_channel_code_idx", "channel_code", "bound_at"),
        Index(
            "attribution_partner_id_idx",
            "partner_id",
            "bound_at",
            "member_id",
            postgresql_where=text("partner_id IS NOT NULL"),
        ),
        CheckConstraint("inviter_id IS DISTINCT FROM member_id", name="not_self"),
    )

    member_id: UUID = Field(primary_key=True)
    touch_id: UUID = Field(foreign_key="touch.id", unique=True)
    inviter_id: UUID | None = None
    channel_code: str | None = Field(default=None, foreign_key="channel.code")
    rule_version: int | None = Field(default=None, foreign_key="referral_rule.version")
    partner_id: UUID | None = Field(default=None, foreign_key="partner.id")
    link_id: UUID | None = Field(default=None, foreign_key="partner_link.id")
    terms_version: int | None = None
    bound_at: datetime = Field(sa_column=instant())
    fixed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Campaign(Model, table=True):
    """Coupons to be had: how many, by whom, until when, and what each is worth."""

    __tablename__ = "campaign"
    __table_args__ = (
        Index("campaign_code_key", "code", unique=True, postgresql_where=text("deleted_at IS NULL")),
        CheckConstraint("claimed BETWEEN 0 AND total", name="claimed"),
        CheckConstraint("kind IN ('percent', 'amount')", name="kind"),
        CheckConstraint("ends_at IS NOT NULL OR valid_days IS NOT NULL", name="ends"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    title: str
    code: str | None = None
    kind: str
    value: int = Field(sa_column=_fen())
    min_amount: int = Field(sa_column=_fen())
    plan_codes: list[str] = Field(default_factory=list, sa_column=_words())
    total: int = Field(sa_column=_fen())
    claimed: int = Field(default=0, sa_column=_fen())
    per_member: int = 1
    starts_at: datetime = Field(sa_column=instant())
    ends_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    valid_days: int | None = None
    audience: str = "everyone"
    claimable: bool = True
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    deleted_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class Coupon(Model, table=True):
    """A coupon of a member, with the terms it was issued under; `state` follows what billing tells."""

    __tablename__ = "coupon"
    __table_args__ = (
        UniqueConstraint("campaign_id", "member_id", "ordinal", name="coupon_campaign_member_ordinal_key"),
        Index("coupon_member_id_idx", "member_id", "issued_at", "id"),
        CheckConstraint("state IN ('issued', 'reserved', 'redeemed')", name="state"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    campaign_id: UUID = Field(foreign_key="campaign.id")
    member_id: UUID
    ordinal: int
    source: str
    title: str
    kind: str
    value: int = Field(sa_column=_fen())
    min_amount: int = Field(sa_column=_fen())
    plan_codes: list[str] = Field(default_factory=list, sa_column=_words())
    issued_at: datetime = Field(sa_column=instant())
    ends_at: datetime = Field(sa_column=instant())
    state: str = "issued"
    state_at: datetime = Field(sa_column=instant())
    state_event_id: UUID | None = None
    revoked_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class ReferralRule(Model, table=True):
    """What an invitation pays; the version in force at the touch is the one that counts."""

    __tablename__ = "referral_rule"

    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    newcomer_amount: int = Field(sa_column=_fen())
    inviter_amount: int = Field(sa_column=_fen())
    inviter_days: int
    min_amount: int = Field(sa_column=_fen())
    valid_days: int
    monthly_cap: int
    window_days: int
    newcomer_campaign_id: UUID | None = Field(default=None, foreign_key="campaign.id")
    inviter_campaign_id: UUID | None = Field(default=None, foreign_key="campaign.id")
    starts_at: datetime = Field(sa_column=instant())
    created_by: UUID | None = None


class Reward(Model, table=True):
    """What an inviter earned by one newcomer's step, or why not: at most one row for each step."""

    __tablename__ = "reward"
    __table_args__ = (
        UniqueConstraint("newcomer_id", "cause", name="reward_newcomer_cause_key"),
        Index("reward_inviter_id_idx", "inviter_id", "at"),
        CheckConstraint("cause IN ('first_lesson', 'first_payment')", name="cause"),
        CheckConstraint("status IN ('granted', 'refused', 'revoked', 'held')", name="status"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    inviter_id: UUID
    newcomer_id: UUID
    cause: str
    status: str
    reason: str | None = None
    coupon_id: UUID | None = Field(default=None, foreign_key="coupon.id")
    days: int | None = None
    rule_version: int = Field(foreign_key="referral_rule.version")
    at: datetime = Field(sa_column=instant())


class RewardBudget(Model, table=True):
    """How many rewards an inviter had in a calendar month of the business zone."""

    __tablename__ = "reward_budget"

    inviter_id: UUID = Field(primary_key=True)
    month: date = Field(primary_key=True)
    used: int


class MergedMember(MergedMemberColumns, Model, table=True):
    """Whose account became part of whose."""

    __tablename__ = "merged_member"


class ErasedMember(ErasedMemberColumns, Model, table=True):
    """Who left."""

    __tablename__ = "erased_member"
