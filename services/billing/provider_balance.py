"""The balance at the provider: the fees it kept and what it paid out, asked for once a day and booked once each."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from kit import clock
from kit.app import Runtime
from kit.db import instant
from kit.due import Due
from services.billing import books
from services.billing.models import Order
from services.billing.periods import DAY, day_of, day_start
from services.billing.provider import PaymentProviderUnavailable, ProviderRefusal, provider_of
from services.billing.provider_lists import moves_between
from services.billing.registry import Model

log = structlog.get_logger(__name__)

AFTER: Final = timedelta(hours=1, minutes=30)
"""How long after midnight yesterday's moves are asked for."""
OVERLAP: Final = timedelta(days=3)
"""How far back it is asked again: what was booked is not booked twice."""
RETRY: Final = timedelta(minutes=10)
CHARGES: Final = ("charge", "payment", "refund", "payment_refund")
PAYOUTS: Final = ("payout", "payout_cancel", "payout_failure")

_ORDERS: Final = text("SELECT provider_ref, order_id FROM payment WHERE provider_ref = ANY(:refs)")


class ProviderBalance(Model, table=True):
    """Until when the provider's balance is booked; one row."""

    __tablename__ = "provider_balance"

    id: int = Field(default=1, primary_key=True)
    booked_until: datetime = Field(sa_column=instant())
    next_at: datetime = Field(sa_column=instant())


async def book_balance(rt: Runtime) -> int:
    """Book what the provider's balance did until now, once a business day; how many entries were new."""
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        due_now = col(ProviderBalance.next_at) <= now
        # The claim is a lease: if this process dies, the next attempt comes by itself.
        claim = update(ProviderBalance).where(due_now).values(next_at=now + RETRY)
        booked_until = await session.scalar(claim.returning(col(ProviderBalance.booked_until)))
        if booked_until is None:
            await _begin(session)
            return 0
    booked = 0
    try:
        async for page in moves_between(provider_of(rt), booked_until - OVERLAP, now):
            async with rt.db.session() as session, session.begin():
                booked += await _book(session, page)
    except (PaymentProviderUnavailable, ProviderRefusal) as failure:
        log.warning("the provider's balance waits", error=str(failure))
        return booked
    async with rt.db.session() as session, session.begin():
        await session.execute(update(ProviderBalance).values(booked_until=now, next_at=_next(now)))
    return booked


async def _begin(session: AsyncSession) -> None:
    """The first day to ask about is that of the first order; without one there is nothing to ask."""
    first = await session.scalar(select(func.min(col(Order.created_at))))
    if first is not None:
        row = {"id": 1, "booked_until": first, "next_at": _next(first)}
        await session.execute(upsert(ProviderBalance).values(row).on_conflict_do_nothing())


def _next(now: datetime) -> datetime:
    return day_start(day_of(now - AFTER) + DAY) + AFTER


async def _book(session: AsyncSession, moves: list[dict[str, Any]]) -> int:
    refs = {move["id"]: _payment_of(move["source"]) for move in moves}
    wanted = [ref for ref in refs.values() if ref]
    orders = {row.provider_ref: row.order_id for row in (await session.execute(_ORDERS, {"refs": wanted})).all()}
    booked = 0
    for move in moves:
        lines = _lines(move)
        if lines is None:
            continue
        kind, sides = lines
        booked += await books.enter(
            session,
            kind,
            uuid5(NAMESPACE_URL, f"balance_transaction:{move['id']}"),
            sides,
            move["currency"].upper(),
            order_id=orders.get(refs[move["id"]]),
            at=move["made_at"],
        )
    return booked


def _lines(move: dict[str, Any]) -> tuple[str, dict[str, int]] | None:
    """What a move is in the books; None for what is booked where it happens."""
    fee, amount = move["fee"], move["amount"]
    if move["type"] in CHARGES and fee:
        return "provider_fee", {books.FEES: fee, books.PROVIDER: -fee}
    if move["type"] in PAYOUTS and amount:
        return "provider_payout", {books.CASH: -amount, books.PROVIDER: amount}
    # What is charged to the account itself has no payment.
    if move["type"] == "stripe_fee" and amount:
        return "provider_fee", {books.FEES: -amount, books.PROVIDER: amount}
    return None


def _payment_of(source: Any) -> str | None:
    ref = source.get("payment_intent") if isinstance(source, dict) else None
    return ref if isinstance(ref, str) else None


due = Due("book the provider's balance", book_balance, every_s=30.0)
