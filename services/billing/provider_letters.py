"""Old letters of the provider: what one said is forgotten three months after it was handled; that it came stays known."""

from datetime import timedelta
from typing import Final

from sqlalchemy import text

from kit import clock
from kit.app import Runtime
from kit.due import Due

KEPT: Final = timedelta(days=90)
AT_ONCE = 1000

# It names a card, a person and where they live; what counts of it is in the payment, the refund, the dispute.
_FORGET: Final = text("""
UPDATE provider_event SET payload = '' WHERE id IN (
    SELECT id FROM provider_event WHERE handled_at IS NOT NULL AND octet_length(payload) > 0 AND received_at < :before
    ORDER BY received_at LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING id
""")


async def forget_old(rt: Runtime) -> int:
    """Forget what some of the oldest handled events said; how many."""
    asked = {"before": clock.now() - KEPT, "most": AT_ONCE}
    async with rt.db.session() as session, session.begin():
        return len((await session.execute(_FORGET, asked)).all())


due = Due("forget old letters", forget_old, every_s=600.0, by_portions=True)
