"""Checkout: the order's session at the provider is opened, watched and closed, whatever breaks in between."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.errors import Unprocessable
from services.billing import payments
from services.billing.chasing import next_chase
from services.billing.models import Order
from services.billing.payments import Arrival
from services.billing.provider import (
    SESSION_LIFE,
    PaymentProviderUnavailable,
    Provider,
    ProviderRefusal,
    ProviderSession,
    provider_of,
)

log = structlog.get_logger(__name__)

CHECK_EVERY = timedelta(seconds=60)
LEASE = timedelta(seconds=20)
CHECK_LATE_EVERY = timedelta(minutes=15)
OFTEN_LATE = timedelta(days=3)
LATE_MONEY = timedelta(days=30)
"""How long a wallet's payment that was begun in time may take to arrive after all."""
BATCH = 40
AT_ONCE = 8

_opening: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()


class PaymentMethodRefused(Unprocessable):
    """The payment provider does not take this payment; choose another payment method."""

    zh = "支付渠道无法受理这笔付款，请换一种支付方式。"
    loc = ("body", "payment_method")


async def ensure_session(session: AsyncSession, provider: Provider, order: Order) -> None:
    """Give an open order its checkout session; what the caller's transaction did is committed first.

    So the order is there whatever happens at the provider, with the note that a session may be, and no connection is
    kept while it is asked. PaymentProviderUnavailable leaves the order open; a repetition gets the same session.
    """
    # One call an order in this process; other processes are held apart by the provider's idempotency key.
    lock = _opening.setdefault(order.id, asyncio.Lock())
    if lock.locked():
        await session.commit()
    async with lock:
        wanted = (col(Order.session_id).is_(None), col(Order.status) == "pending")
        asked = await _change(session, order, *wanted, session_open=True, next_check_at=_next_find(order))
        if not asked:
            return
        try:
            opened = await provider.open_session(order)
        except ProviderRefusal as refusal:
            log.exception("checkout refused", order=order.number, refusal=refusal.code)
            await _change(session, order, session_open=False)
            await payments.close(session, order.id, "canceled")
            await session.commit()
            raise PaymentMethodRefused from refusal
        await _keep_session(session, order, opened)


async def _change(session: AsyncSession, order: Order, *conditions: ColumnElement[bool], **values: Any) -> bool:
    """Change an order if the conditions hold, and commit; the order is then as the database has it. Whether it changed."""
    change = update(Order).where(col(Order.id) == order.id, *conditions).values(**values).returning(Order)
    changed = await session.scalar(change, execution_options={"populate_existing": True})
    await session.commit()
    if changed is None:
        await session.refresh(order)
        await session.commit()
    return changed is not None


async def _keep_session(session: AsyncSession, order: Order, opened: ProviderSession) -> None:
    await _change(
        session,
        order,
        col(Order.session_id).is_(None),
        session_id=opened.id,
        session_url=opened.url,
        session_open=col(Order.status).in_(["pending", "canceled", "expired"]),
        # An order that was closed during the call has a session now that must be closed after it.
        next_check_at=case((col(Order.status) == "pending", next_check(order.expires_at)), else_=clock.now()),
    )


async def _find_session(session: AsyncSession, provider: Provider, order: Order) -> None:
    """Learn which session a call had made whose answer was lost: asked with the same key, it is the same one."""
    if order.created_at + SESSION_LIFE <= clock.now():
        # Nobody had its address, and it is over by itself now.
        await _change(session, order, session_open=False)
        return
    await session.commit()
    try:
        await _keep_session(session, order, await provider.open_session(order))
    except ProviderRefusal:
        await _change(session, order, session_open=False)


def _next_find(order: Order) -> datetime:
    return min(next_chase(order.created_at, clock.now()), max(order.expires_at, clock.now()))


def next_check(expires_at: datetime) -> datetime:
    """When to ask the provider about an open order again: every minute, and when it expires."""
    now = clock.now()
    return min(now + CHECK_EVERY, expires_at) if expires_at > now else now + LEASE


