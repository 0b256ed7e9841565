"""Webhook endpoints: where a partner hears of events, and the secret that proves who is speaking."""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import Field
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime, RuntimeDep, router
from kit.auth import PartnerDep
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, Unprocessable, problems
from kit.outbound import AddressRefused, Outbound
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Matching, Out, StrictIn
from kit.text import instant
from kit.vault import open_vault
from services.referrals.partner_models import Partner
from services.referrals.webhook_events import TOLD
from services.referrals.webhook_models import WebhookEndpoint

routes = router(prefix="/v1/partner/webhook-endpoints", tags=["partner webhooks"])

OVERLAP: Final = timedelta(hours=24)
"""How long messages carry the signatures of both secrets after a rotation."""
MOST: Final = 20
MOST_SECRETS: Final = 10

Url = Annotated[CleanStr, Field(min_length=8, max_length=2000), Matching(r"^https?://[!-~]+$")]
EventType = Annotated[CleanStr, Field(max_length=100, json_schema_extra={"enum": [*TOLD]})]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=len(TOLD))]
Status = Literal["active", "disabled"]


class WebhookEndpointNotFound(NotFound):
    """You have no such webhook endpoint."""

    zh = "没有这个 webhook 地址。"


class EventTypeUnknown(Unprocessable):
    """There is no event type {unknown}; see the list of event types."""

    zh = "没有事件类型 {unknown}，请查看事件类型列表。"
    loc = ("body", "events")


class WebhookUrlRefused(Unprocessable):
    """Webhooks go to public https addresses only: https://host/path, without a user or a fragment."""

    zh = "webhook 只能发往公网的 https 地址（https://域名/路径，不带用户名和 #）。"
    loc = ("body", "url")


class TooManyEndpoints(Conflict):
    """You have as many endpoints as there may be; delete one first."""

    zh = "webhook 地址数量已达上限，请先删除一个。"


class RotatedTooOften(Conflict):
    """Ten older secrets still sign beside this one; each goes out of use a day after it was replaced."""

    zh = "还有十个旧密钥在同时签名；每个旧密钥在被替换一天后失效，请稍后再轮换。"
    action = "retry_after"


class EndpointIn(StrictIn):
    """Where to send which events."""

    url: Url
    events: EventTypes


class EndpointPatch(StrictIn):
    """What is to change; `active` starts an endpoint again that was disabled."""

    url: Url | None = None
    events: EventTypes | None = None
    status: Status | None = None


class EndpointOut(Out):
    """An endpoint; `reason` says why it is disabled, `failing_since` since when nothing was accepted."""

    id: UUID
    url: str
    events: list[str]
    status: Status
    reason: str | None
    failing_since: Instant | None
    created_at: Instant


class EndpointWithSecret(EndpointOut):
    """An endpoint with its new secret, which is never shown again."""

    secret: str


async def read_endpoint(endpoint_id: UUID, caller: PartnerDep, session: SessionDep) -> WebhookEndpoint:
    """The caller's endpoint; somebody else's is not found."""
    return await _own(session, caller.id, endpoint_id)


async def own_endpoint(endpoint_id: UUID, caller: PartnerDep, session: SessionDep) -> WebhookEndpoint:
    """The same, locked until the transaction ends."""
    return await _own(session, caller.id, endpoint_id, locked=True)


async def _own(session: AsyncSession, partner_id: UUID, endpoint_id: UUID, *, locked: bool = False) -> WebhookEndpoint:
    endpoint = await session.get(WebhookEndpoint, endpoint_id, with_for_update=locked, populate_existing=True)
    if endpoint is None or endpoint.partner_id != partner_id:
        raise WebhookEndpointNotFound
    return endpoint


ShownEndpoint = Annotated[WebhookEndpoint, Depends(read_endpoint, scope="function")]
OwnEndpoint = Annotated[WebhookEndpoint, Depends(own_endpoint, scope="function")]


def outbound_of(rt: Runtime) -> Outbound:
    """The guarded client of this process."""
    outbound: Outbound = rt.state["outbound"]
    return outbound


async def _require_url(rt: Runtime, session: AsyncSession, url: str) -> None:
    # A name may be slow to resolve: nothing was written yet, and nobody waits for the connection meanwhile.
    await session.commit()
    try:
        await outbound_of(rt).check(url)
    except (AddressRefused, ValueError) as failure:
        raise WebhookUrlRefused from failure


def _require_types(events: list[str]) -> list[str]:
    unknown = sorted(set(events) - TOLD.keys())
    if unknown:
        raise EventTypeUnknown(unknown=unknown[0])
    return sorted(set(events))


def _new_secret() -> str:
    # Standard Webhooks, "Signature scheme": 24 to 64 random bytes in base64 after whsec_.
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


