"""Terms: what a partner earns, in versions; the one in force at the touch is the one that counts."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.shapes import Out, StrictIn
from services.referrals.partner_models import PartnerTerms

REFUND_WINDOW_DAYS = 7
"""Nothing is owed for good while a member may still ask for the money back."""

HoldDays = Annotated[int, Field(strict=True, ge=REFUND_WINDOW_DAYS, le=365)]


# Nothing for a first lesson is said by leaving it out, by null, or by zero.
TrialAmount = Annotated[int | None, Field(strict=True, ge=0, le=10_000_000), AfterValidator(lambda fen: fen or None)]


class TermsIn(StrictIn):
    """Two stages: `trial_amount` fen for a first lesson within 14 days; `percent` of what is paid, for `months` or ever."""

    trial_amount: TrialAmount = None
    percent: Annotated[int, Field(strict=True, ge=0, le=100)]
    months: Annotated[int, Field(strict=True, ge=1, le=1200)] | None = None


class TermsOut(Out):
    """What a partner earns."""

    trial_amount: int | None
    percent: int
    months: int | None


async def terms_at(session: AsyncSession, partner_id: UUID, instant: datetime) -> PartnerTerms:
    """The terms a partner had at an instant; the first ones before there were any."""
    mine = select(PartnerTerms).where(col(PartnerTerms.partner_id) == partner_id).limit(1)
    newest = mine.where(col(PartnerTerms.starts_at) <= instant).order_by(col(PartnerTerms.version).desc())
    found = (await session.execute(newest)).scalar_one_or_none()
    return found or (await session.execute(mine.order_by(col(PartnerTerms.version)))).scalar_one()


async def newest_terms(session: AsyncSession, partner_id: UUID) -> PartnerTerms:
    """The terms that a touch would find now."""
    mine = select(PartnerTerms).where(col(PartnerTerms.partner_id) == partner_id)
    return (await session.execute(mine.order_by(col(PartnerTerms.version).desc()).limit(1))).scalar_one()
