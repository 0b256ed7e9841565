"""A dispute as the provider has it now, asked for whenever an event speaks of it, because events come in any order."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from services.billing.provider import Provider

Standing = Literal["inquiry", "open", "won", "lost", "closed"]

ENDS: dict[str, Standing] = {"won": "won", "lost": "lost", "warning_closed": "closed", "prevented": "closed"}


@dataclass(frozen=True)
class FoundPayment:
    """The payment that is disputed: `order_id` as its metadata names it, `received` what it brought."""

    ref: str
    order_id: UUID | None
    received: int
    currency: str


@dataclass(frozen=True)
class FoundDispute:
    """A dispute at the provider; `withdrawn` once the bank took the money, `fee` what it costs the house."""

    ref: str
    payment: FoundPayment | None
    standing: Standing
    status: str
    reason: str
    amount: int
    currency: str
    withdrawn: bool
    fee: int
    fee_currency: str


async def ask(provider: Provider, ref: str) -> FoundDispute:
    """How a dispute stands; ProviderRefusal when the provider does not know it."""
    disputes = provider.client.v1.disputes
    answer = await provider.ask(disputes.retrieve_async(ref, {"expand": ["payment_intent", "charge.payment_intent"]}))
    found: dict[str, Any] = answer.to_dict()
    status = str(found["status"])
    moves = [move for move in found.get("balance_transactions") or [] if isinstance(move, dict)]
    charge = found.get("charge")
    intent = found.get("payment_intent") or (charge.get("payment_intent") if isinstance(charge, dict) else None)
    return FoundDispute(
        ref=str(found["id"]),
        payment=_payment(intent),
        standing=standing_of(status),
        status=status,
        reason=str(found.get("reason") or ""),
        amount=int(found["amount"]),
        currency=str(found["currency"]).upper(),
        withdrawn=any(move["amount"] < 0 for move in moves),
        fee=max(sum(move["fee"] for move in moves), 0),
        fee_currency=str(moves[0]["currency"] if moves else found["currency"]).upper(),
    )


def standing_of(status: str) -> Standing:
    """What a dispute's status at the provider means; `warning_` is how the provider calls an inquiry."""
    return ENDS.get(status) or ("inquiry" if status.startswith("warning_") else "open")


def _payment(intent: Any) -> FoundPayment | None:
    if not isinstance(intent, dict):
        return None
    named = (intent.get("metadata") or {}).get("order_id")
    try:
        order_id = UUID(named)
    except (ValueError, TypeError, AttributeError):
        order_id = None
    return FoundPayment(str(intent["id"]), order_id, int(intent["amount_received"]), str(intent["currency"]).upper())
