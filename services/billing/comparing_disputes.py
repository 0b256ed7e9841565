"""Comparing disputes: those the provider lists for a day, and what is known of them here."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.findings import Finding
from services.billing.provider_lists import ListedDispute

_KNOWN: Final = text("SELECT provider_ref, order_id, provider_status FROM dispute WHERE provider_ref = ANY(:refs)")
_OWNED: Final = text("SELECT provider_ref, order_id FROM payment WHERE provider_ref = ANY(:refs)")


async def dispute_findings(session: AsyncSession, disputes: Iterable[ListedDispute]) -> list[Finding]:
    """What differs in disputes of our payments; those of others at the same account are left alone."""
    listed = list(disputes)
    if not listed:
        return []
    refs = {"refs": [dispute.ref for dispute in listed]}
    known = {row.provider_ref: row for row in (await session.execute(_KNOWN, refs)).all()}
    refs = {"refs": [dispute.payment_ref for dispute in listed if dispute.payment_ref]}
    owned = {row.provider_ref: row.order_id for row in (await session.execute(_OWNED, refs)).all()}
    findings = []
    for dispute in listed:
        held = known.get(dispute.ref)
        if held is None and dispute.payment_ref in owned:
            findings.append(
                Finding(
                    kind="missing_dispute",
                    repair="follow",
                    order_id=owned[dispute.payment_ref],
                    provider_ref=dispute.ref,
                    expected=dispute.status,
                    currency=dispute.currency,
                )
            )
        elif held is not None and held.provider_status != dispute.status:
            findings.append(
                Finding(
                    kind="dispute_state_differs",
                    repair="follow",
                    order_id=held.order_id,
                    provider_ref=dispute.ref,
                    expected=dispute.status,
                    found=held.provider_status,
                    currency=dispute.currency,
                )
            )
    return findings
