"""Partner links: codes that bring members to a partner, and the members they brought."""

import secrets
from typing import Annotated
from uuid import UUID

from pydantic import Field
from sqlalchemy import case, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import PartnerDep
from kit.db import SessionDep
from kit.errors import problems
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Out, StrictIn
from services.referrals.invites import ALPHABET, Invitee
from services.referrals.models import Attribution, MemberCard
from services.referrals.partner_models import PartnerLink
from services.referrals.sources import LINK_LENGTH
from services.referrals.touches import ChannelUnknown, channel_exists

routes = router(prefix="/v1/partner", tags=["partner"])


class LinkIn(StrictIn):
    """A new link; the channel, if any, is one of the community's own."""

    title: Annotated[CleanStr, Field(min_length=1, max_length=100)]
    channel: Annotated[CleanStr, Field(min_length=1, max_length=64)] | None = None


class LinkOut(Out):
    """A link; `code` works wherever an invitation code does."""

    id: UUID
    title: str
    code: str
    url: str
    channel: str | None
    created_at: Instant


class ReferralOut(Invitee):
    """Somebody a partner's link brought, by no more than the last letter of their name."""

    link_id: UUID


@routes.post("/links", status_code=201, responses=problems(ChannelUnknown))
async def create_link(body: LinkIn, caller: PartnerDep, session: SessionDep, rt: RuntimeDep) -> LinkOut:
    """Make a link; everybody who registers by it within the window is the caller's referral."""
    if body.channel is not None and not await channel_exists(session, body.channel):
        raise ChannelUnknown
    while True:
        row = {
            "id": new_id(),
            "partner_id": caller.id,
            "title": body.title,
            "code": "".join(secrets.choice(ALPHABET) for _ in range(LINK_LENGTH)),
            "channel_code": body.channel,
            "created_at": clock.now(),
        }
        made = insert(PartnerLink).values(row).on_conflict_do_nothing(index_elements=["code"]).returning(PartnerLink)
        link = await session.scalar(made)
        if link is not None:
            return _shown(link, rt.settings.invite_link(link.code))


@routes.get("/links")
async def list_links(caller: PartnerDep, session: SessionDep, page: PageDep, rt: RuntimeDep) -> Page[LinkOut]:
    """The caller's links, the newest first."""
    found = select(PartnerLink).where(col(PartnerLink.partner_id) == caller.id)
    order = (col(PartnerLink.created_at).desc(), col(PartnerLink.id).desc())
    rows, next_cursor = await keyset(session, found, page, order)
    return Page(items=[_shown(row, rt.settings.invite_link(row.code)) for row in rows], next_cursor=next_cursor)


def _shown(link: PartnerLink, url: str) -> LinkOut:
    return LinkOut(
        id=link.id,
        title=link.title,
        code=link.code,
        url=url,
        channel=link.channel_code,
        created_at=link.created_at,
    )


@routes.get("/referrals")
async def list_referrals(caller: PartnerDep, session: SessionDep, page: PageDep) -> Page[ReferralOut]:
    """The members the caller's links brought, the latest first, each with the furthest stage they reached."""
    lesson_at, paid_at = col(MemberCard.lesson_at), col(MemberCard.paid_at)
    bound_at = col(Attribution.bound_at)
    found = (
        select(
            col(Attribution.member_id),
            col(Attribution.link_id),
            col(MemberCard.nickname),
            bound_at,
            case((paid_at.is_not(None), "purchased"), (lesson_at.is_not(None), "tried"), else_="registered").label(
                "stage"
            ),
            case((paid_at.is_not(None), paid_at), (lesson_at.is_not(None), lesson_at), else_=bound_at).label("at"),
        )
        .join(MemberCard, col(MemberCard.member_id) == col(Attribution.member_id))
        .where(col(Attribution.partner_id) == caller.id)
    )
    rows, next_cursor = await keyset(session, found, page, (bound_at.desc(), col(Attribution.member_id).desc()))
    items = [
        ReferralOut(
            member_id=row.member_id, nickname=masked(row.nickname), stage=row.stage, at=row.at, link_id=row.link_id
        )
        for row in rows
    ]
    return Page(items=items, next_cursor=next_cursor)


def masked(nickname: str) -> str:
    """A name that its owner knows again and nobody else: its last letter."""
    return f"**{nickname[-1:]}"
