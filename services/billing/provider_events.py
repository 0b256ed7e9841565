"""What the provider's events mean: facts about payments, sessions, refunds and disputes that are true in any order."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import Runtime
from services.billing import disputes, payments, refunding, subscription_pages
from services.billing.models import Order
from services.billing.payments import Arrival
from services.billing.provider import provider_of

MOST = 2**53
LONGEST_REF = 255


async def handle(rt: Runtime, session: AsyncSession, kind: str, subject: dict[str, Any]) -> str:
    """Take in one event in the caller's transaction; a word for what came of it."""
    match kind:
        case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
            return await _completed(rt, session, subject)
        case "payment_intent.succeeded":
            return await _arrived(rt, session, subject, subject.get("id"), subject.get("amount_received"))
        case "checkout.session.expired":
            return await _session_over(session, subject)
        case "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated":
            return await refunding.on_provider_refund(rt, session, subject)
        case (
            "charge.dispute.created"
            | "charge.dispute.updated"
            | "charge.dispute.closed"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.funds_reinstated"
        ):
            return await disputes.on_provider_dispute(rt, session, subject)
        case _:
            return "ignored"


async def _completed(rt: Runtime, session: AsyncSession, subject: dict[str, Any]) -> str:
    if subject.get("mode") == "setup":
        return await subscription_pages.on_card_kept(rt, session, subject)
    # Completed is not paid: a wallet may still be settling.
    if subject.get("payment_status") != "paid":
        return "not_paid"
    ref = subject.get("payment_intent") or subject.get("id")
    return await _arrived(rt, session, subject, ref, subject.get("amount_total"))


async def _arrived(rt: Runtime, session: AsyncSession, subject: dict[str, Any], ref: Any, amount: Any) -> str:
    currency = subject.get("currency")
    if isinstance(ref, dict):
        ref = ref.get("id")
    if not _is_ref(ref) or not _is_amount(amount) or not isinstance(currency, str) or not currency.isascii():
        return "malformed"
    order_id = await _order_id(session, subject)
    if order_id is None:
        return "not_ours"
    if before := await payments.known(session, ref):
        return before
    await session.commit()
    means = await provider_of(rt).means(ref)
    return await payments.settle(session, order_id, Arrival(ref, amount, currency.upper()[:16], means))


def _is_ref(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_REF and value.isascii() and value.isprintable()


def _is_amount(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


async def _order_id(session: AsyncSession, subject: dict[str, Any]) -> UUID | None:
    """Which order an event is about: named by its metadata, else by its reference, else known by its session."""
    metadata = subject.get("metadata")
    named = metadata.get("order_id") if isinstance(metadata, dict) else None
    for text in (named, subject.get("client_reference_id")):
        try:
            order_id = UUID(text)
        except (ValueError, TypeError, AttributeError):
            continue
        return order_id
    session_id = subject.get("id")
    if not _is_ref(session_id):
        return None
    return await session.scalar(select(col(Order.id)).where(col(Order.session_id) == session_id))


async def _session_over(session: AsyncSession, subject: dict[str, Any]) -> str:
    session_id = subject.get("id")
    if not _is_ref(session_id):
        return "malformed"
    order_id = await session.scalar(select(col(Order.id)).where(col(Order.session_id) == session_id))
    if order_id is None:
        return "not_ours"
    closed = await payments.close(session, order_id)
    await session.execute(
        update(Order)
        .where(col(Order.id) == order_id, col(Order.status) != "pending")
        .values(session_open=False, next_check_at=None)
    )
    return "expired" if closed else "closed_before"
