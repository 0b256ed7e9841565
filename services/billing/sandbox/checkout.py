"""Checkout sessions, as the provider's API makes, shows and ends them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from stripe.params.checkout import (
    SessionCreateParams,
    SessionExpireParams,
    SessionListLineItemsParams,
    SessionListParams,
    SessionRetrieveParams,
)

from kit import clock
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.models import SandboxSession
from services.billing.sandbox.objects import find, page
from services.billing.sandbox.payments import end
from services.billing.sandbox.setups import begin
from services.billing.sandbox.shapes import Json, line_items_json, session_json
from services.billing.sandbox.wire import Refusal, epoch, new_key

METHODS = ("card", "alipay", "wechat_pay")
MIN_LIFE = timedelta(minutes=30)
MAX_LIFE = timedelta(hours=24)
MAX_AMOUNT = 99_999_999
MAX_REFERENCE = 200
SECRET_BYTES = 16


async def create(call: Call) -> Json:
    """Open a session for what is sold in it."""
    wanted = call.values
    mode = wanted.get("mode")
    if mode not in ("payment", "setup"):
        raise Refusal(
            "The sandbox provider takes modes 'payment' and 'setup' only.", "parameter_not_in_sandbox", "mode"
        )
    if wanted.get("ui_mode", "hosted_page") != "hosted_page":
        raise Refusal("The sandbox provider has a hosted page only.", "parameter_not_in_sandbox", "ui_mode")
    if len(wanted.get("client_reference_id", "")) > MAX_REFERENCE:
        message = f"Invalid string: client_reference_id must be at most {MAX_REFERENCE} characters"
        raise Refusal(message, "parameter_invalid", "client_reference_id")
    if "customer" in wanted:
        if "customer_creation" in wanted:
            message = "You may only specify one of these parameters: customer, customer_creation."
            raise Refusal(message, None, "customer_creation")
        await find(call.session, "cus", wanted["customer"], "customer")
    _check_setup(wanted)
    now = clock.now()
    currency, items = _items(wanted.get("line_items", [])) if mode == "payment" else (wanted.get("currency", ""), [])
    key = new_key("cs_test", SECRET_BYTES)
    visit = SandboxSession(
        id=key,
        mode=mode,
        currency=currency,
        amount_total=sum(item["amount"] for item in items),
        line_items=items,
        payment_method_types=_methods(wanted),
        payment_method_options=wanted.get("payment_method_options", {}),
        payment_intent_data=wanted.get("payment_intent_data", {}),
        setup_intent_data=wanted.get("setup_intent_data", {}),
        labels=wanted.get("metadata", {}),
        client_reference_id=wanted.get("client_reference_id"),
        customer_id=wanted.get("customer"),
        customer_creation=wanted.get("customer_creation", None if "customer" in wanted else "if_required"),
        customer_email=wanted.get("customer_email"),
        locale=wanted.get("locale"),
        success_url=_address(wanted, "success_url", key),
        cancel_url=_address(wanted, "cancel_url", key),
        url=f"{call.settings.public_url.rstrip('/')}/v1/sandbox/checkout/{key}",
        created_at=now,
        expires_at=_expiry(wanted.get("expires_at"), now),
    )
    if mode == "setup":
        visit.customer_creation = None
        await begin(call.session, visit)
    elif not 1 <= visit.amount_total <= MAX_AMOUNT:
        code = "amount_too_large" if visit.amount_total > MAX_AMOUNT else "amount_too_small"
        raise Refusal(f"The total must be between 1 and {MAX_AMOUNT}.", code, "line_items")
    call.session.add(visit)
    await call.session.flush()
    return session_json(visit)


def _check_setup(wanted: Json) -> None:
    """Refuse what only the other mode knows, and keeping a means of payment that cannot be charged again."""
    mode = wanted["mode"]
    foreign = {
        "payment": ("setup_intent_data", "currency"),
        "setup": ("line_items", "payment_intent_data", "customer_creation"),
    }
    for name in foreign[mode]:
        if name in wanted:
            raise Refusal(f"You can not pass `{name}` in `{mode}` mode.", None, name)
    if mode == "payment" and "setup_future_usage" not in wanted.get("payment_intent_data", {}):
        return
    for method in _methods(wanted):
        if method != "card":
            raise Refusal(
                f"The payment method `{method}` cannot be kept for later.", None, "allowed_payment_method_types"
            )


def _items(wanted: list[Json]) -> tuple[str, list[Json]]:
    if not wanted:
        raise Refusal("You must specify at least one line item.", "parameter_missing", "line_items")
    items = []
    currencies = set()
    for position, item in enumerate(wanted):
        name = f"line_items[{position}][price_data]"
        price = item.get("price_data")
        if price is None:
            raise Refusal(f"Missing required param: {name}.", "parameter_missing", name)
        if "product_data" not in price:
            raise Refusal(
                f"Missing required param: {name}[product_data].", "parameter_missing", f"{name}[product_data]"
            )
        if "unit_amount" not in price:
            raise Refusal(f"Missing required param: {name}[unit_amount].", "parameter_missing", f"{name}[unit_amount]")
        quantity, amount = item.get("quantity", 1), price["unit_amount"]
        if quantity < 1 or amount < 0:
            raise Refusal(f"Invalid amount or quantity in line_items[{position}].", "parameter_invalid_integer", name)
        if not re.fullmatch("[a-z]{3}", price["currency"]):
            raise Refusal(f"Invalid currency: {price['currency'][:10]}", "currency_not_supported", f"{name}[currency]")
        currencies.add(price["currency"])
        product = price["product_data"]
        items.append(
            {
                "name": product["name"],
                "description": product.get("description"),
                "quantity": quantity,
                "amount": quantity * amount,
            }
        )
    if len(currencies) > 1:
        raise Refusal("All line items must have the same currency.", None, "line_items")
    return currencies.pop(), items


def _methods(wanted: Json) -> list[str]:
    methods = wanted.get("allowed_payment_method_types") or ["card"]
    for method in methods:
        if method not in METHODS:
            message = f"The sandbox provider takes {', '.join(METHODS)}; not {method}."
            raise Refusal(message, "parameter_not_in_sandbox", "allowed_payment_method_types")
    # Stripe cannot show WeChat's code without knowing where it is shown.
    if "wechat_pay" in methods and "wechat_pay" not in wanted.get("payment_method_options", {}):
        name = "payment_method_options[wechat_pay][client]"
        raise Refusal(f"Missing required param: {name}.", "parameter_missing", name)
    return list(dict.fromkeys(methods))


def _address(wanted: Json, name: str, key: str) -> str | None:
    address: str | None = wanted.get(name)
    if address is None:
        return None
    if not re.match(r"https?://[^/\s]", address):
        raise Refusal("Not a valid URL", "url_invalid", name)
    return address.replace("{CHECKOUT_SESSION_ID}", key)


def _expiry(wanted: int | None, now: datetime) -> datetime:
    if wanted is None:
        return now + MAX_LIFE
    life = wanted - epoch(now)
    if not MIN_LIFE.total_seconds() <= life <= MAX_LIFE.total_seconds():
        bound = "at least 30 minutes from" if life < MIN_LIFE.total_seconds() else "less than 24 hours from"
        raise Refusal(f"The `expires_at` timestamp must be {bound} Checkout Session creation.", None, "expires_at")
    return datetime.fromtimestamp(wanted, UTC)


async def retrieve(call: Call) -> Json:
    """One session."""
    return session_json(await find(call.session, "cs", call.key, "session"))


async def list_line_items(call: Call) -> Json:
    """What a session sells."""
    return line_items_json(await find(call.session, "cs", call.key, "session"))


async def list_all(call: Call) -> Json:
    """Sessions, newest first; `status` judges by the instant, as the session itself does."""
    conditions: list[Any] = []
    row: Any = SandboxSession
    if "payment_intent" in call.values:
        conditions.append(row.intent_id == call.values["payment_intent"])
    if "customer" in call.values:
        conditions.append(row.customer_id == call.values["customer"])
    if status := call.values.get("status"):
        past = (row.status == "open") & (row.expires_at <= clock.now())
        wanted = row.status == status
        conditions.append(wanted | past if status == "expired" else wanted & ~past)
    return await page(call.session, "cs", call.path, call.values, *conditions)


async def expire(call: Call) -> Json:
    """End an open session, so that it cannot be paid any more."""
    visit = await find(call.session, "cs", call.key, "session")
    await call.session.refresh(visit, with_for_update=True)
    shape = session_json(visit)
    if shape["status"] != "open":
        message = (
            'Only Checkout Sessions with a status in ["open"] can be expired. '
            f"This Checkout Session has a status of {shape['status']}."
        )
        raise Refusal(message)
    await end(call.session, visit)
    return session_json(visit)


_CREATE = """
    mode ui_mode success_url cancel_url client_reference_id customer customer_email locale expires_at
    allowed_payment_method_types payment_method_options payment_method_options.card payment_method_options.alipay
    payment_method_options.wechat_pay payment_method_options.wechat_pay.client payment_method_options.wechat_pay.app_id
    payment_intent_data payment_intent_data.description payment_intent_data.setup_future_usage metadata
    setup_intent_data setup_intent_data.description setup_intent_data.metadata currency customer_creation
    payment_intent_data.metadata line_items line_items.quantity line_items.price_data line_items.price_data.currency
    line_items.price_data.unit_amount line_items.price_data.product_data line_items.price_data.product_data.name
    line_items.price_data.product_data.description
"""
_PAGE = "limit starting_after ending_before created created.*"

OPERATIONS = [
    operation("POST", "/v1/checkout/sessions", SessionCreateParams, _CREATE, create),
    operation("GET", "/v1/checkout/sessions", SessionListParams, f"{_PAGE} status payment_intent customer", list_all),
    operation("GET", "/v1/checkout/sessions/{key}", SessionRetrieveParams, "", retrieve),
    operation("GET", "/v1/checkout/sessions/{key}/line_items", SessionListLineItemsParams, "limit", list_line_items),
    operation("POST", "/v1/checkout/sessions/{key}/expire", SessionExpireParams, "", expire),
]
