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
from kit.text import dump_json, instant
from services.referrals.webhook_models import WebhookMessage

TEST: Final = "endpoint.test"
TYPES: Final = {
    "member.registered": "有人通过你的链接注册 / somebody registered by one of your links",
    "member.tried": "你带来的会员学完了第一节课 / a member you brought finished a first lesson",
    "order.paid": "你带来的会员付款了 / a member you brought paid",
    "order.refunded": "你带来的会员的付款退回了 / money of a member you brought went back",
    "commission.created": "有一笔佣金计提 / a commission was earned",
    "commission.due": "一笔佣金到期应付 / a commission is due",
    "commission.voided": "一笔佣金作废 / a commission is not owed after all",
    "commission.reversed": "一笔佣金被追回 / a commission is taken back",
    "payout.paid": "佣金已付款 / you were paid",
    TEST: "测试 / a test you asked for",
}
"""What a partner may be told."""

_DELIVER: Final = text("""
INSERT INTO webhook_delivery (id, endpoint_id, message_id, status, tries, next_attempt_at, attempts, created_at)
SELECT gen_random_uuid(), id, :message, 'pending', 0, :now, '[]', :now FROM webhook_endpoint
WHERE partner_id = :partner AND status = 'active' AND :type = ANY(events)
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
    """The row of a message; its body is what is sent, and signed, byte for byte."""
    body = {"type": kind, "timestamp": instant(at), "data": told}
    return {
        "id": new_id(),
        "partner_id": partner_id,
        "type": kind,
        "reference": reference,
        "body": dump_json(body).decode(),
        "at": at,
    }
