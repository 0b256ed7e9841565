"""Comparing a business day: provider, orders and ledger side by side, and each difference with what repairs it."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import Runtime
from services.billing.comparing_disputes import dispute_findings
from services.billing.findings import Finding
from services.billing.periods import Period
from services.billing.provider import Provider, provider_of
from services.billing.provider_lists import ListedDispute, ListedPayment, ListedRefund, payment_at, refund_at
from services.billing.reconciliation_models import Kind, Repair

FINAL: Final = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}
"""How a refund that came to an end at the provider stands with us."""

_PAYMENTS: Final = text("""
SELECT p.id, p.order_id, p.provider_ref, p.amount, p.currency, p.status, o.total, o.currency AS order_currency,
       o.status AS order_status, e.id AS entry_id,
       (SELECT coalesce(sum(debit - credit), 0)::bigint FROM ledger_line l WHERE l.entry_id = e.id
        AND l.account = 'provider_receivable' AND l.currency = p.currency) AS booked,
       EXISTS (SELECT FROM refund r WHERE r.payment_id = p.id AND r.status <> 'failed') AS goes_back
FROM payment p JOIN "order" o ON o.id = p.order_id
LEFT JOIN ledger_entry e ON e.source_id = p.id AND e.kind IN ('payment', 'payment_parked', 'payment_surplus')
WHERE (p.received_at >= :since AND p.received_at < :until) OR p.provider_ref = ANY(:refs)
ORDER BY p.received_at, p.id
""")
_REFUNDS: Final = text("""
SELECT r.id, r.order_id, r.provider_ref, r.amount, r.currency, r.status, e.id AS entry_id,
       (SELECT coalesce(sum(credit - debit), 0)::bigint FROM ledger_line l WHERE l.entry_id = e.id
        AND l.account = 'provider_receivable' AND l.currency = r.currency) AS booked
FROM refund r LEFT JOIN ledger_entry e ON e.source_id = r.id AND e.kind IN ('refund', 'refund_surplus')
WHERE (r.created_at >= :since AND r.created_at < :until) OR r.provider_ref = ANY(:refs) OR r.id = ANY(:ids)
ORDER BY r.created_at, r.id
""")
_NAMED: Final = text("""
SELECT o.id, o.status, o.paid_at IS NOT NULL AND o.total > 0 AND p.id IS NULL AS paid_by_nothing
FROM "order" o LEFT JOIN payment p ON p.order_id = o.id AND p.status = 'applied' WHERE o.id = ANY(:ids)
""")
_OWNED: Final = text("""
SELECT p.provider_ref, p.order_id, p.id, p.status, p.amount, o.total - o.refunded_amount - coalesce(sum(r.amount), 0) AS left
FROM payment p JOIN "order" o ON o.id = p.order_id
LEFT JOIN refund r ON r.order_id = o.id AND r.status = 'pending' AND r.cause <> 'surplus'
WHERE p.provider_ref = ANY(:refs) GROUP BY p.id, o.id
""")
_ORDERS: Final = text("""
SELECT o.id, o.currency, o.total, o.refunded_amount, paid.amount AS paid, back.amount AS back
FROM "order" o
CROSS JOIN LATERAL (SELECT coalesce(sum(p.amount), 0)::bigint AS amount FROM payment p
                    WHERE p.order_id = o.id AND p.status = 'applied') paid
CROSS JOIN LATERAL (SELECT coalesce(sum(r.amount), 0)::bigint AS amount FROM refund r
                    WHERE r.order_id = o.id AND r.status = 'succeeded' AND r.cause <> 'surplus') back
