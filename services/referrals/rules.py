"""Referral rules: what an invitation pays, in versions; the version in force at the touch is the one that counts."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, StrictIn
from services.referrals.models import Campaign, ReferralRule

routes = router(prefix="/v1/admin/referral-rules", tags=["admin referrals"])

Reader = Annotated[Caller, admin_with("coupons:read")]
Editor = Annotated[Caller, admin_with("coupons:write")]

Amount = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Days = Annotated[int, Field(strict=True, ge=0, le=366)]
SomeDays = Annotated[int, Field(strict=True, ge=1, le=366)]
Cap = Annotated[int, Field(strict=True, ge=0, le=10_000)]

STOCK = 100_000_000


class RuleIn(StrictIn):
    """A new version, fen and days; 0 means that nothing is given for that step."""

    newcomer_amount: Amount = 500
    inviter_amount: Amount = 500
    inviter_days: Days = 7
    min_amount: Amount = 1000
    valid_days: SomeDays = 90
    monthly_cap: Cap = 20
    window_days: SomeDays = 30


class RuleOut(Out):
    """A version of the rule: coupons for the newcomer and for the first lesson, days for the first payment."""

    version: int
    newcomer_amount: int
    inviter_amount: int
    inviter_days: int
    min_amount: int
    valid_days: int
    monthly_cap: int
    window_days: int
    newcomer_campaign_id: UUID | None
    inviter_campaign_id: UUID | None
    starts_at: Instant


async def rule_at(session: AsyncSession, instant: datetime) -> ReferralRule:
    """The version in force at an instant; the first one before there was any."""
    newest = select(ReferralRule).order_by(col(ReferralRule.version).desc()).limit(1)
    found = (await session.execute(newest.where(col(ReferralRule.starts_at) <= instant))).scalar_one_or_none()
    if found is not None:
        return found
    return (await session.execute(select(ReferralRule).order_by(col(ReferralRule.version)).limit(1))).scalar_one()


@routes.get("")
async def list_referral_rules(_: Reader, session: SessionDep, page: PageDep) -> Page[RuleOut]:
    """All versions, the one in force first."""
    rows, next_cursor = await keyset(session, select(ReferralRule), page, (col(ReferralRule.version).desc(),))
    return Page(items=[RuleOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@routes.post("", status_code=201)
async def create_referral_rule(caller: Editor, body: RuleIn, session: SessionDep) -> RuleOut:
    """Put a new version in force; touches before this moment are paid by the version they found."""
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtext('referral rule'))"))
    now = clock.now()
    before = await rule_at(session, now)
    same_terms = (before.min_amount, before.valid_days) == (body.min_amount, body.valid_days)
    rule = ReferralRule(**body.model_dump(), version=before.version + 1, starts_at=now, created_by=caller.id)
    if same_terms and before.newcomer_amount == body.newcomer_amount:
        rule.newcomer_campaign_id = before.newcomer_campaign_id
    elif body.newcomer_amount:
        rule.newcomer_campaign_id = await _campaign(session, body, "新人见面礼", body.newcomer_amount, "new_members", 1)
    if same_terms and before.inviter_amount == body.inviter_amount:
        rule.inviter_campaign_id = before.inviter_campaign_id
    elif body.inviter_amount:
        each = 1_000_000
        rule.inviter_campaign_id = await _campaign(session, body, "邀请好友奖励", body.inviter_amount, "everyone", each)
    session.add(rule)
    await session.flush()
    await audit.record(
        session, "referral_rule.created", rule.version, before=before.model_dump(), after=rule.model_dump()
    )
    return RuleOut.model_validate(rule)


async def _campaign(
    session: AsyncSession, terms: RuleIn, title: str, amount: int, audience: str, per_member: int
) -> UUID:
    now = clock.now()
    campaign = Campaign(
        title=title,
        kind="amount",
        value=amount,
        min_amount=terms.min_amount,
        total=STOCK,
        per_member=per_member,
        starts_at=now,
        valid_days=terms.valid_days,
        audience=audience,
        claimable=False,
        created_at=now,
    )
    session.add(campaign)
    await session.flush()
    return campaign.id
