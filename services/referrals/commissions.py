"""Commissions: what a partner is owed for a member's first lesson and for what they pay, held, due, voided, taken back."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderDisputed
from contracts.referrals import CommissionAccrued, CommissionReversed
from kit import clock
from kit.events import emit
from kit.ids import new_id
from services.referrals.commission_states import hold, release, told, void
from services.referrals.fraud import hold_commissions
from services.referrals.fraud_partners import flag_partner
from services.referrals.models import Attribution, MemberCard
from services.referrals.partner_models import Commission, CommissionHold, PartnerTerms
from services.referrals.partner_news import tell_progress
from services.referrals.webhook_messages import tell

TRIAL_WITHIN: Final = timedelta(days=14)
BATCH: Final = 500
DISPUTE: Final = "dispute"
CURRENCY: Final = "CNY"

_PURCHASES: Final = text("""
SELECT order_id, total, refunded, currency, paid_at, dispute FROM purchase
WHERE member_id = :member AND total > 0 AND (CAST(:months AS int) IS NULL OR paid_at AT TIME ZONE :zone <
    CAST(:first AS timestamptz) AT TIME ZONE :zone + make_interval(months => CAST(:months AS int)))
ORDER BY paid_at, order_id
""")

_DISPUTE: Final = text("""
INSERT INTO purchase (order_id, member_id, total, refunded, currency, paid_at, dispute)
VALUES (:order, :member, 0, 0, :currency, :at, :outcome)
ON CONFLICT (order_id) DO UPDATE SET dispute = excluded.dispute
WHERE purchase.dispute IS NULL OR purchase.dispute = 'opened'
""")


async def settle_commissions(session: AsyncSession, member_id: UUID) -> None:
    """Make what is owed for this member equal to what they did and paid; saying it again changes nothing."""
    found = select(Attribution).where(col(Attribution.member_id) == member_id, col(Attribution.partner_id).is_not(None))
    origin = (await session.execute(found.with_for_update())).scalar_one_or_none()
    if origin is None or origin.partner_id is None:
        return
    terms = await session.get(PartnerTerms, (origin.partner_id, origin.terms_version))
    card = await session.get(MemberCard, member_id, populate_existing=True)
    if terms is None or card is None or (card.paid_at is not None and card.paid_at < origin.bound_at):
        return
    await tell_progress(session, origin, card)
    if terms.trial_amount and card.lesson_at is not None and card.lesson_at < origin.bound_at + TRIAL_WITHIN:
        await _accrue(
            session,
            origin,
            terms.hold_days,
            kind="trial",
            order_id=None,
            amount=terms.trial_amount,
            currency=CURRENCY,
            at=card.lesson_at,
        )
    period = {"member": member_id, "months": terms.months, "first": card.paid_at, "zone": str(clock.ZONE)}
    for purchase in (await session.execute(_PURCHASES, period)).all():
        await _settle_sale(session, origin, terms, purchase)
    await flag_partner(session, origin)


async def _settle_sale(session: AsyncSession, origin: Attribution, terms: PartnerTerms, purchase: Row[Any]) -> None:
    full = terms.percent * purchase.total // 100
    if full:
        await _accrue(
            session,
            origin,
            terms.hold_days,
            kind="sale",
            order_id=purchase.order_id,
            amount=full,
            currency=purchase.currency,
            at=purchase.paid_at,
        )
    rows = await _sold(session, purchase.order_id)
    if not rows:
        return
    if purchase.dispute is not None:
        look = hold if purchase.dispute == "opened" else release
        await look(session, DISPUTE, [row.id for row in rows])
        rows = await _sold(session, purchase.order_id)
    left = 0 if purchase.dispute == "lost" else max(0, purchase.total - purchase.refunded)
    too_much = sum(row.amount for row in rows if row.status != "voided") - terms.percent * left // 100
    if too_much <= 0:
        return
    sale = next(row for row in rows if row.kind == "sale")
    unpaid = all(row.payout_id is None for row in rows)
    if unpaid and too_much == sum(row.amount for row in rows if row.status != "voided"):
        await void(session, rows)
    else:
        await _reverse(session, sale, too_much)


async def _sold(session: AsyncSession, order_id: UUID) -> Sequence[Commission]:
    """The commissions of an order as the database has them now, locked."""
    mine = select(Commission).where(col(Commission.order_id) == order_id).order_by(col(Commission.id))
    return (await session.execute(mine.with_for_update().execution_options(populate_existing=True))).scalars().all()


async def _accrue(  # noqa: PLR0913 - what a commission is made of
    session: AsyncSession,
    origin: Attribution,
    hold_days: int,
    *,
    kind: Literal["trial", "sale"],
    order_id: UUID | None,
    amount: int,
    currency: str,
    at: datetime,
) -> None:
    row = {
        "id": new_id(),
        "partner_id": origin.partner_id,
        "kind": kind,
        "member_id": origin.member_id,
        "order_id": order_id,
        "amount": amount,
        "currency": currency,
        "status": "pending",
        "accrued_at": at,
        "due_at": at + timedelta(days=hold_days),
    }
    # The indexes let each stage be taken once.
    made = insert(Commission).values(row).on_conflict_do_nothing().returning(Commission)
    commission = await session.scalar(made)
    if commission is None:
        return
    accrued = CommissionAccrued(
        commission_id=commission.id,
        partner_id=commission.partner_id,
        kind=kind,
        order_id=order_id,
        amount=amount,
        currency=currency,
        accrued_at=at,
        due_at=commission.due_at,
    )
    await emit(session, accrued)
    await hold_commissions(session, origin.member_id)
    await tell(session, commission.partner_id, "commission.created", commission.id, **told(commission))


async def _reverse(session: AsyncSession, sale: Commission, amount: int) -> None:
    """Take back a part, or what was paid or is locked in a run: a new negative row, beside the one it reverses."""
    now = clock.now()
    open_still = sale.payout_id is None
    row = Commission(
        partner_id=sale.partner_id,
        kind="reversal",
        member_id=sale.member_id,
        order_id=sale.order_id,
        reverses_id=sale.id,
        amount=-amount,
        currency=sale.currency,
        status=sale.status if open_still else "due",
        accrued_at=now,
        due_at=sale.due_at if open_still else now,
    )
    session.add(row)
    await session.flush()
    if row.status == "held":
        # It waits for whatever the commission waits for.
        held = select(col(CommissionHold.cause)).where(
            col(CommissionHold.commission_id) == sale.id, col(CommissionHold.ended_at).is_(None)
        )
        for cause in (await session.execute(held)).scalars().all():
            await hold(session, cause, [row.id])
    reversed_ = CommissionReversed(
        commission_id=row.id,
        reverses_id=sale.id,
        partner_id=row.partner_id,
        order_id=row.order_id,
        amount=amount,
        currency=row.currency,
        reversed_at=now,
    )
    await emit(session, reversed_)
    await tell(session, row.partner_id, "commission.reversed", row.id, **told(row))


async def note_dispute(session: AsyncSession, event: OrderDisputed) -> None:
    """Keep how a dispute stands; once decided, it stays so. Heard before its payment, it waits there for it."""
    told = {
        "order": event.order_id,
        "member": event.member_id,
        "currency": event.currency,
        "at": event.disputed_at,
        "outcome": event.outcome,
    }
    await session.execute(_DISPUTE, told)
