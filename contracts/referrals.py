"""What referrals tells: coupons given, coupons taken back, time earned, and what partners are owed and were paid."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime

from kit.audit import AdminActed
from kit.events import Event


class CouponIssued(Event, type="referrals.coupon.issued"):
    """A member was given a coupon."""

    coupon_id: UUID
    member_id: UUID
    campaign_id: UUID
    title: str
    ends_at: AwareDatetime


class CouponRevoked(Event, type="referrals.coupon.revoked"):
    """A coupon must not be spent any more."""

    coupon_id: UUID
    member_id: UUID


class RewardGranted(Event, type="referrals.reward.granted"):
    """A member earned days of membership; `plan_code` names the benefits, the black card's when null."""

    reward_id: UUID
    member_id: UUID
    days: int
    plan_code: str | None = None
    reason: str
    granted_at: AwareDatetime


class RewardRevoked(Event, type="referrals.reward.revoked"):
    """Days of membership that a member earned are taken back: what earned them was undone."""

    reward_id: UUID
    member_id: UUID
    revoked_at: AwareDatetime


class MemberInvited(Event, type="referrals.member.invited"):
    """A member turned out to have come by another member's invitation, link or code; told once."""

    member_id: UUID
    inviter_id: UUID
    bound_at: AwareDatetime


class PartnerChanged(Event, type="referrals.partner.changed"):
    """A partner is new, has a new secret, or may no longer call; a listener ignores a version not above the one it holds.

    `secret_hash` is the SHA-256 of the client's secret, 256 random bits, in hexadecimal.
    """

    partner_id: UUID
    version: int
    client_id: str
    secret_hash: str
    active: bool


class CommissionAccrued(Event, type="referrals.commission.accrued"):
    """A partner earned a commission; it is owed from `due_at` on, unless it is voided before."""

    commission_id: UUID
    partner_id: UUID
    kind: Literal["trial", "sale"]
    order_id: UUID | None = None
    amount: int
    currency: str
    accrued_at: AwareDatetime
    due_at: AwareDatetime


class CommissionVoided(Event, type="referrals.commission.voided"):
    """A commission that was not paid yet is not owed after all; `amount` is what was still owed of it."""

    commission_id: UUID
    partner_id: UUID
    order_id: UUID | None = None
    amount: int
    currency: str
    voided_at: AwareDatetime


class CommissionReversed(Event, type="referrals.commission.reversed"):
    """A commission that was paid is taken back: `commission_id` is the new negative row's, `amount` is positive."""

    commission_id: UUID
    reverses_id: UUID
    partner_id: UUID
    order_id: UUID | None = None
    amount: int
    currency: str
    reversed_at: AwareDatetime


class PayoutPaid(Event, type="referrals.payout.paid"):
    """A partner was paid; `payout_id` is this partner's own part of the run, `amount` what left the house for it."""

    payout_id: UUID
    run_id: UUID
    partner_id: UUID
    amount: int
    currency: str
    paid_at: AwareDatetime


class ReferralsAdminActed(AdminActed, type="referrals.admin.acted"):
    """An admin acted in referrals; members keeps the audit log."""