async def take_in(session: AsyncSession, provider: Provider, order_id: UUID, found: ProviderSession) -> None:
    """Settle what a session tells: paid, or over without payment; the caller commits."""
    if found.paid:
        ref = found.payment or found.id
        if await payments.known(session, ref):
            await session.commit()
            return
        await session.commit()
        means = await provider.means(ref)
        await payments.settle(session, order_id, Arrival(ref, found.amount, found.currency, means))
    elif found.status == "expired":
        await payments.close(session, order_id)
        await session.execute(
            update(Order).where(col(Order.id) == order_id).values(session_open=False, next_check_at=None)
        )


async def check_now(session: AsyncSession, provider: Provider, order: Order) -> None:
    """Ask the provider how an unpaid order stands, and take in the answer; PaymentProviderUnavailable changes nothing."""
    if order.renews_from is not None:
        # A renewal is paid by the card that is kept, or on a page that its subscription watches.
        return
    if order.session_id is None:
        with suppress(PaymentMethodRefused):
            await ensure_session(session, provider, order)
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
    room = provider_of(rt).room(BATCH)
    waiting = select(col(Order.id)).where(col(Order.next_check_at) <= now)
    if not room:
        # What nobody could pay expires all the same; the others wait until the provider is back.
        unpayable = (col(Order.session_id).is_(None), col(Order.expires_at) <= now, col(Order.status) == "pending")
        waiting = waiting.where(*unpayable)
    async with rt.db.session() as session, session.begin():
        due = waiting.order_by(col(Order.next_check_at)).limit(room or BATCH).with_for_update(skip_locked=True)
        # The claim is a lease: if this process dies or the provider is away, the order comes up again.
        claimed = (
            await session.scalars(
                update(Order).where(col(Order.id).in_(due)).values(next_check_at=now + LEASE).returning(col(Order.id))
            )
        ).all()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(order_id: UUID) -> None:
        async with gate:
            try:
                await _look_after(rt, order_id)
            except PaymentProviderUnavailable:
                log.warning("order waits for the provider", order_id=str(order_id))
                await _put_off(rt, order_id)

    await asyncio.gather(*(one(order_id) for order_id in claimed))
    return len(claimed)


async def _put_off(rt: Runtime, order_id: UUID) -> None:
    if not provider_of(rt).room(1):
        # The provider is away for everybody: the lease is long enough, and the circuit keeps it from being asked.
        return
    async with rt.db.session() as session:
        order = await payments.lock_order(session, order_id)
        if order is not None and order.next_check_at is not None and order.expires_at <= clock.now():
            order.next_check_at = next_chase(order.closed_at or order.expires_at, clock.now())
        await session.commit()


async def _look_after(rt: Runtime, order_id: UUID) -> None:
    provider = provider_of(rt)
    async with rt.db.session() as session:
        order = await session.get_one(Order, order_id)
        if order.status == "pending" and order.expires_at > clock.now():
            await check_now(session, provider, order)
        elif order.status in ("pending", "canceled", "expired"):
            if order.session_id is None and order.status == "pending":
                # Without an address nobody can pay it.
                await payments.close(session, order_id, "expired")
                await session.commit()
                await session.refresh(order)
            if order.session_id is None and order.session_open:
                await _find_session(session, provider, order)
            await end_session(session, provider, order)
            if order.status == "pending":
                await payments.close(session, order_id, "expired")
        await _schedule(session, order_id)
        await session.commit()


async def _schedule(session: AsyncSession, order_id: UUID) -> None:
    order = await payments.lock_order(session, order_id)
    if order is None:
        return
    now = clock.now()
    if order.status == "pending":
        order.next_check_at = next_check(order.expires_at)
    elif order.session_open and order.closed_at is not None and order.closed_at > now - LATE_MONEY:
        often = order.closed_at > now - OFTEN_LATE
        order.next_check_at = now + CHECK_LATE_EVERY if often else next_chase(order.closed_at, now)
    else:
        order.next_check_at = None


async def next_expiry(rt: Runtime) -> datetime | None:
    """When the next open order expires."""
    now = clock.now()
    # Open orders are among those to be checked, which an index knows.
    waiting = col(Order.next_check_at).is_not(None), col(Order.status) == "pending", col(Order.expires_at) > now
    async with rt.db.session() as session:
        return await session.scalar(select(func.min(col(Order.expires_at))).where(*waiting))


due = Due("check open orders", chase, next_at=next_expiry, waits='SELECT FROM "order" WHERE next_check_at <= $1')
