"""Money moves here: a session is paid once, fails, settles later, or expires; each with its events, in one transaction."""

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.errors import Conflict, NotFound
from services.billing.sandbox import methods, setups
from services.billing.sandbox.events import tell
from services.billing.sandbox.models import (
    SandboxCharge,
    SandboxCustomer,
    SandboxIntent,
    SandboxMethod,
    SandboxSession,
)
from services.billing.sandbox.payers import payer_id, payer_of
from services.billing.sandbox.shapes import DECLINES, Json, intent_json, session_json
from services.billing.sandbox.wire import new_key

if TYPE_CHECKING:
    from kit.app import Runtime

BATCH = 100


class SessionNotFound(NotFound):
    """There is no checkout session with this id."""

    zh = "没有这个收银会话。"


class SessionClosed(Conflict):
    """This checkout session is closed: it was paid, has expired or was ended. Place a new order to pay."""

    zh = "这个收银会话已经关闭：已支付、已过期或已结束。请重新下单再支付。"


async def pay(
    session: AsyncSession,
    key: str,
    *,
    duplicate: bool = False,
    fingerprint: str | None = None,
    settles_in: timedelta | None = None,
) -> SandboxSession:
    """Pay an open session, once.

    `duplicate` makes a second payment beside the first (also of a session that was paid already) and has every webhook
    delivered twice; with `settles_in` the session completes now and the money arrives that much later.
    """
    copies = 2 if duplicate else 1
    visit = await _close(session, key, settles_in)
    if visit is None:
        visit = await session.get(SandboxSession, key, with_for_update=True)
        if visit is None:
            raise SessionNotFound
        if not (duplicate and visit.payment_status == "paid"):
            raise SessionClosed
    elif visit.mode == "setup":
        await setups.complete(session, visit, fingerprint, copies)
        return visit
    else:
        if visit.customer_creation == "always" and visit.customer_id is None:
            visit.customer_id = await _new_customer(session, visit)
        intent = await _intent_of(session, visit)
        visit.intent_id = intent.id
        await _attempt(session, visit, intent, "pending" if settles_in else "succeeded", fingerprint)
        await session.flush()
        if not settles_in:
            await tell(session, "payment_intent.succeeded", visit.id, intent_json(intent), copies)
        await tell(session, "checkout.session.completed", visit.id, session_json(visit), copies)
    if duplicate and not settles_in:
        second = _new_intent(visit)
        session.add(second)
        await session.flush()
        await _attempt(session, visit, second, "succeeded", fingerprint)
        await session.flush()
        await tell(session, "payment_intent.succeeded", visit.id, intent_json(second), copies)
        shape = session_json(visit) | {"payment_intent": second.id}
        await tell(session, "checkout.session.completed", visit.id, shape, copies)
    return visit


async def _close(session: AsyncSession, key: str, settles_in: timedelta | None) -> SandboxSession | None:
    now = clock.now()
    result = await session.scalars(
        update(SandboxSession)
        .where(SandboxSession.id == key, SandboxSession.status == "open", SandboxSession.expires_at > now)  # type: ignore[arg-type]
        .values(
            status="complete",
            payment_status=case(
                (col(SandboxSession.mode) == "setup", "no_payment_required"), else_="unpaid" if settles_in else "paid"
            ),
            settles_at=case((col(SandboxSession.mode) == "payment", now + settles_in)) if settles_in else None,
        )
        .returning(SandboxSession)
        .execution_options(populate_existing=True)
    )
    return result.one_or_none()


async def fail(session: AsyncSession, key: str) -> SandboxSession:
    """The bank says no: an open session stays open for another try, one that was to settle later never will."""
    visit = await session.get(SandboxSession, key, with_for_update=True, populate_existing=True)
    if visit is None:
        raise SessionNotFound
    unsettled = visit.settles_at is not None
    if not unsettled and (visit.status != "open" or visit.expires_at <= clock.now()):
        raise SessionClosed
    if visit.mode == "setup":
        await setups.fail(session, visit)
        return visit
    intent = await _intent_of(session, visit)
    visit.intent_id = intent.id
    visit.settles_at = None
    await _attempt(session, visit, intent, "failed", None)
    await session.flush()
    await tell(session, "payment_intent.payment_failed", visit.id, intent_json(intent))
    if unsettled:
        await tell(session, "checkout.session.async_payment_failed", visit.id, session_json(visit))
    return visit


async def end(session: AsyncSession, visit: SandboxSession) -> None:
    """Write down that a session, locked by the caller, has expired; what was tried in it is canceled."""
    visit.status = "expired"
    if visit.intent_id is not None:
        intent = await session.get_one(SandboxIntent, visit.intent_id)
        intent.status, intent.canceled_at, intent.cancellation_reason = "canceled", clock.now(), "automatic"
        await session.flush()
        await tell(session, "payment_intent.canceled", visit.id, intent_json(intent))
    if visit.setup_id is not None:
        await setups.cancel(session, visit)
    await session.flush()
    await tell(session, "checkout.session.expired", visit.id, session_json(visit))


