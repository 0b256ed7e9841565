"""The sandbox's world: the newcomer coupon may be claimed by any new member, invited or not."""

from sqlalchemy import select, update
from sqlmodel import col

from kit.app import Runtime
from services.referrals.models import Campaign, ReferralRule


async def seed(rt: Runtime) -> None:
    """Open the default rule's newcomer campaign to claims, unless an admin has edited it."""
    first = select(col(ReferralRule.newcomer_campaign_id)).where(col(ReferralRule.version) == 1)
    async with rt.db.session() as session, session.begin():
        opened = update(Campaign).where(col(Campaign.id) == first.scalar_subquery(), col(Campaign.version) == 1)
        await session.execute(opened.values(claimable=True))
