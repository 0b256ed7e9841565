"""What Heika answers partners; fields that are new are left aside until this client knows them."""

from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

Shape = TypeVar("Shape")

CommissionStatus = Literal["pending", "due", "paid", "held", "voided"]
DeliveryStatus = Literal["pending", "succeeded", "failed"]
EndpointStatus = Literal["active", "disabled"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a partner earns: fen for a first lesson, and `percent` of what is paid for `months`, or ever."""

    trial_amount: int | None
    percent: int
    months: int | None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that needs you: an endpoint that was disabled because nothing there answered well."""

    kind: str
    endpoint_id: UUID
    url: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Partner:
    """You, with the terms that hold for whoever comes now."""

    id: UUID
    name: str
    email: str
    client_id: str
    commission: Terms
    hold_days: int
    created_at: datetime
    notices: list[Notice]


@dataclass(frozen=True, slots=True)
class PartnerLink:
    """A link; `code` works wherever an invitation code does."""

    id: UUID
    title: str
    code: str
    url: str
    channel: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Referral:
    """Somebody a link brought, and how far they have come."""

    member_id: UUID
    link_id: UUID
    nickname: str
    stage: Literal["registered", "tried", "purchased"]
    at: datetime


@dataclass(frozen=True, slots=True)
class Commission:
    """Something owed, in fen, or with a negative amount taken back."""

    id: UUID
    kind: Literal["trial", "sale", "reversal"]
    member_id: UUID
    order_id: UUID | None
    reverses_id: UUID | None
    amount: int
    currency: str
    status: CommissionStatus
    accrued_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Statement:
    """A period, in fen: `closing` is `opening` + `accrued` - `reversed` - `voided` - `paid`."""

    currency: str
    opening: int
    accrued: int
    reversed: int
    voided: int
    paid: int
    closing: int


@dataclass(frozen=True, slots=True)
class PayoutItem:
    """One commission in a payout."""

    partner_id: UUID
    commission_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class Payout:
    """Money to you, in fen; `items` add up to `amount`."""

    id: UUID
    until: datetime
    amount: int
    currency: str
    status: Literal["open", "paid"]
    created_at: datetime
    paid_at: datetime | None
    items: list[PayoutItem]


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of event, and a body as an endpoint hears it."""

    type: str
    description: str
    example: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where you hear of events; `reason` says why it is disabled."""

    id: UUID
    url: str
    events: list[str]
    status: EndpointStatus
    reason: str | None
    failing_since: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EndpointWithSecret(Endpoint):
    """An endpoint with its new secret, which is never shown again."""

    secret: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver: the status that came back, or why none did."""

    at: datetime
    url: str | None
    request_headers: dict[str, str] | None
    response_status: int | None
    duration_ms: int
    error: str | None
    response_body: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to an endpoint; `webhook_id` stays the same through all tries and replays."""

    id: UUID
    webhook_id: str
    endpoint_id: UUID
    type: str
    status: DeliveryStatus
    next_attempt_at: datetime | None
    created_at: datetime
    attempts: list[Attempt]
    body: dict[str, Any]


def read(shape: type[Shape], raw: Any) -> Shape:
    """An answer as this shape; what may be null may also be missing. KeyError, TypeError or ValueError for another one."""
    kinds = get_type_hints(shape)
    values = {}
    for field in fields(shape):  # type: ignore[arg-type]  # every shape here is a dataclass
        kind = kinds[field.name]
        optional = isinstance(kind, UnionType)
        values[field.name] = _value(kind, raw.get(field.name) if optional else raw[field.name])
    return shape(**values)


def _value(kind: Any, raw: Any) -> Any:
    if isinstance(kind, UnionType):
        return None if raw is None else _value(get_args(kind)[0], raw)
    if kind is UUID:
        return UUID(raw)
    if kind is datetime:
        return datetime.fromisoformat(raw)
    if get_origin(kind) is list:
        return [_value(get_args(kind)[0], item) for item in raw]
    return read(kind, raw) if is_dataclass(kind) and isinstance(kind, type) else raw
