"""Origins: at registration the first touch that counts becomes where a member came from; the others are kept as lost."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberRegistered
from contracts.referrals import MemberInvited
from kit import clock
from kit.events import emit
from services.referrals import fraud
from services.referrals.cards import keep
from services.referrals.former import is_former, remember
from services.referrals.issue import Want, issue
from services.referrals.models import Attribution, Device, MemberCard, Touch
from services.referrals.partner_models import PartnerLink
from services.referrals.rewards import settle
from services.referrals.rules import rule_at
from services.referrals.sources import name_source
from services.referrals.terms import terms_at
from services.referrals.touches import channel_exists, remember_device

SUSPICIOUS = ("self", "existing_customer", "same_device", "loop")

_INVITES = text("""
WITH RECURSIVE chain (member_id, depth) AS (
    SELECT CAST(:inviter AS uuid), 0
    UNION
    SELECT a.inviter_id, chain.depth + 1 FROM chain JOIN attribution a ON a.member_id = chain.member_id
    WHERE a.inviter_id IS NOT NULL AND chain.depth < 100
)
SELECT EXISTS (SELECT FROM chain WHERE member_id = :newcomer)
""")


async def on_member_registered(session: AsyncSession, event: MemberRegistered) -> None:
    """Keep who it is, bind where they came from, and give an invited newcomer their coupon."""
    card = await session.get(MemberCard, event.member_id)
    if card is not None and card.erased_at is not None:
        await remember(session, event.phone_hash)
        return
    known = card is not None and card.changed_at is not None
    await keep(
        session,
        event.member_id,
        registered_at=event.registered_at,
        phone_hash=event.phone_hash,
        address_prefix=event.address_prefix,
        visitor_id=event.visitor_id,
        **({} if known else {"nickname": event.nickname}),
    )
    if event.visitor_id is not None:
        await remember_device(session, event.member_id, event.visitor_id)
    winner = await _winner(session, event, await _candidates(session, event))
    if winner is not None:
        await _bind(session, event.member_id, event.registered_at, winner)


async def bind_after_all(session: AsyncSession, kind: str, inviter_id: UUID, newcomer_id: UUID) -> None:
    """Bind a newcomer whose invitation was refused for this reason, as it would have been; not who came by another's."""
    refused = (
        select(Touch)
        .where(
            col(Touch.newcomer_id) == newcomer_id,
            col(Touch.inviter_id) == inviter_id,
            col(Touch.outcome) == "lost",
            col(Touch.reason) == kind,
        )
        .order_by(col(Touch.at), col(Touch.id))
        .limit(1)
    )
    touch = (await session.execute(refused.with_for_update())).scalar_one_or_none()
    card = await session.get(MemberCard, newcomer_id, populate_existing=True)
    if touch is None or card is None or card.registered_at is None or card.erased_at is not None:
        return
    if await session.get(Attribution, newcomer_id) is None:
        touch.outcome, touch.reason = "won", None
        await _bind(session, newcomer_id, card.registered_at, touch)


async def _candidates(session: AsyncSession, event: MemberRegistered) -> list[Touch]:
    """The device's open touches and what was given at registration, the first one first; locked against another's."""
    opened: list[Touch] = []
    if event.visitor_id is not None:
        found = (
            select(Touch)
            .where(
                col(Touch.visitor_id) == event.visitor_id,
                col(Touch.outcome) == "open",
                col(Touch.at) <= event.registered_at,
            )
            .order_by(col(Touch.at), col(Touch.id))
            .with_for_update()
        )
        opened = list((await session.execute(found)).scalars())
    if event.invite_code or event.channel:
        given = Touch(visitor_id=event.visitor_id, at=event.registered_at, at_registration=True)
        if event.invite_code:
            await name_source(session, given, event.invite_code)
        if event.channel and await channel_exists(session, event.channel):
            given.channel_code = event.channel
        session.add(given)
        opened.append(given)
    return opened


async def _winner(session: AsyncSession, event: MemberRegistered, candidates: list[Touch]) -> Touch | None:
    winner: Touch | None = None
    for touch in candidates:
        touch.newcomer_id = event.member_id
        refusal = "later" if winner else await _refusal(session, event, touch)
        touch.outcome, touch.reason = ("lost", refusal) if refusal else ("won", None)
        if refusal in SUSPICIOUS and touch.inviter_id is not None:
            await fraud.flag_refusal(session, refusal, touch.inviter_id, event.member_id)
        if refusal is None:
            winner = touch
    await session.flush()
    return winner


async def _bind(session: AsyncSession, member_id: UUID, registered_at: datetime, winner: Touch) -> None:
    """Write down where a member came from, welcome them, and settle what they have done already."""
    rule = await rule_at(session, winner.at)
    paid_at = (
        await session.execute(select(col(MemberCard.paid_at)).where(col(MemberCard.member_id) == member_id))
    ).scalar_one()
    link = await session.get(PartnerLink, winner.link_id) if winner.link_id else None
    terms = await terms_at(session, link.partner_id, winner.at) if link else None
    origin = Attribution(
        member_id=member_id,
        touch_id=winner.id,
        inviter_id=winner.inviter_id,
        channel_code=winner.channel_code,
        rule_version=rule.version,
        partner_id=link.partner_id if link else None,
        link_id=winner.link_id,
        terms_version=terms.version if terms else None,
        bound_at=registered_at,
        fixed_at=paid_at,
    )
    session.add(origin)
    await session.flush()
    await fraud.flag_burst(session, origin)
    if origin.inviter_id is not None:
        bound = MemberInvited(member_id=origin.member_id, inviter_id=origin.inviter_id, bound_at=origin.bound_at)
        await emit(session, bound)
        if rule.newcomer_campaign_id is not None:
            want = Want(rule.newcomer_campaign_id, member_id, clock.now(), "newcomer")
            # One that cannot be had (claimed already, none left) is no reason to lose the registration.
            await issue(await session.connection(), [want])
    await settle(session, member_id)


async def _refusal(session: AsyncSession, event: MemberRegistered, touch: Touch) -> str | None:
    rule = await rule_at(session, touch.at)
    if touch.at <= event.registered_at - timedelta(days=rule.window_days):
        return "expired"
    if touch.inviter_id is None and touch.link_id is None:
        return None if touch.channel_code else "unknown_code"
    if touch.inviter_id == event.member_id:
        return "self"
    if event.phone_hash is not None and await _phone_known(session, event.phone_hash, event.member_id):
        return "existing_customer"
    return await _refusal_of_inviter(session, event, touch.inviter_id) if touch.inviter_id else None


async def _refusal_of_inviter(session: AsyncSession, event: MemberRegistered, inviter_id: UUID) -> str | None:
    if event.visitor_id is not None and await _is_theirs(session, event.visitor_id, inviter_id):
        return "same_device"
    pair = {"inviter": inviter_id, "newcomer": event.member_id}
    return "loop" if (await session.execute(_INVITES, pair)).scalar_one() else None


async def _phone_known(session: AsyncSession, phone_hash: str, member_id: UUID) -> bool:
    others = select(func.count()).where(
        col(MemberCard.phone_hash) == phone_hash, col(MemberCard.member_id) != member_id
    )
    return bool((await session.execute(others)).scalar_one()) or await is_former(session, phone_hash)


async def _is_theirs(session: AsyncSession, visitor_id: str, member_id: UUID) -> bool:
    found = select(func.count()).where(col(Device.visitor_id) == visitor_id, col(Device.member_id) == member_id)
    return bool((await session.execute(found)).scalar_one())
