"""Fraud: what looks wrong opens a case with its evidence, and what is earned by it waits for a person."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.ids import new_id
from services.referrals.commission_states import hold
from services.referrals.fraud_models import FraudCase, FraudCaseMember, FraudHold
from services.referrals.models import Attribution
from services.referrals.partner_models import Commission

BURST: Final = 10
BURST_WITHIN: Final = timedelta(hours=1)
BUYERS_AT_ONE_ADDRESS: Final = 3

# Registrations by one source within the hour before this one, of which nobody has said that they are well.
_RECENT: Final = text("""
SELECT member_id, bound_at FROM attribution
WHERE coalesce(inviter_id, partner_id) = :source AND bound_at > :since AND bound_at <= :until
AND bound_at > coalesce((SELECT max(resolved_at) FROM fraud_case
    WHERE kind = 'burst' AND subject = :subject AND status = 'released'), '-infinity')
ORDER BY bound_at, member_id
""")

# Who bought at an address among those one source brought, in the order of their first purchase there.
_BUYERS: Final = text("""
SELECT purchase.address_prefix, purchase.member_id, min(purchase.paid_at) AS first_at
FROM purchase JOIN attribution ON attribution.member_id = purchase.member_id
WHERE coalesce(attribution.inviter_id, attribution.partner_id) = :source AND purchase.total > 0
AND purchase.address_prefix IN (SELECT address_prefix FROM purchase WHERE member_id = :member AND total > 0)
GROUP BY purchase.address_prefix, purchase.member_id ORDER BY first_at, purchase.member_id
""")

_RELEASED: Final = text("""
SELECT EXISTS (SELECT FROM fraud_case WHERE kind = :kind AND subject = :subject AND status = 'released')
""")
_HOLDING: Final = text("""
SELECT found.id FROM fraud_case found JOIN fraud_case_member who ON who.case_id = found.id
WHERE who.member_id = :member AND who.holds AND found.status = 'open' ORDER BY found.id
""")


async def open_case(
    session: AsyncSession,
    kind: str,
    subject: str,
    evidence: dict[str, Any],
    *,
    about: Iterable[UUID],
    holds: Iterable[UUID],
) -> UUID:
    """Open a case, or add to the open one of this kind and subject; what `holds` earn others waits from now on."""
    row = {
        "id": new_id(),
        "kind": kind,
        "subject": subject,
        "status": "open",
        "evidence": evidence,
        "created_at": clock.now(),
    }
    made = (
        insert(FraudCase)
        .values(row)
        .on_conflict_do_update(
            index_elements=["kind", "subject"], index_where=col(FraudCase.status) == "open", set_={"evidence": evidence}
        )
    )
    case_id: UUID = (await session.execute(made.returning(col(FraudCase.id)))).scalar_one()
    holding = set(holds)
    for member_id in {*about, *holding}:
        who = insert(FraudCaseMember).values(case_id=case_id, member_id=member_id, holds=member_id in holding)
        more = who.on_conflict_do_update(
            index_elements=["case_id", "member_id"],
            set_={"holds": col(FraudCaseMember.holds) | who.excluded.holds},
        )
        await session.execute(more)
    for member_id in holding:
        await hold_commissions(session, member_id)
    return case_id


async def cases_holding(session: AsyncSession, member_id: UUID) -> list[UUID]:
    """The open cases that what this member earns others waits for."""
    return list((await session.execute(_HOLDING, {"member": member_id})).scalars())


async def hold_commissions(session: AsyncSession, member_id: UUID) -> None:
    """Let the commissions earned by a member wait for the cases about them."""
    for case_id in await cases_holding(session, member_id):
        mine = select(col(Commission.id)).where(
            col(Commission.member_id) == member_id, col(Commission.status).in_(["pending", "due", "held"])
        )
        await hold(session, case_cause(case_id), list((await session.execute(mine)).scalars()))


def pair(inviter_id: UUID, newcomer_id: UUID) -> str:
    """What a case about an inviter and a newcomer is about."""
    return f"{inviter_id}:{newcomer_id}"


def case_cause(case_id: UUID) -> str:
    """What a commission that waits for this case says."""
    return f"case:{case_id}"


async def hold_reward(session: AsyncSession, case_ids: Iterable[UUID], reward_id: UUID) -> None:
    """Let a reward wait for these cases."""
    for case_id in case_ids:
        await session.execute(insert(FraudHold).values(case_id=case_id, reward_id=reward_id).on_conflict_do_nothing())


async def flag_refusal(
    session: AsyncSession, reason: str, inviter_id: UUID, newcomer_id: UUID, reward_id: UUID | None = None
) -> None:
    """Write down that somebody was refused as their own or an old acquaintance's referral; a person may overrule it."""
    evidence = {"reason": reason, "inviter_id": str(inviter_id), "newcomer_id": str(newcomer_id)}
    subject = pair(inviter_id, newcomer_id)
    case_id = await open_case(session, reason, subject, evidence, about=[inviter_id, newcomer_id], holds=[])
    if reward_id is not None:
        await hold_reward(session, [case_id], reward_id)


async def flag_burst(session: AsyncSession, origin: Attribution) -> None:
    """Flag more registrations by one source within an hour than word of mouth brings."""
    source = origin.inviter_id or origin.partner_id
    if source is None:
        return
    await _alone(session, source)
    asked = {
        "source": source,
        "subject": str(source),
        "since": origin.bound_at - BURST_WITHIN,
        "until": origin.bound_at,
    }
    recent = (await session.execute(_RECENT, asked)).all()
    if len(recent) <= BURST:
        return
    evidence = {
        "registrations": len(recent),
        "first_at": recent[0].bound_at.isoformat(),
        "last_at": recent[-1].bound_at.isoformat(),
    }
    members = [row.member_id for row in recent]
    inviter = [origin.inviter_id] if origin.inviter_id else []
    await open_case(session, "burst", str(source), evidence, about=inviter, holds=members)


async def flag_address(session: AsyncSession, origin: Attribution) -> None:
    """Flag the later ones of more than three buyers whom one source brought and who bought at one address."""
    source = origin.inviter_id or origin.partner_id
    if source is None:
        return
    await _alone(session, source)
    by_address: dict[str, list[UUID]] = {}
    for row in await session.execute(_BUYERS, {"source": source, "member": origin.member_id}):
        by_address.setdefault(row.address_prefix, []).append(row.member_id)
    for address, buyers in by_address.items():
        later = buyers[BUYERS_AT_ONE_ADDRESS:]
        if origin.member_id not in later:
            continue
        subject = f"{source}:{address}"
        if await is_released(session, "address", subject):
            # A person has looked: it is a school's, say.
            continue
        evidence = {"address_prefix": address, "buyers": len(buyers)}
        await open_case(session, "address", subject, evidence, about=buyers, holds=later)


async def is_released(session: AsyncSession, kind: str, subject: str) -> bool:
    """Whether a person has said of this that it is well."""
    return bool((await session.execute(_RELEASED, {"kind": kind, "subject": subject})).scalar_one())


async def _alone(session: AsyncSession, source: UUID) -> None:
    """Count for one source at a time, so that two who come at once see each other."""
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:source, 7))"), {"source": str(source)})
