"""Refunds: money goes back to a charge, never more than it brought."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from stripe.params import RefundCreateParams, RefundListParams, RefundRetrieveParams

from kit import clock
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.disputes import open_or_lost
from services.billing.sandbox.events import tell
from services.billing.sandbox.models import SandboxCharge, SandboxIntent, SandboxRefund
from services.billing.sandbox.objects import find, page
from services.billing.sandbox.shapes import Json, charge_json, refund_json
from services.billing.sandbox.wire import Refusal, new_key

if TYPE_CHECKING:
    from kit.app import Runtime

REFUND_DAYS = {"alipay": 90, "wechat_pay": 180}
"""How long after the payment a wallet takes money back; a card always does."""
BATCH = 100


async def create(call: Call) -> Json:
    """Refund all that is left of a charge, or a part of it."""
    charge = await _charge(call)
    left = charge.amount - charge.amount_refunded
    if charge.status != "succeeded":
        raise Refusal(f"Charge {charge.id} has not succeeded and cannot be refunded.", "charge_not_refundable")
    if await open_or_lost(call.session, charge.id):
        raise Refusal(f"Charge {charge.id} has been charged back; cannot issue a refund.", "charge_disputed")
    if left == 0:
        raise Refusal(f"Charge {charge.id} has already been refunded.", "charge_already_refunded")
    amount = call.values.get("amount", left)
    if amount < 1:
        raise Refusal("Invalid positive integer", "parameter_invalid_integer", "amount")
    if amount > left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
        raise Refusal(message, "amount_too_large", "amount")
    days = REFUND_DAYS.get(charge.method)
    if days is not None and (clock.now() - charge.created_at).days >= days:
        raise Refusal(f"Payments by {charge.method} can be refunded for {days} days only.", "charge_not_refundable")
    charge.amount_refunded += amount
    intent = await call.session.get_one(SandboxIntent, charge.intent_id)
    refund = SandboxRefund(
        id=new_key("re"),
        charge_id=charge.id,
        intent_id=intent.id,
        # Cards answer at once; wallets say so later, as they do at Stripe.
        status="succeeded" if charge.method == "card" else "pending",
        currency=charge.currency,
        amount=amount,
        method=charge.method,
        reason=call.values.get("reason"),
        labels=call.values.get("metadata") or {},
        created_at=clock.now(),
    )
    call.session.add(refund)
    await call.session.flush()
    subject = intent.session_id or intent.id
    await tell(call.session, "refund.created", subject, refund_json(refund))
    await tell(call.session, "charge.refunded", subject, charge_json(charge))
    return refund_json(refund)


async def _charge(call: Call) -> SandboxCharge:
    """The charge meant, locked until the transaction ends: refunds of one charge come one after the other."""
    if ("charge" in call.values) == ("payment_intent" in call.values):
        raise Refusal("One of charge or payment_intent must be given.", "parameter_missing", "payment_intent")
    if "charge" in call.values:
        key = (await find(call.session, "ch", call.values["charge"], "charge")).id
    else:
        intent = await find(call.session, "pi", call.values["payment_intent"], "payment_intent")
        key = intent.latest_charge_id
        if key is None:
            message = f"This PaymentIntent ({intent.id}) does not have a successful charge to refund."
            raise Refusal(message, "payment_intent_unexpected_state", "payment_intent")
    return await call.session.get_one(SandboxCharge, key, with_for_update=True, populate_existing=True)


async def settle_refunds(rt: "Runtime") -> int:
    """Let the wallets' refunds succeed; how many did."""
    async with rt.db.session() as session, session.begin():
        rows = await session.scalars(
            select(SandboxRefund)
            .where(SandboxRefund.status == "pending")  # type: ignore[arg-type]
            .order_by(SandboxRefund.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        refunds = rows.all()
        for refund in refunds:
            refund.status = "succeeded"
            intent = await session.get_one(SandboxIntent, refund.intent_id)
            await session.flush()
            await tell(session, "refund.updated", intent.session_id or intent.id, refund_json(refund))
    return len(refunds)


async def retrieve(call: Call) -> Json:
    """One refund."""
    return refund_json(await find(call.session, "re", call.key, "refund"))


async def list_all(call: Call) -> Json:
    """Refunds, newest first."""
    row: Any = SandboxRefund
    conditions = []
    if "charge" in call.values:
        conditions.append(row.charge_id == call.values["charge"])
    if "payment_intent" in call.values:
        conditions.append(row.intent_id == call.values["payment_intent"])
    return await page(call.session, "re", call.path, call.values, *conditions)


_PAGE = "limit starting_after ending_before created created.*"

OPERATIONS = [
    operation("POST", "/v1/refunds", RefundCreateParams, "amount charge payment_intent reason metadata", create),
    operation("GET", "/v1/refunds", RefundListParams, f"{_PAGE} charge payment_intent", list_all),
    operation("GET", "/v1/refunds/{key}", RefundRetrieveParams, "", retrieve),
]
