"""Commissions in the books: an expense when a partner earns one, a debt until it is paid; heard in whatever order."""

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.referrals import CommissionAccrued, CommissionReversed, CommissionVoided, PayoutPaid
from services.billing.books import CASH, COMMISSIONS, COMMISSIONS_OWED, post


async def on_commission_accrued(session: AsyncSession, event: CommissionAccrued) -> None:
    """What a partner earned is owed to them."""
    await post(
        session,
        "commission",
        event.commission_id,
        debit=COMMISSIONS,
        credit=COMMISSIONS_OWED,
        amount=event.amount,
        currency=event.currency,
        at=event.accrued_at,
    )


async def on_commission_voided(session: AsyncSession, event: CommissionVoided) -> None:
    """What was not paid yet is not owed any more."""
    await post(
        session,
        "commission_voided",
        event.commission_id,
        debit=COMMISSIONS_OWED,
        credit=COMMISSIONS,
        amount=event.amount,
        currency=event.currency,
        at=event.voided_at,
    )


async def on_commission_reversed(session: AsyncSession, event: CommissionReversed) -> None:
    """What was paid already is kept back from what comes next: the partner owes it until then."""
    await post(
        session,
        "commission_reversed",
        event.commission_id,
        debit=COMMISSIONS_OWED,
        credit=COMMISSIONS,
        amount=event.amount,
        currency=event.currency,
        at=event.reversed_at,
    )


async def on_payout_paid(session: AsyncSession, event: PayoutPaid) -> None:
    """A partner was paid from the house's account."""
    await post(
        session,
        "commission_payout",
        event.payout_id,
        debit=COMMISSIONS_OWED,
        credit=CASH,
        amount=event.amount,
        currency=event.currency,
        at=event.paid_at,
    )
