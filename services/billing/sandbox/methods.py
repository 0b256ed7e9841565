"""Means of payment: what somebody paid with, and the cards kept for their customers."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from stripe.params import (
    CustomerPaymentMethodListParams,
    PaymentMethodDetachParams,
    PaymentMethodListParams,
    PaymentMethodRetrieveParams,
)

from kit import clock
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.models import SandboxMethod
from services.billing.sandbox.objects import find, page
from services.billing.sandbox.shapes import Json, method_json
from services.billing.sandbox.wire import Refusal, new_key


async def make(session: AsyncSession, kind: str, fingerprint: str, customer_id: str | None) -> SandboxMethod:
    """A means of payment, in the caller's transaction; with a customer it is kept for them."""
    row = SandboxMethod(
        id=new_key("pm"), kind=kind, fingerprint=fingerprint, customer_id=customer_id, created_at=clock.now()
    )
    session.add(row)
    await session.flush()
    return row


async def retrieve(call: Call) -> Json:
    """One means of payment."""
    return method_json(await find(call.session, "pm", call.key))


async def list_all(call: Call) -> Json:
    """The means of payment kept for a customer, newest first."""
    return await _kept(call, call.values.get("customer"))


async def list_of_customer(call: Call) -> Json:
    """The same, by the customer's own path."""
    await find(call.session, "cus", call.key, "customer")
    return await _kept(call, call.key)


async def _kept(call: Call, customer_id: str | None) -> Json:
    row: Any = SandboxMethod
    conditions = [row.customer_id.is_not(None) if customer_id is None else row.customer_id == customer_id]
    if "type" in call.values:
        conditions.append(row.kind == call.values["type"])
    return await page(call.session, "pm", call.path, call.values, *conditions)


async def detach(call: Call) -> Json:
    """Keep a card no longer: it cannot be charged again."""
    method = await find(call.session, "pm", call.key)
    await call.session.refresh(method, with_for_update=True)
    if method.customer_id is None:
        message = "The payment method you provided is not attached to a customer so detachment is impossible."
        raise Refusal(message, None, "payment_method")
    method.customer_id = None
    await call.session.flush()
    return method_json(method)


_PAGE = "limit starting_after ending_before type"

OPERATIONS = [
    operation("GET", "/v1/payment_methods", PaymentMethodListParams, f"{_PAGE} customer", list_all),
    operation("GET", "/v1/payment_methods/{key}", PaymentMethodRetrieveParams, "", retrieve),
    operation("POST", "/v1/payment_methods/{key}/detach", PaymentMethodDetachParams, "", detach),
    operation("GET", "/v1/customers/{key}/payment_methods", CustomerPaymentMethodListParams, _PAGE, list_of_customer),
]
