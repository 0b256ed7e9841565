"""What the provider shows of charges, events and customers."""

from typing import Any

from stripe.params import (
    ChargeListParams,
    ChargeRetrieveParams,
    CustomerCreateParams,
    CustomerListParams,
    CustomerRetrieveParams,
    EventListParams,
    EventRetrieveParams,
)

from kit import clock
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.models import SandboxCharge, SandboxCustomer, SandboxEvent
from services.billing.sandbox.objects import find, page
from services.billing.sandbox.shapes import Json, charge_json, customer_json, event_json
from services.billing.sandbox.wire import new_key


async def retrieve_charge(call: Call) -> Json:
    """One attempt at a payment."""
    return charge_json(await find(call.session, "ch", call.key))


async def list_charges(call: Call) -> Json:
    """Attempts, newest first."""
    row: Any = SandboxCharge
    conditions = []
    if "payment_intent" in call.values:
        conditions.append(row.intent_id == call.values["payment_intent"])
    if "customer" in call.values:
        conditions.append(row.customer_id == call.values["customer"])
    return await page(call.session, "ch", call.path, call.values, *conditions)


async def retrieve_event(call: Call) -> Json:
    """One event."""
    return event_json(await find(call.session, "evt", call.key))


async def list_events(call: Call) -> Json:
    """Events, newest first."""
    row: Any = SandboxEvent
    conditions = []
    if "type" in call.values:
        conditions.append(row.type == call.values["type"])
    if "types" in call.values:
        conditions.append(row.type.in_(call.values["types"]))
    return await page(call.session, "evt", call.path, call.values, *conditions)


async def create_customer(call: Call) -> Json:
    """Remember somebody who pays."""
    known = {name: call.values.get(name) for name in ("email", "name", "phone", "description")}
    row = SandboxCustomer(id=new_key("cus"), labels=call.values.get("metadata") or {}, created_at=clock.now(), **known)
    call.session.add(row)
    await call.session.flush()
    return customer_json(row)


async def retrieve_customer(call: Call) -> Json:
    """One customer."""
    return customer_json(await find(call.session, "cus", call.key, "customer"))


async def list_customers(call: Call) -> Json:
    """Customers, newest first."""
    row: Any = SandboxCustomer
    conditions = [row.email == call.values["email"]] if "email" in call.values else []
    return await page(call.session, "cus", call.path, call.values, *conditions)


_PAGE = "limit starting_after ending_before created created.*"
_CUSTOMER = "email name phone description metadata"

OPERATIONS = [
    operation("GET", "/v1/charges", ChargeListParams, f"{_PAGE} payment_intent customer", list_charges),
    operation("GET", "/v1/charges/{key}", ChargeRetrieveParams, "", retrieve_charge),
    operation("GET", "/v1/events", EventListParams, f"{_PAGE} type types", list_events),
    operation("GET", "/v1/events/{key}", EventRetrieveParams, "", retrieve_event),
    operation("POST", "/v1/customers", CustomerCreateParams, _CUSTOMER, create_customer),
    operation("GET", "/v1/customers", CustomerListParams, f"{_PAGE} email", list_customers),
    operation("GET", "/v1/customers/{key}", CustomerRetrieveParams, "", retrieve_customer),
]
