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
from kit.text import instant
from services.referrals.commission_states import hold
from services.referrals.fraud_models import FraudCase, FraudCaseMember, FraudHold
from services.referrals.models import Attribution
from services.referrals.partner_models import Commission

BURST: Final = 10
BURST_WITHIN: Final = timedelta(hours=1)
BUYERS_AT_ONE_ADDRESS: Final = 3
COUNTED: Final = ("burst", "address")
"""Kinds of cases whose subject begins with the source that is counted for."""

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
WHERE who.member_id = :member AND who.holds AND found.status = 'open' ORDER BY found.id FOR SHARE OF found
""")

# What the two share, by the first letters of a digest: it can be compared, and is nothing to forget when they leave.
_SHARED: Final = {
    "same_device": text("""
        SELECT jsonb_build_object('devices', jsonb_agg(left(encode(sha256(visitor_id::bytea), 'hex'), 12)))
        FROM device mine JOIN device theirs USING (visitor_id)
        WHERE mine.member_id = :inviter AND theirs.member_id = :newcomer
    """),
    "same_payment": text("""
        SELECT jsonb_build_object('orders', jsonb_agg(DISTINCT one.order_id),
            'fingerprints', jsonb_agg(DISTINCT left(encode(sha256(one.fingerprint::bytea), 'hex'), 12)))
        FROM purchase one JOIN purchase other USING (fingerprint)
        WHERE one.member_id IN (:inviter, :newcomer) AND other.member_id IN (:inviter, :newcomer)
            AND one.member_id <> other.member_id
    """),
    "existing_customer": text("""
        SELECT jsonb_build_object('paid_at', card.paid_at, 'bound_at', origin.bound_at, 'same_phone_as', (
            SELECT jsonb_agg(member_id) FROM member_card other
            WHERE other.phone_hash = card.phone_hash AND other.member_id <> card.member_id))
        FROM member_card card LEFT JOIN attribution origin USING (member_id) WHERE card.member_id = :newcomer
    """),
    "loop": text("""
        SELECT jsonb_build_object('invited_at', bound_at) FROM attribution
        WHERE member_id = :inviter AND inviter_id = :newcomer
    """),
}


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
    # Said in full: with a parameter in its place, PostgreSQL finds the partial index for some plans of the statement only.
    is_open = text("status = 'open'")
    made = (
        insert(FraudCase)
        .values(row)
        .on_conflict_do_update(index_elements=["kind", "subject"], index_where=is_open, set_={"evidence": evidence})
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
    """The open cases that what this member earns others waits for; they stay open until the transaction ends."""
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
    if reason in _SHARED:
        both = {"inviter": inviter_id, "newcomer": newcomer_id}
        shared = (await session.execute(_SHARED[reason], both)).scalar_one_or_none() or {}
        evidence |= {name: value for name, value in shared.items() if value is not None}
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
        "first_at": instant(recent[0].bound_at),
        "last_at": instant(recent[-1].bound_at),
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
    by_address: dict[str, dict[UUID, str]] = {}
    for row in await session.execute(_BUYERS, {"source": source, "member": origin.member_id}):
        by_address.setdefault(row.address_prefix, {})[row.member_id] = instant(row.first_at)
    for address, bought in by_address.items():
        buyers = list(bought)
        later = buyers[BUYERS_AT_ONE_ADDRESS:]
        if origin.member_id not in later:
            continue
        subject = f"{source}:{address}"
        if await is_released(session, "address", subject):
            # A person has looked: it is a school's, say.
            continue
        evidence = {
            "address_prefix": address,
            "buyers": len(buyers),
            "first_paid_at": {str(member_id): at for member_id, at in bought.items()},
        }
        await open_case(session, "address", subject, evidence, about=buyers, holds=later)


async def is_released(session: AsyncSession, kind: str, subject: str) -> bool:
    """Whether a person has said of this that it is well."""
    return bool((await session.execute(_RELEASED, {"kind": kind, "subject": subject})).scalar_one())


async def _alone(session: AsyncSession, source: UUID) -> None:
    """Count for one source at a time, so that two who come at once see each other."""
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:source, 7))"), {"source": str(source)})


async def keep_from_counting(session: AsyncSession, case: FraudCase) -> None:
    """Let nobody add to a case of counted members, or open the next one of its kind, until the transaction ends."""
    if case.kind in COUNTED:
        await _alone(session, UUID(case.subject.partition(":")[0]))
