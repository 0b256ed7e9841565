"""Sources: whom an invitation code leads to: a member, by their code or their link to a work, or a partner's link."""

from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.showcase import TOKEN_LENGTH
from services.referrals.invites import LENGTH, inviter_of
from services.referrals.models import Touch
from services.referrals.partner_models import Partner, PartnerLink
from services.referrals.share_links import sharer_of

LINK_LENGTH: Final = LENGTH + 2
"""A partner's codes are longer than a member's, so that no code is ever both."""


async def name_source(session: AsyncSession, touch: Touch, code: str) -> None:
    """Write into a touch whom this code leads to, if to anybody; a link's own channel is taken where none is given."""
    touch.invite_code = code.strip().upper()
    if len(touch.invite_code) == TOKEN_LENGTH:
        touch.inviter_id = await sharer_of(session, touch.invite_code)
        return
    if len(touch.invite_code) != LINK_LENGTH:
        touch.inviter_id = await inviter_of(session, touch.invite_code)
        return
    found = (
        select(PartnerLink)
        .join(Partner, col(Partner.id) == col(PartnerLink.partner_id))
        .where(col(PartnerLink.code) == touch.invite_code, col(Partner.active))
    )
    link = (await session.execute(found)).scalar_one_or_none()
    if link is not None:
        touch.link_id = link.id
        touch.channel_code = touch.channel_code or link.channel_code
