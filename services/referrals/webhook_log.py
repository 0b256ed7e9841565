"""The log of webhook deliveries: what was sent and answered, a test, and sending again."""

from typing import Annotated, Literal, Self
from uuid import UUID

import orjson
from pydantic import Field, JsonValue, model_validator
from sqlalchemy import select, update
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import PartnerDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, StrictIn
from services.referrals.webhook_endpoints import OwnEndpoint, WebhookEndpointNotFound
from services.referrals.webhook_messages import TEST, TYPES, message
from services.referrals.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookMessage

routes = router(prefix="/v1/partner", tags=["partner webhooks"])

DeliveryStatus = Literal["pending", "succeeded", "failed"]


class DeliveryNotFound(NotFound):
    """You have no such delivery."""

    zh = "没有这次投递。"


class WebhookAttemptOut(Out):
    """One try: the status that came back, or why none did, and the beginning of the answer."""

    at: Instant
    response_status: int | None
    duration_ms: int
    error: str | None
    response_body: str | None = None


class DeliveryOut(Out):
    """A message on its way to an endpoint; `webhook_id` stays the same through all tries and replays."""

    id: UUID
    webhook_id: str
    endpoint_id: UUID
    type: str
    status: DeliveryStatus
    next_attempt_at: Instant | None
    created_at: Instant
    attempts: list[WebhookAttemptOut]
    body: dict[str, JsonValue]


class ReplayIn(StrictIn):
    """Which deliveries go out again: those made from `since` until `until`, now when left out."""

    since: Instant
    until: Instant | None = None
    status: Annotated[DeliveryStatus, Field()] = "failed"

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.until is not None and self.until < self.since:
            raise ValueError("until must not lie before since")
        return self


class ReplayOut(Out):
    """How many deliveries go out again."""

    replayed: int


class EventTypeOut(Out):
    """An event type."""

    type: str
    description: str


class EventTypesOut(Out):
    """All event types."""

    items: list[EventTypeOut]


@routes.get("/event-types")
async def event_types(_: PartnerDep) -> EventTypesOut:
    """What an endpoint may hear of."""
    return EventTypesOut(items=[EventTypeOut(type=kind, description=words) for kind, words in TYPES.items()])


@routes.post("/webhook-endpoints/{endpoint_id}/test", status_code=202, responses=problems(WebhookEndpointNotFound))
async def test_endpoint(endpoint: OwnEndpoint, session: SessionDep) -> DeliveryOut:
    """Send a test event to an endpoint, whatever it listens to; see the deliveries for what came of it."""
    now = clock.now()
    told = WebhookMessage(**message(endpoint.partner_id, TEST, new_id(), now, {"endpoint_id": endpoint.id}))
    session.add(told)
    await session.flush()
    delivery = WebhookDelivery(endpoint_id=endpoint.id, message_id=told.id, next_attempt_at=now, created_at=now)
    session.add(delivery)
    await session.flush()
    return _shown(delivery, told)


@routes.get("/webhook-endpoints/{endpoint_id}/deliveries", responses=problems(WebhookEndpointNotFound))
async def deliveries(
    endpoint: OwnEndpoint, session: SessionDep, page: PageDep, status: DeliveryStatus | None = None
) -> Page[DeliveryOut]:
    """What was sent to an endpoint, the newest first."""
    found = select(WebhookDelivery).where(col(WebhookDelivery.endpoint_id) == endpoint.id)
    if status is not None:
        found = found.where(col(WebhookDelivery.status) == status)
    order = (col(WebhookDelivery.created_at).desc(), col(WebhookDelivery.id).desc())
    rows, next_cursor = await keyset(session, found, page, order)
    wanted = select(WebhookMessage).where(col(WebhookMessage.id).in_([row.message_id for row in rows]))
    told = {one.id: one for one in (await session.execute(wanted)).scalars()}
    return Page(items=[_shown(row, told[row.message_id]) for row in rows], next_cursor=next_cursor)


@routes.post("/deliveries/{delivery_id}/replay", status_code=202, responses=problems(DeliveryNotFound))
async def replay_delivery(delivery_id: UUID, caller: PartnerDep, session: SessionDep) -> DeliveryOut:
    """Send a message again, with the same webhook-id, from the beginning of the schedule."""
    found = (
        select(WebhookDelivery)
        .join(WebhookEndpoint, col(WebhookEndpoint.id) == col(WebhookDelivery.endpoint_id))
        .where(col(WebhookDelivery.id) == delivery_id, col(WebhookEndpoint.partner_id) == caller.id)
        .with_for_update(of=WebhookDelivery)
    )
    delivery = (await session.execute(found)).scalar_one_or_none()
    if delivery is None:
        raise DeliveryNotFound
    delivery.status, delivery.tries, delivery.next_attempt_at = "pending", 0, clock.now()
    await session.flush()
    return _shown(delivery, await session.get_one(WebhookMessage, delivery.message_id))


@routes.post("/webhook-endpoints/{endpoint_id}/replay", status_code=202, responses=problems(WebhookEndpointNotFound))
async def replay_range(body: ReplayIn, endpoint: OwnEndpoint, session: SessionDep) -> ReplayOut:
    """Send everything of a time again that has this status, failed when none is named."""
    now = clock.now()
    again = (
        update(WebhookDelivery)
        .where(
            col(WebhookDelivery.endpoint_id) == endpoint.id,
            col(WebhookDelivery.status) == body.status,
            col(WebhookDelivery.created_at) >= body.since,
            col(WebhookDelivery.created_at) <= (body.until or now),
        )
        .values(status="pending", tries=0, next_attempt_at=now)
        .returning(col(WebhookDelivery.id))
    )
    return ReplayOut(replayed=len((await session.execute(again)).all()))


def _shown(delivery: WebhookDelivery, told: WebhookMessage) -> DeliveryOut:
    told_of = {"webhook_id": webhook_id(told.id), "type": told.type, "body": orjson.loads(told.body)}
    return DeliveryOut.model_validate(delivery.model_dump() | told_of)


def webhook_id(message_id: UUID) -> str:
    """The `webhook-id` of a message (Standard Webhooks): the same through all tries."""
    return f"msg_{message_id.hex}"