async def close_expired(rt: "Runtime") -> int:
    """Expire the open sessions whose time has come; how many."""
    async with rt.db.session() as session, session.begin():
        due = SandboxSession.status == "open", SandboxSession.expires_at <= clock.now()
        visits = await session.scalars(_claim(select(SandboxSession).where(*due).order_by(SandboxSession.id)))  # type: ignore[arg-type]
        rows = visits.all()
        for visit in rows:
            await end(session, visit)
    return len(rows)


async def settle_payments(rt: "Runtime") -> int:
    """Let the money of sessions paid "later" arrive; how many did."""
    async with rt.db.session() as session, session.begin():
        due = SandboxSession.settles_at <= clock.now()  # type: ignore[operator]
        visits = await session.scalars(_claim(select(SandboxSession).where(due).order_by(SandboxSession.id)))  # type: ignore[arg-type]
        rows = visits.all()
        for visit in rows:
            visit.payment_status, visit.settles_at = "paid", None
            intent = await session.get_one(SandboxIntent, visit.intent_id)
            charge = await session.get_one(SandboxCharge, intent.latest_charge_id)
            charge.status = "succeeded"
            intent.status, intent.amount_received = "succeeded", intent.amount
            await session.flush()
            await tell(session, "payment_intent.succeeded", visit.id, intent_json(intent))
            await tell(session, "checkout.session.async_payment_succeeded", visit.id, session_json(visit))
    return len(rows)


def _claim(query: Any) -> Any:
    return query.limit(BATCH).with_for_update(skip_locked=True)


def _new_intent(visit: SandboxSession) -> SandboxIntent:
    return SandboxIntent(
        id=new_key("pi"),
        session_id=visit.id,
        currency=visit.currency,
        amount=visit.amount_total,
        payment_method_types=visit.payment_method_types,
        customer_id=visit.customer_id,
        setup_future_usage=visit.payment_intent_data.get("setup_future_usage"),
        description=visit.payment_intent_data.get("description"),
        labels=visit.payment_intent_data.get("metadata", {}),
        created_at=clock.now(),
    )


async def _intent_of(session: AsyncSession, visit: SandboxSession) -> SandboxIntent:
    if visit.intent_id is not None:
        return await session.get_one(SandboxIntent, visit.intent_id)
    intent = _new_intent(visit)
    session.add(intent)
    await session.flush()
    return intent


async def _new_customer(session: AsyncSession, visit: SandboxSession) -> str:
    customer = SandboxCustomer(id=new_key("cus"), email=visit.customer_email, created_at=clock.now())
    session.add(customer)
    await session.flush()
    return customer.id


async def _attempt(
    session: AsyncSession, visit: SandboxSession, intent: SandboxIntent, status: str, fingerprint: str | None
) -> None:
    """Charge the payer: `succeeded`, `pending` or `failed`; the intent follows."""
    method = visit.payment_method_types[0]
    previous = await session.get(SandboxCharge, intent.latest_charge_id) if intent.latest_charge_id else None
    if previous is not None and previous.status == "pending":
        charge = previous
        charge.status = status
    else:
        intent.customer_id = visit.customer_id
        fingerprint = fingerprint or (await payer_of(session, payer_id(visit))).fingerprint
        kept_for = intent.customer_id if intent.setup_future_usage and status != "failed" else None
        means = await methods.make(session, method, fingerprint, kept_for)
        charge = charged(session, intent, means, status, receipt_url=visit.url)
    code = None
    if status == "failed":
        code = "card_declined" if method == "card" else "payment_declined"
    follow(intent, charge, code)


def charged(
    session: AsyncSession, intent: SandboxIntent, means: SandboxMethod, status: str, receipt_url: str | None = None
) -> SandboxCharge:
    """One more attempt at a payment."""
    now = clock.now()
    charge = SandboxCharge(
        id=new_key("ch"),
        intent_id=intent.id,
        status=status,
        currency=intent.currency,
        amount=intent.amount,
        method=means.kind,
        method_id=means.id,
        fingerprint=means.fingerprint,
        customer_id=intent.customer_id,
        description=intent.description,
        labels=intent.labels,
        receipt_number=f"{now:%Y%m%d}-{secrets.randbelow(10**8):08}",
        receipt_url=receipt_url,
        created_at=now,
    )
    session.add(charge)
    return charge


def follow(intent: SandboxIntent, charge: SandboxCharge, failure: str | None) -> None:
    """Let a payment stand as its latest attempt does; `failure` is the code of one that failed."""
    intent.latest_charge_id = charge.id
    if failure is not None:
        charge.failure_code = failure
        intent.status, intent.method_id, intent.last_payment_error = "requires_payment_method", None, _error(charge)
    else:
        intent.status = "succeeded" if charge.status == "succeeded" else "processing"
        intent.amount_received = intent.amount if charge.status == "succeeded" else 0
        intent.method_id, intent.last_payment_error = charge.method_id, None


def _error(charge: SandboxCharge) -> Json:
    code = charge.failure_code or ""
    decline = "generic_decline" if code == "card_declined" else code
    return {
        "type": "card_error" if charge.method == "card" else "invalid_request_error",
        "code": code,
        "decline_code": decline if charge.method == "card" else None,
        "message": DECLINES[code],
        "charge": charge.id,
        "payment_method_type": charge.method,
    }
