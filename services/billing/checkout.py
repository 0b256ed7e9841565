"""Checkout: the order's session at the provider is opened, watched and closed, whatever breaks in between."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import case, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.errors import Unprocessable
from services.billing import payments
from services.billing.models import Order
from services.billing.payments import Arrival
from services.billing.provider import (
    PaymentProviderUnavailable,
    Provider,
    ProviderRefusal,
    ProviderSession,
    provider_of,
)

log = structlog.get_logger(__name__)

CHECK_EVERY = timedelta(seconds=60)
RETRY_AFTER = timedelta(seconds=20)
CHECK_LATE_EVERY = timedelta(minutes=15)
LATE_MONEY = timedelta(days=3)
BATCH = 40
AT_ONCE = 8

_opening: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()


class PaymentMethodRefused(Unprocessable):
    """The payment provider does not take this payment; choose another payment method."""

    zh = "支付渠道无法受理这笔付款，请换一种支付方式。"


async def ensure_session(session: AsyncSession, provider: Provider, order: Order) -> None:
    """Give a committed open order its checkout session.

    Commits what the session holds, so that the order is there whatever happens at the provider, and no connection is
    kept while it is asked. PaymentProviderUnavailable leaves the order open; a repetition gets the same session.
    """
    await session.commit()
    # One call an order in this process; other processes are held apart by the provider's idempotency key.
    lock = _opening.setdefault(order.id, asyncio.Lock())
    async with lock:
        await session.refresh(order)
        await session.commit()
        if order.session_id is not None or order.status != "pending":
            return
        try:
            opened = await provider.open_session(order)
        except ProviderRefusal as refusal:
            log.exception("checkout refused", order=order.number, refusal=refusal.code)
            await payments.close(session, order.id, "canceled")
            await session.commit()
            raise PaymentMethodRefused from refusal
        await _keep_session(session, order, opened)


async def _keep_session(session: AsyncSession, order: Order, opened: ProviderSession) -> None:
    await session.execute(
        update(Order)
        .where(col(Order.id) == order.id, col(Order.session_id).is_(None))
        .values(
            session_id=opened.id,
            session_url=opened.url,
            session_open=col(Order.status).in_(["pending", "canceled", "expired"]),
            # An order that was closed during the call has a session now that must be closed after it.
            next_check_at=case((col(Order.status) == "pending", next_check(order.expires_at)), else_=clock.now()),
        )
    )
    await session.commit()
    await session.refresh(order)
    await session.commit()


def next_check(expires_at: datetime) -> datetime:
    """When to ask the provider about an open order again: every minute, and when it expires."""
    now = clock.now()
    return min(now + CHECK_EVERY, expires_at) if expires_at > now else now + RETRY_AFTER


async def take_in(session: AsyncSession, provider: Provider, order_id: UUID, found: ProviderSession) -> None:
    """Settle what a session tells: paid, or over without payment; the caller commits."""
    if found.paid:
        ref = found.payment or found.id
        if await payments.known(session, ref):
            await session.commit()
            return
        await session.commit()
        fingerprint = await provider.fingerprint(ref)
        await payments.settle(session, order_id, Arrival(ref, found.amount, found.currency, fingerprint))
    elif found.status == "expired":
        await payments.close(session, order_id, "expired")
        await session.execute(
            update(Order).where(col(Order.id) == order_id).values(session_open=False, next_check_at=None)
        )


async def check_now(session: AsyncSession, provider: Provider, order: Order) -> None:
    """Ask the provider how an open order stands, and take in the answer; PaymentProviderUnavailable changes nothing."""
    if order.session_id is None:
        return
    await session.commit()
    await take_in(session, provider, order.id, await provider.session(order.session_id))
    await session.commit()
    await session.refresh(order)


async def end_session(session: AsyncSession, provider: Provider, order: Order) -> None:
    """Close an order's session so that it cannot be paid any more; if it was paid first, the payment is taken in."""
    if order.session_id is None:
        return
    await session.commit()
    found = await provider.close_session(order.session_id)
    if found.paid:
        await take_in(session, provider, order.id, found)
    # A completed session without its money may still bring it, hours later with some wallets; it is looked at again.
    await session.execute(
        update(Order)
        .where(col(Order.id) == order.id, col(Order.session_id) == found.id)
        .values(session_open=found.status == "complete" and not found.paid)
    )
    await session.commit()
    await session.refresh(order)


async def chase(rt: Runtime) -> int:
    """Look after orders whose moment has come.

    An open one is asked about (its webhook may be lost) or expires; of a closed one the session is ended.
    """
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        due = (
            select(col(Order.id))
            .where(col(Order.next_check_at) <= now)
            .order_by(col(Order.next_check_at))
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        # The claim is a lease: if this process dies or the provider is away, the order comes up again.
        claimed = (
            await session.scalars(
                update(Order)
                .where(col(Order.id).in_(due))
                .values(next_check_at=now + RETRY_AFTER)
                .returning(col(Order.id))
            )
        ).all()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(order_id: UUID) -> None:
        async with gate:
            try:
                await _look_after(rt, order_id)
            except PaymentProviderUnavailable:
                log.warning("order waits for the provider", order_id=str(order_id))

    await asyncio.gather(*(one(order_id) for order_id in claimed))
    return len(claimed)


async def _look_after(rt: Runtime, order_id: UUID) -> None:
    provider = provider_of(rt)
    async with rt.db.session() as session:
        order = await session.get_one(Order, order_id)
        if order.status == "pending" and order.expires_at > clock.now():
            await check_now(session, provider, order)
        elif order.status in ("pending", "canceled", "expired"):
            await end_session(session, provider, order)
            if order.status == "pending":
                await payments.close(session, order_id, "expired")
        await _schedule(session, order_id)
        await session.commit()


async def _schedule(session: AsyncSession, order_id: UUID) -> None:
    order = await payments.lock_order(session, order_id)
    if order is None:
        return
    if order.status == "pending":
        order.next_check_at = next_check(order.expires_at)
    elif order.session_open and order.closed_at is not None and order.closed_at > clock.now() - LATE_MONEY:
        order.next_check_at = clock.now() + CHECK_LATE_EVERY
    else:
        order.next_check_at = None


due = Due("check open orders", chase)
