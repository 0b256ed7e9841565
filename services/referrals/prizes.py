"""Prizes: a contest's winner is given their coupon, once for each prize."""

from contextlib import suppress
from hashlib import sha256
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
    campaign_id = _id_of(event.contest_id, event.value)
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


def _id_of(contest_id: UUID, value: int) -> UUID:
    """The same UUIDv7 (RFC 9562 5.7) whenever it is asked for: the contest's moment, and bits made of contest and value."""
    digest = sha256(contest_id.bytes + value.to_bytes(8, "big")).digest()
    number = int.from_bytes(contest_id.bytes[:6] + digest[:10], "big")
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


async def _named(session: AsyncSession, name: str) -> UUID:
    meant = [col(Campaign.code) == name.upper()]
    with suppress(ValueError):
        meant.append(col(Campaign.id) == UUID(name))
    found = select(col(Campaign.id)).where(or_(*meant), col(Campaign.deleted_at).is_(None))
    campaign_id = (await session.execute(found)).scalar_one_or_none()
    if campaign_id is None:
        raise CouponUnknown
    return campaign_id
