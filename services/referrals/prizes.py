"""Prizes: a contest's winner is given their coupon, once for each prize."""

from contextlib import suppress
from typing import Final
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.merging import kept_of
from contracts.showcase import PrizeWon
from kit import clock
from kit.errors import Problem
from services.referrals.fixed_ids import fixed_id
from services.referrals.issue import CouponUnknown, Want, issue
from services.referrals.models import Campaign, Coupon, MemberCard
from services.referrals.rules import STOCK

VALID_DAYS: Final = 90
SOURCE: Final = "prize"


async def on_prize_won(session: AsyncSession, event: PrizeWon) -> None:
    """Give the coupon to whoever the winner is today; who has left gets none.

    One that cannot be had, because its campaign is gone or exhausted, or was claimed by the winner already, stays a failed
    event: once the campaign allows it, its replay gives the coupon.
    """
    if event.reward != "coupon":
        return
    winner_id = await kept_of(session, event.member_id)
    card = await session.get(MemberCard, winner_id)
    if (card is not None and card.erased_at is not None) or await session.get(Coupon, event.prize_id) is not None:
        return
    campaign_id = await _campaign_of(session, event)
    want = Want(campaign_id, winner_id, clock.now(), SOURCE, event.prize_id)
    (answer,) = await issue(await session.connection(), [want])
    if isinstance(answer, Problem):
        raise answer


async def _campaign_of(session: AsyncSession, event: PrizeWon) -> UUID:
    """The campaign that the prize names, or the contest's own for coupons of so many fen."""
    if isinstance(event.value, str):
        return await _named(session, event.value)
    contest = event.contest_id.bytes
    campaign_id = fixed_id(contest[:6], contest + event.value.to_bytes(8, "big"))
    row = {
        "id": campaign_id,
        "title": event.title,
        "kind": "amount",
        "value": event.value,
        "min_amount": 0,
        "plan_codes": [],
        "total": STOCK,
        "claimed": 0,
        "per_member": STOCK,
        "starts_at": event.won_at,
        "valid_days": VALID_DAYS,
        "audience": "everyone",
        "claimable": False,
        "version": 1,
        "created_at": event.won_at,
    }
    await session.execute(insert(Campaign).values(row).on_conflict_do_nothing(index_elements=["id"]))
    return campaign_id


async def _named(session: AsyncSession, name: str) -> UUID:
    meant = [col(Campaign.code) == name.upper()]
    with suppress(ValueError):
        meant.append(col(Campaign.id) == UUID(name))
    found = select(col(Campaign.id)).where(or_(*meant), col(Campaign.deleted_at).is_(None))
    campaign_id = (await session.execute(found)).scalar_one_or_none()
    if campaign_id is None:
        raise CouponUnknown
    return campaign_id
