"""What referrals tells: coupons given, coupons taken back, and time earned."""

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


class ReferralsAdminActed(AdminActed, type="referrals.admin.acted"):
    """An admin acted in referrals; members keeps the audit log."""
