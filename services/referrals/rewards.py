"""Rewards: a newcomer's first lesson and first payment earn their inviter something, once each, within a monthly cap."""

from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderDisputed, OrderPaid, OrderRefunded
from contracts.courses import LessonCompleted
from contracts.referrals import RewardGranted, RewardRevoked
from kit import clock
from kit.events import emit
from services.referrals import fraud
from services.referrals.cards import keep_earliest
from services.referrals.commissions import note_dispute, settle_commissions
from services.referrals.issue import Issued, Want, issue
from services.referrals.models import Attribution, MemberCard, Purchase, ReferralRule, Reward
from services.referrals.partner_news import tell_refund

Cause = Literal["first_lesson", "first_payment"]
GONE: Final = "inviter_gone"

# One answer: the first reason why this inviter earns nothing by this newcomer, or null.
_REFUSAL: Final = text("""
SELECT CASE
    WHEN inviter.erased_at IS NOT NULL THEN 'inviter_gone'
    WHEN newcomer.phone_hash = inviter.phone_hash THEN 'same_phone'
    WHEN EXISTS (SELECT FROM device mine JOIN device theirs USING (visitor_id)
        WHERE mine.member_id = :inviter AND theirs.member_id = :newcomer) THEN 'same_device'
    WHEN EXISTS (SELECT FROM purchase mine JOIN purchase theirs USING (fingerprint)
        WHERE mine.member_id = :inviter AND theirs.member_id = :newcomer) THEN 'same_payment'
    WHEN newcomer.paid_at < origin.bound_at THEN 'existing_customer'
    WHEN EXISTS (SELECT FROM attribution back
        WHERE back.member_id = :inviter AND back.inviter_id = :newcomer) THEN 'loop'
END
FROM attribution origin
LEFT JOIN member_card newcomer ON newcomer.member_id = origin.member_id
LEFT JOIN member_card inviter ON inviter.member_id = origin.inviter_id
WHERE origin.member_id = :newcomer
""")

_TAKE_BUDGET: Final = text("""
INSERT INTO reward_budget AS held (inviter_id, month, used) SELECT :inviter, CAST(:month AS date), 1 WHERE :cap > 0
ON CONFLICT (inviter_id, month) DO UPDATE SET used = held.used + 1 WHERE held.used < :cap
RETURNING used
""")

_RETURN_BUDGET: Final = text(
    "UPDATE reward_budget SET used = used - 1 WHERE inviter_id = :inviter AND month = CAST(:month AS date)"
)


# The first membership order is the one that was paid when the card says; all of its money went back, or a bank took it.
_REVERSE: Final = text("""
UPDATE reward SET status = CASE held.status WHEN 'held' THEN 'refused' ELSE 'revoked' END, reason = 'refunded'
FROM reward held, member_card card JOIN purchase ON purchase.member_id = card.member_id AND purchase.paid_at = card.membership_paid_at
WHERE card.member_id = :newcomer AND purchase.total > 0
    AND (purchase.refunded >= purchase.total OR purchase.dispute = 'lost')
    AND reward.newcomer_id = :newcomer AND reward.cause = 'first_payment' AND reward.status IN ('granted', 'held')
    AND held.id = reward.id
RETURNING reward.id, reward.inviter_id, reward.at, reward.status
""")


async def on_lesson_completed(session: AsyncSession, event: LessonCompleted) -> None:
    """A member finished a lesson, perhaps their first."""
    await keep_earliest(session, event.member_id, lesson_at=event.completed_at)
    await settle(session, event.member_id)


async def on_order_paid(session: AsyncSession, event: OrderPaid) -> None:
    """A member paid; an order that cost nothing is no payment."""
    if event.total == 0:
        return
    paid = {
        "member_id": event.member_id,
        "total": event.total,
        "currency": event.currency,
        "address_prefix": event.address_prefix,
        "fingerprint": event.fingerprint,
        "paid_at": event.paid_at,
    }
    row = insert(Purchase).values(paid | {"order_id": event.order_id, "refunded": 0})
    await session.execute(row.on_conflict_do_update(index_elements=["order_id"], set_=paid))
    instants = {"paid_at": event.paid_at}
    if event.kind == "membership":
        instants["membership_paid_at"] = event.paid_at
    await keep_earliest(session, event.member_id, **instants)
    await session.execute(
        update(Attribution)
        .where(col(Attribution.member_id) == event.member_id, col(Attribution.fixed_at).is_(None))
        .values(fixed_at=event.paid_at)
    )
    await settle(session, event.member_id)


async def on_order_refunded(session: AsyncSession, event: OrderRefunded) -> None:
    """Money went back; told before its payment, it waits there for it."""
    row = insert(Purchase).values(
        order_id=event.order_id,
        member_id=event.member_id,
        total=0,
        refunded=event.amount,
        currency=event.currency,
        paid_at=event.refunded_at,
    )
    more = {"refunded": col(Purchase.refunded) + event.amount}
    await session.execute(row.on_conflict_do_update(index_elements=["order_id"], set_=more))
    await _reverse(session, event.member_id)
    await settle_commissions(session, event.member_id)
    await tell_refund(session, event)