WHERE o.paid_at >= :since AND o.paid_at < :until AND (paid.amount <> o.total OR back.amount <> o.refunded_amount)
ORDER BY o.paid_at, o.id
""")
_HELD: Final = text("""
SELECT id, coalesce(renewal_order_id, order_id) AS order_id, held_reason FROM subscription
WHERE held_at >= :since AND held_at < :until ORDER BY held_at, id
""")
_DEFERRED: Final = text("""
SELECT currency, sum(scheduled)::bigint AS scheduled, sum(booked)::bigint AS booked
FROM (
    SELECT currency, amount - earned AS scheduled, 0 AS booked FROM revenue_schedule WHERE amount > earned
    UNION ALL SELECT currency, 0, credit - debit FROM ledger_line WHERE account = 'deferred_revenue'
) sides GROUP BY currency HAVING sum(scheduled) <> sum(booked) ORDER BY currency
""")


async def compare(
    rt: Runtime,
    day: date,
    payments: Sequence[ListedPayment],
    refunds: Sequence[ListedRefund],
    disputes: Sequence[ListedDispute],
) -> list[Finding]:
    """What differs on a day of which the provider has told this; changes nothing.

    PaymentProviderUnavailable when what it did not list cannot be asked for.
    """
    bounds = {"since": Period(day, day).starts_at, "until": Period(day, day).ends_at}
    # The provider was asked first, so that what it told meanwhile is here by now; no connection is held to ask again.
    async with rt.db.session() as session:
        paid = await _rows(session, _PAYMENTS, bounds, refs=[payment.ref for payment in payments])
        named_ids = [refund.refund_id for refund in refunds if refund.refund_id]
        back = await _rows(session, _REFUNDS, bounds, refs=[refund.ref for refund in refunds], ids=named_ids)
    listed = {payment.ref: payment for payment in payments}
    returned = {refund.ref: refund for refund in refunds}
    await _ask_for_the_rest(provider_of(rt), paid, listed, back, returned)
    async with rt.db.session() as session:
        return [
            *await _unknown_payments(session, payments, {row.provider_ref for row in paid}),
            *(finding for row in paid for finding in _payment_findings(row, listed.get(row.provider_ref))),
            *await _unknown_refunds(session, refunds, back),
            *(finding for row in back for finding in _refund_findings(row, _match(row, returned))),
            *await dispute_findings(session, disputes),
            *[
                Finding(
                    kind="order_differs",
                    repair="person",
                    order_id=row.id,
                    expected=row.paid - row.back,
                    found=row.total - row.refunded_amount,
                    currency=row.currency,
                )
                for row in await _rows(session, _ORDERS, bounds)
            ],
            *[
                Finding(
                    kind="double_renewal",
                    repair="person",
                    order_id=row.order_id,
                    source_id=row.id,
                    found=row.held_reason,
                )
                for row in await _rows(session, _HELD, bounds)
            ],
            *[
                Finding(
                    kind="deferred_differs",
                    repair="person",
                    expected=row.scheduled,
                    found=row.booked,
                    currency=row.currency,
                )
                for row in await _rows(session, _DEFERRED, {})
            ],
        ]


async def _rows(session: AsyncSession, statement: Any, bounds: dict[str, Any], **values: Any) -> Sequence[Row[Any]]:
    return (await session.execute(statement, bounds | values)).all()


async def _ask_for_the_rest(
    provider: Provider,
    paid: Iterable[Row[Any]],
    listed: dict[str, ListedPayment],
    back: Iterable[Row[Any]],
    returned: dict[str, ListedRefund],
) -> None:
    """Ask one by one for what came on this day and began on another."""
    for row in paid:
        if row.provider_ref not in listed and (payment := await payment_at(provider, row.provider_ref)):
            listed[payment.ref] = payment
    for row in back:
        if row.provider_ref and row.provider_ref not in returned:
            refund = await refund_at(provider, row.provider_ref)
            if refund:
                returned[refund.ref] = refund


async def _unknown_payments(session: AsyncSession, payments: Iterable[ListedPayment], known: set[str]) -> list[Finding]:
    unknown = [payment for payment in payments if payment.ref not in known and payment.order_id]
    ids = [payment.order_id for payment in unknown]
    orders = {row.id: row for row in (await session.execute(_NAMED, {"ids": ids})).all()} if ids else {}
    return [
        Finding(
            kind="missing_payment",
            # An order that was paid by nothing we know of would take this for a second payment, and send it back.
            repair="settle" if order is not None and not order.paid_by_nothing else "person",
            order_id=order.id if order is not None else None,
            provider_ref=payment.ref,
            expected=payment.amount,
            currency=payment.currency,
        )
        for payment in unknown
        for order in [orders.get(payment.order_id)]
    ]


def _payment_findings(row: Row[Any], listed: ListedPayment | None) -> Iterable[Finding]:
    about = {
        "order_id": row.order_id,
        "source_id": row.id,
        "provider_ref": row.provider_ref,
        "currency": row.currency,
    }
    if listed is None:
        yield Finding(kind="missing_at_provider", repair="person", expected=None, found=row.amount, **about)
    elif (listed.amount, listed.currency) != (row.amount, row.currency):
        yield Finding(kind="amount_mismatch", repair="person", expected=listed.amount, found=row.amount, **about)
    if row.status == "parked" and not row.goes_back:
        wrong = (row.amount, row.currency) != (row.total, row.order_currency)
        kind: Kind = "amount_mismatch" if wrong else "parked"
        yield Finding(kind=kind, repair="person", expected=row.total, found=row.amount, **about)
    elif row.status == "surplus" and row.amount and not row.goes_back:
        yield Finding(kind="surplus_kept", repair="person", expected=0, found=row.amount, **about)
    elif row.status == "applied" and row.order_status in ("pending", "canceled", "expired"):
        yield Finding(kind="order_differs", repair="person", expected="paid", found=row.order_status, **about)
    yield from _ledger_findings(row, about)


def _ledger_findings(row: Row[Any], about: dict[str, Any]) -> Iterable[Finding]:
    if row.amount and row.entry_id is None:
        yield Finding(kind="ledger_missing", repair="post", expected=row.amount, found=None, **about)
    elif row.amount and row.booked != row.amount:
        yield Finding(kind="ledger_differs", repair="person", expected=row.amount, found=row.booked, **about)


def _match(row: Row[Any], returned: dict[str, ListedRefund]) -> ListedRefund | None:
    if row.provider_ref:
        return returned.get(row.provider_ref)
    return next((refund for refund in returned.values() if refund.refund_id == row.id), None)


async def _unknown_refunds(
    session: AsyncSession, refunds: Iterable[ListedRefund], back: Iterable[Row[Any]]
) -> list[Finding]:
    refs, ids = {row.provider_ref for row in back}, {row.id for row in back}
    unknown = [
        refund
        for refund in refunds
        if refund.ref not in refs and refund.refund_id not in ids and FINAL.get(refund.status) != "failed"
    ]
    payment_refs = [refund.payment_ref for refund in unknown if refund.payment_ref]
    owned = {row.provider_ref: row for row in (await session.execute(_OWNED, {"refs": payment_refs})).all()}
    findings = []
    for refund in unknown:
        payment = owned.get(refund.payment_ref)
        # What was refunded of other payments of the same account at the provider is none of this house's business.
        if payment is None:
            continue
        # Of a payment that waits for a person all of it may go back, of one that paid an order what is left.
        fits = refund.amount <= payment.left if payment.status == "applied" else refund.amount == payment.amount
        recordable = fits and payment.status != "surplus" and refund.status == "succeeded"
        findings.append(
            Finding(
                kind="missing_refund",
                repair="record" if recordable else "person",
                order_id=payment.order_id,
                source_id=payment.id,
                provider_ref=refund.ref,
                expected=refund.amount,
                currency=refund.currency,
            )
        )
    return findings


def _refund_findings(row: Row[Any], listed: ListedRefund | None) -> Iterable[Finding]:
    about = {
        "order_id": row.order_id,
        "source_id": row.id,
        "provider_ref": row.provider_ref or (listed.ref if listed else None),
        "currency": row.currency,
    }
    if listed is None:
        if row.provider_ref or row.status == "succeeded":
            yield Finding(kind="missing_at_provider", repair="person", expected=None, found=row.amount, **about)
    elif (listed.amount, listed.currency) != (row.amount, row.currency):
        yield Finding(kind="amount_mismatch", repair="person", expected=listed.amount, found=row.amount, **about)
    elif FINAL.get(listed.status, "pending") != row.status:
        repair: Repair = "follow" if row.status == "pending" else "person"
        yield Finding(kind="refund_state_differs", repair=repair, expected=listed.status, found=row.status, **about)
    if row.status == "succeeded":
        yield from _ledger_findings(row, about)
