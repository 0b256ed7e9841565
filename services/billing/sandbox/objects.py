"""Stripe's objects by their ids: found, expanded, listed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.billing.registry import Model
from services.billing.sandbox.balance import SandboxBalanceMove, SandboxPayout, move_json, payout_json
from services.billing.sandbox.dispute_shapes import dispute_json
from services.billing.sandbox.models import (
    SandboxCharge,
    SandboxCustomer,
    SandboxDispute,
    SandboxEvent,
    SandboxIntent,
    SandboxMethod,
    SandboxRefund,
    SandboxSession,
    SandboxSetup,
)
from services.billing.sandbox.shapes import (
    Json,
    charge_json,
    customer_json,
    event_json,
    intent_json,
    line_items_json,
    list_json,
    method_json,
    refund_json,
    session_json,
    setup_json,
)
from services.billing.sandbox.wire import ID, Refusal, missing

MAX_EXPAND_DEPTH = 4
MAX_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: its rows, its JSON, its name in messages, and which of its ids can be expanded."""

    model: type[Model]
    render: Callable[[Any], Json]
    noun: str
    expandable: frozenset[str] = frozenset()


KINDS = {
    "cs": Kind(
        SandboxSession,
        session_json,
        "checkout.session",
        frozenset({"payment_intent", "setup_intent", "customer", "line_items"}),
    ),
    "pi": Kind(
        SandboxIntent, intent_json, "payment_intent", frozenset({"latest_charge", "customer", "payment_method"})
    ),
    "seti": Kind(SandboxSetup, setup_json, "setupintent", frozenset({"customer", "payment_method"})),
    "pm": Kind(SandboxMethod, method_json, "PaymentMethod", frozenset({"customer"})),
    "ch": Kind(SandboxCharge, charge_json, "charge", frozenset({"payment_intent", "customer"})),
    "re": Kind(SandboxRefund, refund_json, "refund", frozenset({"charge", "payment_intent"})),
    "du": Kind(SandboxDispute, dispute_json, "dispute", frozenset({"charge", "payment_intent"})),
    "txn": Kind(SandboxBalanceMove, move_json, "balance_transaction", frozenset({"source"})),
    "po": Kind(SandboxPayout, payout_json, "payout"),
    "evt": Kind(SandboxEvent, event_json, "event"),
    "cus": Kind(SandboxCustomer, customer_json, "customer"),
}
"""Every kind of object by the prefix of its ids."""


async def find(session: AsyncSession, prefix: str, key: str, param: str = "id") -> Any:
    """The row with this id; Refusal (404 resource_missing) when there is none."""
    kind = KINDS[prefix]
    row = await session.get(kind.model, key, populate_existing=True) if ID.fullmatch(key) else None
    if row is None:
        raise missing(kind.noun, key, param)
    return row


async def expand(session: AsyncSession, shape: Json, paths: Iterable[str]) -> Json:
    """The object with the ids at these paths replaced by what they name; paths into a list start with `data.`."""
    for path in paths:
        steps = path.split(".")
        if len(steps) > MAX_EXPAND_DEPTH + (steps[0] == "data"):
            message = f"You cannot expand more than {MAX_EXPAND_DEPTH} levels of a property: {path}"
            raise Refusal(message, "property_expansion_max_depth", "expand")
        if shape["object"] == "list" and steps[0] == "data":
            for item in shape["data"]:
                await _expand(session, item, steps[1:], path)
        else:
            await _expand(session, shape, steps, path)
    return shape


async def _expand(session: AsyncSession, shape: Json, steps: list[str], path: str) -> None:
    for step in steps:
        kind = KINDS.get(str(shape.get("id")).split("_", 1)[0])
        if kind is None or step not in kind.expandable:
            raise Refusal(f"This property cannot be expanded ({path}).", None, "expand")
        if step == "line_items":
            shape[step] = line_items_json(await find(session, "cs", shape["id"]))
            return
        inner = shape[step]
        if inner is None:
            return
        if isinstance(inner, str):
            prefix = inner.split("_", 1)[0]
            shape[step] = inner = KINDS[prefix].render(await find(session, prefix, inner))
        shape = inner


async def page(session: AsyncSession, prefix: str, url: str, wanted: Json, *conditions: ColumnElement[bool]) -> Json:
    """A list, newest first; `wanted` holds limit, starting_after, ending_before and created as Stripe names them."""
    kind = KINDS[prefix]
    key: Any = kind.model.id  # type: ignore[attr-defined]
    limit = wanted.get("limit", 10)
    if not 1 <= limit <= MAX_LIMIT:
        raise Refusal(f"Invalid limit: must be between 1 and {MAX_LIMIT}", "parameter_invalid_integer", "limit")
    query = select(kind.model).where(*conditions, *_created(kind.model, wanted.get("created", {})))
    backward = "ending_before" in wanted
    # Ids sort by creation, so that they are the cursor.
    if backward:
        query = query.where(key > (await find(session, prefix, wanted["ending_before"], "ending_before")).id)
    if "starting_after" in wanted:
        query = query.where(key < (await find(session, prefix, wanted["starting_after"], "starting_after")).id)
    rows = list(await session.scalars(query.order_by(key if backward else key.desc()).limit(limit + 1)))
    items = [kind.render(row) for row in rows[:limit]]
    return list_json(url, items[::-1] if backward else items, more=len(rows) > limit)


def _created(model: Any, created: Any) -> list[ColumnElement[bool]]:
    bounds = created if isinstance(created, dict) else {"gte": created, "lte": created}
    conditions = []
    for word, seconds in bounds.items():
        try:
            # Stripe's instants are whole seconds: all of a second is `lte` it, none of it `gt`.
            at = datetime.fromtimestamp(seconds + (word in ("gt", "lte")), UTC)
        except (ValueError, OverflowError, OSError) as broken:
            message = f"Invalid timestamp: {seconds}"
            raise Refusal(message, "parameter_invalid_integer", f"created[{word}]") from broken
        conditions.append(model.created_at >= at if word in ("gt", "gte") else model.created_at < at)
    return conditions
