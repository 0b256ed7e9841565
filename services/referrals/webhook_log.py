"""The log of webhook deliveries: what was sent and answered, a test, and sending again."""

from typing import Final, Literal, Self
from uuid import UUID

import orjson
from pydantic import JsonValue, model_validator
from sqlalchemy import select, text, update
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import PartnerDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out, StrictIn
from services.referrals.webhook_endpoints import OwnEndpoint, ShownEndpoint, WebhookEndpointNotFound
from services.referrals.webhook_events import TEST, TOLD, example_of
from services.referrals.webhook_messages import message
from services.referrals.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookMessage

routes = router(prefix="/v1/partner", tags=["partner webhooks"])

DeliveryStatus = Literal["pending", "succeeded", "failed"]

# A day less than the thirty for which bodies are kept: none of these may be forgotten meanwhile.
_MISSED: Final = text("""
INSERT INTO webhook_delivery (id, endpoint_id, message_id, status, tries, next_attempt_at, attempts, created_at)
SELECT uuidv7(), endpoint.id, message.id, 'pending', 0, :now, '[]', :now
FROM webhook_endpoint endpoint JOIN webhook_message message ON message.partner_id = endpoint.partner_id
WHERE endpoint.id = :endpoint AND message.type = ANY(endpoint.events) AND message.body IS NOT NULL
    AND message.at >= endpoint.created_at AND message.at BETWEEN :since AND :until
    AND message.at > CAST(:now AS timestamptz) - interval '29 days'
ORDER BY message.at, message.id
ON CONFLICT ON CONSTRAINT webhook_delivery_endpoint_message_key DO NOTHING RETURNING id
""")


class DeliveryNotFound(NotFound):
    """You have no such delivery."""

    zh = "没有这次投递。"


class WebhookAttemptOut(Out):
    """One try: what was sent besides the body, and the status that came back with the beginning of the answer, or why none did."""

    at: Instant
    url: str | None = None
    request_headers: dict[str, str] | None = None
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
    """Which messages go out again: those from `since` until `until`, now when left out.

    `missed` are those told while the endpoint was disabled, or did not ask for their type; failed and missed ones when
    no status is named.
    """

    since: Instant
    until: Instant | None = None
    status: DeliveryStatus | Literal["missed"] | None = None

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.until is not None and self.until < self.since:
            raise ValueError("until must not lie before since")
        return self


class ReplayOut(Out):
    """How many messages go out again."""

    replayed: int


class EventTypeOut(Out):
    """An event type, and a body as an endpoint hears it."""

    type: str
    description: str
    example: dict[str, JsonValue]


class EventTypesOut(Out):
    """All event types."""

    items: list[EventTypeOut]


@routes.get("/event-types")
async def list_event_types(_: PartnerDep) -> EventTypesOut:
    """What an endpoint may hear of."""
    return EventTypesOut(
        items=[EventTypeOut(type=kind, description=told.words, example=example_of(kind)) for kind, told in TOLD.items()]
    )


@routes.post("/webhook-endpoints/{endpoint_id}/test", status_code=202, responses=problems(WebhookEndpointNotFound))
async def test_endpoint(endpoint: ShownEndpoint, session: SessionDep) -> DeliveryOut:
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
async def list_deliveries(
    endpoint: ShownEndpoint, session: SessionDep, page: PageDep, status: DeliveryStatus | None = None
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
    delivery.status, delivery.tries, delivery.next_attempt_at, delivery.ended_at = "pending", 0, clock.now(), None
    await session.flush()
    return _shown(delivery, await session.get_one(WebhookMessage, delivery.message_id))


@routes.post("/webhook-endpoints/{endpoint_id}/replay", status_code=202, responses=problems(WebhookEndpointNotFound))
async def replay_range(body: ReplayIn, endpoint: OwnEndpoint, session: SessionDep) -> ReplayOut:
    """Send everything of a time again that has this status, or that failed or was missed when none is named."""
    now = clock.now()
    replayed = 0
    if body.status != "missed":
        again = (
            update(WebhookDelivery)
            .where(
                col(WebhookDelivery.endpoint_id) == endpoint.id,
                col(WebhookDelivery.status) == (body.status or "failed"),
                col(WebhookDelivery.created_at) >= body.since,
                col(WebhookDelivery.created_at) <= (body.until or now),
            )
            .values(status="pending", tries=0, next_attempt_at=now, ended_at=None)
            .returning(col(WebhookDelivery.id))
        )
        replayed += len((await session.execute(again)).all())
    if body.status in (None, "missed"):
        asked = {"endpoint": endpoint.id, "now": now, "since": body.since, "until": body.until or now}
        replayed += len((await session.execute(_MISSED, asked)).all())
    return ReplayOut(replayed=replayed)


def _shown(delivery: WebhookDelivery, told: WebhookMessage) -> DeliveryOut:
    told_of = {"webhook_id": webhook_id(told.id), "type": told.type, "body": orjson.loads(told.body or "{}")}
    return DeliveryOut.model_validate(delivery.model_dump() | told_of)


def webhook_id(message_id: UUID) -> str:
    """The `webhook-id` of a message (Standard Webhooks): the same through all tries."""
    return f"msg_{message_id.hex}"