async def on_order_disputed(session: AsyncSession, event: OrderDisputed) -> None:
    """A bank looks at a payment: what a partner earned by it waits, and what was earned is lost with the money."""
    await note_dispute(session, event)
    await settle_commissions(session, event.member_id)
    await _reverse(session, event.member_id)


async def settle(session: AsyncSession, newcomer_id: UUID) -> None:
    """Pay the inviter, or owe the partner, for every step the newcomer has reached and that was not settled yet."""
    origin = await session.get(Attribution, newcomer_id)
    if origin is None:
        return
    await fraud.flag_address(session, origin)
    await settle_commissions(session, newcomer_id)
    if origin.inviter_id is None:
        return
    card = await session.get(MemberCard, newcomer_id, populate_existing=True)
    rule = await session.get(ReferralRule, origin.rule_version)
    if card is None or rule is None:
        return
    if card.lesson_at is not None and rule.inviter_campaign_id is not None:
        await _reward(session, origin, rule, "first_lesson", card.lesson_at)
    if card.membership_paid_at is not None and rule.inviter_days:
        await _reward(session, origin, rule, "first_payment", card.membership_paid_at)
        await _reverse(session, newcomer_id)


async def _reverse(session: AsyncSession, newcomer_id: UUID) -> None:
    """Take the inviter's days back when the newcomer's first membership was refunded in full."""
    for reward in (await session.execute(_REVERSE, {"newcomer": newcomer_id})).all():
        if reward.status != "revoked":
            continue
        await session.execute(_RETURN_BUDGET, {"inviter": reward.inviter_id, "month": month_of(reward.at)})
        revoked = RewardRevoked(reward_id=reward.id, member_id=reward.inviter_id, revoked_at=clock.now())
        await emit(session, revoked)


async def _reward(session: AsyncSession, origin: Attribution, rule: ReferralRule, cause: Cause, at: datetime) -> None:
    if origin.inviter_id is None:
        return
    pair = {"inviter": origin.inviter_id, "newcomer": origin.member_id}
    refusal = (await session.execute(_REFUSAL, pair)).scalar_one_or_none()
    about = fraud.pair(origin.inviter_id, origin.member_id)
    if refusal is not None and await fraud.is_released(session, refusal, about):
        refusal = None
    waiting = [] if refusal else await fraud.cases_holding(session, origin.member_id)
    reward = Reward(
        inviter_id=origin.inviter_id,
        newcomer_id=origin.member_id,
        cause=cause,
        status="refused" if refusal else "held" if waiting else "granted",
        reason=refusal,
        rule_version=rule.version,
        at=at,
    )
    # The unique step is taken first: whoever does not get it has nothing to pay.
    row = insert(Reward).values(reward.model_dump()).on_conflict_do_nothing(index_elements=["newcomer_id", "cause"])
    taken = (await session.execute(row.returning(col(Reward.id)))).scalar_one_or_none()
    if taken is None:
        return
    if refusal is not None:
        if refusal != GONE:
            await fraud.flag_refusal(session, refusal, origin.inviter_id, origin.member_id, reward.id)
    elif waiting:
        await fraud.hold_reward(session, waiting, reward.id)
    else:
        await pay(session, reward, rule)


async def pay(session: AsyncSession, reward: Reward, rule: ReferralRule) -> None:
    """Give an inviter what they earned, within the month's cap."""
    budget = {"inviter": reward.inviter_id, "month": month_of(reward.at), "cap": rule.monthly_cap}
    if (await session.execute(_TAKE_BUDGET, budget)).scalar_one_or_none() is None:
        await _settled(session, reward.id, status="refused", reason="monthly_cap")
    elif reward.cause == "first_lesson":
        await _give_coupon(session, reward, rule)
    else:
        await _give_days(session, reward, rule)


async def _give_coupon(session: AsyncSession, reward: Reward, rule: ReferralRule) -> None:
    if rule.inviter_campaign_id is None:
        return
    want = Want(rule.inviter_campaign_id, reward.inviter_id, clock.now(), "reward")
    (answer,) = await issue(await session.connection(), [want])
    if isinstance(answer, Issued):
        await _settled(session, reward.id, status="granted", reason=None, coupon_id=answer.id)
    else:
        await _settled(session, reward.id, status="refused", reason=answer.code)
        await session.execute(_RETURN_BUDGET, {"inviter": reward.inviter_id, "month": month_of(reward.at)})


def month_of(at: datetime) -> date:
    """The calendar month of the business zone, by its first day."""
    return at.astimezone(clock.ZONE).date().replace(day=1)


async def _give_days(session: AsyncSession, reward: Reward, rule: ReferralRule) -> None:
    await _settled(session, reward.id, status="granted", reason=None, days=rule.inviter_days)
    granted = RewardGranted(
        reward_id=reward.id,
        member_id=reward.inviter_id,
        days=rule.inviter_days,
        reason="referral",
        granted_at=clock.now(),
    )
    await emit(session, granted)


async def _settled(session: AsyncSession, reward_id: UUID, **columns: object) -> None:
    await session.execute(update(Reward).where(col(Reward.id) == reward_id).values(**columns))
