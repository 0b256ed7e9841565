"""Fraud cases as admins see them: the evidence, what waits, and the word that ends the waiting."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import Field
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Out, StrictIn
from services.referrals.commission_states import release, void
from services.referrals.fraud import case_cause, keep_from_counting
from services.referrals.fraud_models import FraudCase, FraudCaseMember, FraudHold
from services.referrals.models import ReferralRule, Reward
from services.referrals.origins import bind_after_all
from services.referrals.partner_models import Commission, CommissionHold
from services.referrals.rewards import pay

routes = router(prefix="/v1/admin/fraud-cases", tags=["admin referrals"])

Reader = Annotated[Caller, admin_with("coupons:read")]
Judge = Annotated[Caller, admin_with("coupons:write")]
CaseStatus = Literal["open", "released", "voided"]
AT_REGISTRATION: Final = ("same_device", "existing_customer")
"""Kinds of cases for which an invitation is refused when the newcomer registers, so that nothing is earned by it."""
GIVEN_UP: Final = "fraud"
"""The reason of a reward that a person gave up in a case; no other case pays it."""


class FraudCaseNotFound(NotFound):
    """There is no such fraud case."""

    zh = "没有这个风控案件。"


class CaseResolved(Conflict):
    """This case was resolved the other way already; what was decided stands."""

    zh = "这个案件已有相反的处理结果，不能更改。"


class HeldOut(Out):
    """Something that waits, or waited, for this case: a reward of an inviter, or a partner's commission, as it is now."""

    kind: Literal["reward", "commission"]
    id: UUID
    owner_id: UUID
    member_id: UUID
    cause: str
    amount: int | None = None
    status: str


class CaseOut(Out):
    """A case: `self`, `same_phone`, `same_device`, `same_payment`, `existing_customer`, `loop`, `burst` or `address`."""

    id: UUID
    kind: str
    status: CaseStatus
    member_ids: list[UUID]
    evidence: dict[str, Any]
    held: list[HeldOut]
    created_at: Instant
    resolved_at: Instant | None
    reason: str | None


class CaseResolutionIn(StrictIn):
    """The word of a person: `release` pays what waits, and binds whom it was refused for; `void` gives it up."""

    decision: Literal["release", "void"]
    reason: Annotated[CleanStr, Field(min_length=1, max_length=500)]


_STILL_HELD = text("""
SELECT reward.id FROM reward JOIN fraud_hold mine ON mine.reward_id = reward.id AND mine.case_id = :case
WHERE reward.status IN ('held', 'refused') AND NOT EXISTS (
    SELECT FROM fraud_hold other JOIN fraud_case ON fraud_case.id = other.case_id
    WHERE other.reward_id = reward.id AND fraud_case.status = 'open'
) ORDER BY reward.id FOR UPDATE OF reward
""")


async def case_of(case_id: UUID, session: SessionDep) -> FraudCase:
    """The case, locked until the transaction ends."""
    case = await session.get(FraudCase, case_id)
    if case is None:
        raise FraudCaseNotFound
    # Before the case, as those do who count: whoever waited behind the case would find it gone and open another one.
    await keep_from_counting(session, case)
    await session.refresh(case, with_for_update=True)
    return case


LockedCase = Annotated[FraudCase, Depends(case_of, scope="function")]


@routes.get("")
async def list_fraud_cases(
    _: Reader, session: SessionDep, page: PageDep, status: CaseStatus | None = None
) -> Page[CaseOut]:
    """What looked wrong, the latest first."""
    found = select(FraudCase)
    if status is not None:
        found = found.where(col(FraudCase.status) == status)
    order = (col(FraudCase.created_at).desc(), col(FraudCase.id).desc())
    cases, next_cursor = await keyset(session, found, page, order)
    return Page(items=[await _shown(session, case) for case in cases], next_cursor=next_cursor)


@routes.get("/{case_id}", responses=problems(FraudCaseNotFound))
async def read_fraud_case(_: Reader, case_id: UUID, session: SessionDep) -> CaseOut:
    """One case."""
    case = await session.get(FraudCase, case_id)
    if case is None:
        raise FraudCaseNotFound
    return await _shown(session, case)