@routes.post("", status_code=201, responses=problems(EventTypeUnknown, WebhookUrlRefused, TooManyEndpoints))
async def create_endpoint(
    body: EndpointIn, caller: PartnerDep, session: SessionDep, rt: RuntimeDep
) -> EndpointWithSecret:
    """Hear of events at an address; the secret that signs them is in this answer and nowhere else."""
    events = _require_types(body.events)
    await _require_url(rt, session, body.url)
    await _require_room(session, caller.id)
    secret = _new_secret()
    endpoint = WebhookEndpoint(
        partner_id=caller.id,
        url=body.url,
        events=events,
        sealed_secret=open_vault(rt.settings.webhook_key).seal(secret),
        created_at=clock.now(),
    )
    session.add(endpoint)
    await session.flush()
    return EndpointWithSecret(**_shown(endpoint).model_dump(), secret=secret)


async def _require_room(session: AsyncSession, partner_id: UUID) -> None:
    await session.execute(select(col(Partner.id)).where(col(Partner.id) == partner_id).with_for_update())
    held = select(func.count()).where(col(WebhookEndpoint.partner_id) == partner_id)
    if (await session.execute(held)).scalar_one() >= MOST:
        raise TooManyEndpoints


@routes.get("")
async def list_endpoints(caller: PartnerDep, session: SessionDep, page: PageDep) -> Page[EndpointOut]:
    """The caller's endpoints, the newest first."""
    found = select(WebhookEndpoint).where(col(WebhookEndpoint.partner_id) == caller.id)
    order = (col(WebhookEndpoint.created_at).desc(), col(WebhookEndpoint.id).desc())
    rows, next_cursor = await keyset(session, found, page, order)
    return Page(items=[_shown(row) for row in rows], next_cursor=next_cursor)


@routes.get("/{endpoint_id}", responses=problems(WebhookEndpointNotFound))
async def read_own_endpoint(endpoint: ShownEndpoint) -> EndpointOut:
    """One endpoint of the caller's."""
    return _shown(endpoint)


@routes.patch("/{endpoint_id}", responses=problems(WebhookEndpointNotFound, EventTypeUnknown, WebhookUrlRefused))
async def change_endpoint(
    endpoint_id: UUID, body: EndpointPatch, caller: PartnerDep, session: SessionDep, rt: RuntimeDep
) -> EndpointOut:
    """Change an endpoint, stop it, or start it again; what waits goes on when it starts."""
    await _own(session, caller.id, endpoint_id)
    if body.url is not None:
        await _require_url(rt, session, body.url)
    endpoint = await _own(session, caller.id, endpoint_id, locked=True)
    if body.url is not None:
        endpoint.url = body.url
    if body.events is not None:
        endpoint.events = _require_types(body.events)
    if body.status == "disabled" and endpoint.status == "active":
        endpoint.status, endpoint.reason, endpoint.disabled_at = "disabled", "by_partner", clock.now()
    elif body.status == "active":
        endpoint.status, endpoint.reason, endpoint.disabled_at, endpoint.failing_since = "active", None, None, None
    await session.flush()
    return _shown(endpoint)


@routes.delete("/{endpoint_id}", status_code=204, responses=problems(WebhookEndpointNotFound))
async def delete_endpoint(endpoint: OwnEndpoint, session: SessionDep) -> None:
    """Delete an endpoint and its log."""
    await session.execute(delete(WebhookEndpoint).where(col(WebhookEndpoint.id) == endpoint.id))


@routes.post("/{endpoint_id}/rotate-secret", responses=problems(WebhookEndpointNotFound, RotatedTooOften))
async def rotate_endpoint_secret(endpoint: OwnEndpoint, session: SessionDep, rt: RuntimeDep) -> EndpointWithSecret:
    """Give an endpoint a new secret; for 24 hours messages are signed with the old one, too."""
    now, secret = clock.now(), _new_secret()
    signing = [old for old in endpoint.old_secrets if datetime.fromisoformat(old["until"]) > now]
    if len(signing) >= MOST_SECRETS:
        wait = datetime.fromisoformat(signing[0]["until"]) - now
        raise RotatedTooOften(retry_after=int(wait.total_seconds()) + 1)
    endpoint.old_secrets = [*signing, {"sealed": endpoint.sealed_secret, "until": instant(now + OVERLAP)}]
    endpoint.sealed_secret = open_vault(rt.settings.webhook_key).seal(secret)
    await session.flush()
    return EndpointWithSecret(**_shown(endpoint).model_dump(), secret=secret)


def secrets_of(rt: Runtime, sealed: str, old: Sequence[dict[str, Any]]) -> list[str]:
    """The secrets that sign now: the new one, and those replaced within the last 24 hours."""
    vault, now = open_vault(rt.settings.webhook_key), clock.now()
    signing = [one["sealed"] for one in reversed(old) if datetime.fromisoformat(one["until"]) > now]
    return [vault.unseal(one) for one in (sealed, *signing)]


async def stopped_endpoints(session: AsyncSession, partner_id: UUID) -> Sequence[WebhookEndpoint]:
    """The partner's endpoints that were disabled for them, the latest first."""
    found = select(WebhookEndpoint).where(
        col(WebhookEndpoint.partner_id) == partner_id,
        col(WebhookEndpoint.status) == "disabled",
        col(WebhookEndpoint.reason) != "by_partner",
    )
    return (await session.execute(found.order_by(col(WebhookEndpoint.disabled_at).desc()))).scalars().all()


def _shown(endpoint: WebhookEndpoint) -> EndpointOut:
    return EndpointOut.model_validate(endpoint)
