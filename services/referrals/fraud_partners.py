"""Partners and whom they bring: what they earn by themselves, or by an old customer's second account, waits for a person."""

from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.referrals.fraud import is_released, open_case, pair
from services.referrals.models import Attribution

# The first reason why this partner earns nothing by this newcomer, if any, while there is something to earn.
_REFUSAL: Final = text("""
SELECT partner.member_id, CASE
    WHEN partner.member_id = :newcomer THEN 'self'
    WHEN theirs.phone_hash = mine.phone_hash THEN 'same_phone'
    WHEN EXISTS (SELECT FROM device one JOIN device other USING (visitor_id)
        WHERE one.member_id = partner.member_id AND other.member_id = :newcomer) THEN 'same_device'
    WHEN EXISTS (SELECT FROM purchase one JOIN purchase other USING (fingerprint)
        WHERE one.member_id = partner.member_id AND other.member_id = :newcomer) THEN 'same_payment'
    WHEN EXISTS (SELECT FROM purchase one JOIN purchase other USING (fingerprint)
        WHERE one.member_id = :newcomer AND other.member_id <> :newcomer
            AND other.total > 0 AND other.paid_at < :bound_at) THEN 'existing_customer'
END AS reason
FROM partner LEFT JOIN member_card mine ON mine.member_id = partner.member_id
    LEFT JOIN member_card theirs ON theirs.member_id = :newcomer
WHERE partner.id = :partner AND EXISTS (SELECT FROM commission WHERE member_id = :newcomer
    AND partner_id = :partner AND status IN ('pending', 'due', 'held') AND payout_id IS NULL)
""")

# By the first letters of a digest, so that there is nothing to forget when they leave.
_EVIDENCE: Final = text("""
SELECT (SELECT jsonb_agg(DISTINCT left(encode(sha256(visitor_id::bytea), 'hex'), 12))
        FROM device one JOIN device other USING (visitor_id)
        WHERE one.member_id = :owner AND other.member_id = :newcomer) AS devices,
    jsonb_agg(DISTINCT other.member_id) FILTER (WHERE other.member_id <> :newcomer) AS same_payment_as,
    jsonb_agg(DISTINCT one.order_id) AS orders
FROM purchase one JOIN purchase other USING (fingerprint)
WHERE one.member_id = :newcomer AND other.member_id <> :newcomer
""")


async def flag_partner(session: AsyncSession, origin: Attribution) -> None:
    """Let what a partner earns by themselves or by an old customer wait for a person, who pays it or gives it up."""
    if origin.partner_id is None:
        return
    asked = {"partner": origin.partner_id, "newcomer": origin.member_id, "bound_at": origin.bound_at}
    found = (await session.execute(_REFUSAL, asked)).one_or_none()
    if found is None or found.reason is None:
        return
    subject = pair(origin.partner_id, origin.member_id)
    if await is_released(session, found.reason, subject):
        return
    shared = (await session.execute(_EVIDENCE, {"owner": found.member_id, "newcomer": origin.member_id})).one()
    evidence: dict[str, Any] = {
        "reason": found.reason,
        "partner_id": str(origin.partner_id),
        "newcomer_id": str(origin.member_id),
    }
    evidence |= {name: value for name, value in shared._asdict().items() if value is not None}
    about = [found.member_id] if found.member_id is not None else []
    await open_case(session, found.reason, subject, evidence, about=about, holds=[origin.member_id])