@routes.post("/{case_id}/resolution", responses=problems(FraudCaseNotFound, CaseResolved))
async def resolve_fraud_case(caller: Judge, body: CaseResolutionIn, case: LockedCase, session: SessionDep) -> CaseOut:
    """End a case: pay what waited, or give it up; the same word a second time changes nothing."""
    status: CaseStatus = "released" if body.decision == "release" else "voided"
    if case.status != "open":
        if case.status != status:
            raise CaseResolved
        return await _shown(session, case)
    held = await _commissions(session, case)
    case.status, case.reason = status, body.reason
    case.resolved_at, case.resolved_by = clock.now(), caller.id
    await session.flush()
    if status == "released":
        await _pay_rewards(session, case)
        if case.kind in AT_REGISTRATION:
            inviter_id, newcomer_id = map(UUID, case.subject.split(":"))
            await bind_after_all(session, case.kind, inviter_id, newcomer_id)
    else:
        await _give_up_rewards(session, case)
        await _give_up(session, held)
    # Also of what was given up: what takes back from a commission that was paid long ago goes on.
    await release(session, case_cause(case.id), [commission.id for commission in held])
    shown = await _shown(session, case)
    await audit.record(
        session,
        f"fraud_case.{status}",
        case.id,
        before={"status": "open"},
        after={"status": status, "reason": body.reason, "held": [item.model_dump(mode="json") for item in shown.held]},
    )
    return shown


async def _pay_rewards(session: AsyncSession, case: FraudCase) -> None:
    for reward_id in (await session.execute(_STILL_HELD, {"case": case.id})).scalars().all():
        reward = await session.get_one(Reward, reward_id, populate_existing=True)
        if reward.reason in ("refunded", "monthly_cap", GIVEN_UP):
            continue
        await pay(session, reward, await session.get_one(ReferralRule, reward.rule_version))


async def _give_up_rewards(session: AsyncSession, case: FraudCase) -> None:
    mine = select(col(FraudHold.reward_id)).where(col(FraudHold.case_id) == case.id)
    await session.execute(
        update(Reward)
        .where(col(Reward.id).in_(mine), col(Reward.status) == "held")
        .values(status="refused", reason=GIVEN_UP)
    )


async def _give_up(session: AsyncSession, held: list[Commission]) -> None:
    """Void commissions, each sale with what was taken back of it."""
    sales: dict[UUID, list[Commission]] = {}
    for commission in held:
        sales.setdefault(commission.reverses_id or commission.id, []).append(commission)
    for rows in sales.values():
        await void(session, rows)


async def _commissions(session: AsyncSession, case: FraudCase) -> list[Commission]:
    found = (
        select(Commission)
        .join(CommissionHold, col(CommissionHold.commission_id) == col(Commission.id))
        .where(col(CommissionHold.cause) == case_cause(case.id))
        .order_by(col(Commission.id))
        .execution_options(populate_existing=True)
    )
    return list((await session.execute(found)).scalars())


async def _shown(session: AsyncSession, case: FraudCase) -> CaseOut:
    members = select(col(FraudCaseMember.member_id)).where(col(FraudCaseMember.case_id) == case.id)
    rewards = (
        select(Reward)
        .join(FraudHold, col(FraudHold.reward_id) == col(Reward.id))
        .where(col(FraudHold.case_id) == case.id)
        .order_by(col(Reward.id))
        .execution_options(populate_existing=True)
    )
    held = [
        HeldOut(
            kind="reward",
            id=reward.id,
            owner_id=reward.inviter_id,
            member_id=reward.newcomer_id,
            cause=reward.cause,
            status=reward.status,
        )
        for reward in (await session.execute(rewards)).scalars()
    ]
    held += [
        HeldOut(
            kind="commission",
            id=commission.id,
            owner_id=commission.partner_id,
            member_id=commission.member_id,
            cause=commission.kind,
            amount=commission.amount,
            status=commission.status,
        )
        for commission in await _commissions(session, case)
    ]
    told = {"member_ids": sorted((await session.execute(members)).scalars()), "held": held}
    return CaseOut.model_validate(case.model_dump() | told)
