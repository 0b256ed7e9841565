"""Merged accounts: coupons, invitees, rewards and purchases follow; of two origins the older one stays."""

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.merging import Merging
from services.referrals.rewards import settle

_MOVES: Final = (
    text("""
    WITH theirs AS (DELETE FROM member_card WHERE member_id = :merged RETURNING *)
    INSERT INTO member_card AS mine (member_id, nickname, tier, labels, registered_at, phone_hash, address_prefix,
        visitor_id, lesson_at, paid_at, membership_paid_at)
    SELECT :kept, nickname, tier, labels, registered_at, phone_hash, address_prefix, visitor_id, lesson_at, paid_at,
        membership_paid_at FROM theirs
    ON CONFLICT (member_id) DO UPDATE SET registered_at = least(mine.registered_at, excluded.registered_at),
        lesson_at = least(mine.lesson_at, excluded.lesson_at), paid_at = least(mine.paid_at, excluded.paid_at),
        membership_paid_at = least(mine.membership_paid_at, excluded.membership_paid_at),
        phone_hash = coalesce(mine.phone_hash, excluded.phone_hash),
        address_prefix = coalesce(mine.address_prefix, excluded.address_prefix),
        visitor_id = coalesce(mine.visitor_id, excluded.visitor_id)
    WHERE mine.erased_at IS NULL
    """),
    text("""
    WITH theirs AS (DELETE FROM device WHERE member_id = :merged RETURNING visitor_id)
    INSERT INTO device (visitor_id, member_id) SELECT visitor_id, :kept FROM theirs ON CONFLICT DO NOTHING
    """),
    text("UPDATE purchase SET member_id = :kept WHERE member_id = :merged"),
    # A member has one code to show; the other one goes on working, as it leads to whoever its owner is today.
    text("""
    UPDATE invite_code SET member_id = :kept
    WHERE member_id = :merged AND NOT EXISTS (SELECT FROM invite_code WHERE member_id = :kept)
    """),
    text("UPDATE share_link SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE partner SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE touch SET inviter_id = :kept WHERE inviter_id = :merged"),
    text("UPDATE touch SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE touch SET newcomer_id = :kept WHERE newcomer_id = :merged"),
    # All coupons stay, numbered on, so that a campaign's limit for each member counts them.
    text("""
    UPDATE coupon SET member_id = :kept, ordinal = ordinal + (
        SELECT coalesce(max(mine.ordinal), 0) FROM coupon mine
        WHERE mine.campaign_id = coupon.campaign_id AND mine.member_id = :kept
    ) WHERE member_id = :merged
    """),
    text("UPDATE grant_row SET member_id = :kept WHERE member_id = :merged"),
    text("SELECT set_config('heika.merging', 'on', true)"),
    # Nobody is their own inviter.
    text("""
    UPDATE attribution SET inviter_id = NULL
    WHERE member_id IN (:kept, :merged) AND inviter_id IN (:kept, :merged)
    """),
    text("""
    DELETE FROM attribution
    WHERE member_id IN (:kept, :merged) AND inviter_id IS NULL AND channel_code IS NULL AND partner_id IS NULL
    """),
    text("UPDATE attribution SET inviter_id = :kept WHERE inviter_id = :merged"),
    text("""
    DELETE FROM attribution USING attribution other
    WHERE attribution.member_id IN (:kept, :merged) AND other.member_id IN (:kept, :merged)
    AND (attribution.bound_at, attribution.member_id) > (other.bound_at, other.member_id)
    """),
    text("UPDATE attribution SET member_id = :kept WHERE member_id = :merged"),
    text("""
    UPDATE attribution SET fixed_at = card.paid_at FROM member_card card
    WHERE attribution.member_id = :kept AND card.member_id = :kept AND attribution.fixed_at IS NULL
    """),
    text("SELECT set_config('heika.merging', '', true)"),
    text("UPDATE reward SET inviter_id = :kept WHERE inviter_id = :merged"),
    # What was earned by both steps stays earned; a step that both took is not taken again.
    text("""
    UPDATE reward SET newcomer_id = :kept WHERE newcomer_id = :merged AND NOT EXISTS (
        SELECT FROM reward mine WHERE mine.newcomer_id = :kept AND mine.cause = reward.cause
    )
    """),
    # A first lesson is paid for once; of two the one that is there stays.
    text("""
    UPDATE commission SET member_id = :kept WHERE member_id = :merged AND NOT (kind = 'trial' AND EXISTS (
        SELECT FROM commission mine WHERE mine.member_id = :kept AND mine.kind = 'trial'
    ))
    """),
    text("""
    WITH theirs AS (DELETE FROM fraud_case_member WHERE member_id = :merged RETURNING case_id, holds)
    INSERT INTO fraud_case_member AS mine (case_id, member_id, holds) SELECT case_id, :kept, holds FROM theirs
    ON CONFLICT (case_id, member_id) DO UPDATE SET holds = mine.holds OR excluded.holds
    """),
    text("""
    WITH theirs AS (DELETE FROM reward_budget WHERE inviter_id = :merged RETURNING *)
    INSERT INTO reward_budget AS mine (inviter_id, month, used) SELECT :kept, month, used FROM theirs
    ON CONFLICT (inviter_id, month) DO UPDATE SET used = mine.used + excluded.used
    """),
)


async def move(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """Give the kept member what the merged one holds and earned, and settle what both together have reached."""
    for statement in _MOVES:
        await session.execute(statement, {"kept": kept_id, "merged": merged_id})
    # The statements went past the objects this session may hold.
    session.expire_all()
    await settle(session, kept_id)


merging = Merging(move)
