"""Stripe's Dispute as JSON, with what it has moved of the balance."""

from datetime import datetime, timedelta

import stripe

from services.billing.sandbox.models import SandboxDispute
from services.billing.sandbox.shapes import Json, nulls
from services.billing.sandbox.wire import epoch

EVIDENCE_TIME = timedelta(days=9)


def dispute_json(row: SandboxDispute) -> Json:
    """A Dispute with what it has moved of the balance; a dispute that is won does not bring its fee back."""
    moves = [_move(row, row.created_at, -row.amount, row.fee)]
    if row.status == "won" and row.closed_at is not None:
        moves.append(_move(row, row.closed_at, row.amount, 0))
    return nulls(stripe.Dispute) | {
        "id": row.id,
        "object": "dispute",
        "amount": row.amount,
        "balance_transactions": moves,
        "charge": row.charge_id,
        "created": epoch(row.created_at),
        "currency": row.currency,
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {
            "due_by": epoch(row.created_at + EVIDENCE_TIME),
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": row.status == "won",
        "livemode": False,
        "metadata": {},
        "payment_intent": row.intent_id,
        "reason": "general",
        "status": row.status,
    }


def _move(row: SandboxDispute, at: datetime, amount: int, fee: int) -> Json:
    return {
        "id": f"txn_{row.id.removeprefix('du_')}{'r' if amount > 0 else ''}",
        "object": "balance_transaction",
        "amount": amount,
        "available_on": epoch(at),
        "balance_type": "payments",
        "created": epoch(at),
        "currency": row.currency,
        "description": "Chargeback reversal" if amount > 0 else "Chargeback withdrawal",
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [
            {
                "amount": fee,
                "application": None,
                "currency": row.currency,
                "description": "Dispute fee",
                "type": "stripe_fee",
            }
        ]
        if fee
        else [],
        "net": amount - fee,
        "reporting_category": "dispute_reversal" if amount > 0 else "dispute",
        "source": row.id,
        "status": "available",
        "type": "adjustment",
    }
