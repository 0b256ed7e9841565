"""Messages to partners: written in the transaction of what they tell, one delivery for each endpoint that listens."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.ids import new_id
from kit.text import dump_json
from services.referrals.webhook_events import TOLD
from services.referrals.webhook_models import WebhookMessage

# A partner who was shut off hears nothing; what is kept can be sent once they are back.
_DELIVER: Final = text("""
INSERT INTO webhook_delivery (id, endpoint_id, message_id, status, tries, next_attempt_at, attempts, created_at)
SELECT uuidv7(), endpoint.id, :message, 'pending', 0, :now, '[]', :now
FROM webhook_endpoint endpoint JOIN partner ON partner.id = endpoint.partner_id
WHERE partner.id = :partner AND partner.active AND endpoint.status = 'active' AND :type = ANY(endpoint.events)
""")


async def tell(session: AsyncSession, partner_id: UUID, kind: str, reference: UUID, /, **told: Any) -> None:
    """Tell a partner in the caller's transaction; the same of the same again tells nothing."""
    now = clock.now()
    row = message(partner_id, kind, reference, now, told)
    made = insert(WebhookMessage).values(row).on_conflict_do_nothing(index_elements=["type", "reference"])
    if await session.scalar(made.returning(col(WebhookMessage.id))) is None:
        return
    await session.execute(_DELIVER, {"message": row["id"], "partner": partner_id, "type": kind, "now": now})


def message(partner_id: UUID, kind: str, reference: UUID, at: datetime, told: dict[str, Any]) -> dict[str, Any]:
    """The row of a message; its body is what is sent, and signed, byte for byte. ValidationError for other data."""
    body = TOLD[kind].model_validate({"type": kind, "timestamp": at, "data": told})
    return {
        "id": new_id(),
        "partner_id": partner_id,
        "type": kind,
        "reference": reference,
        "body": dump_json(body.model_dump()).decode(),
        "at": at,
    }
