"""The tables of partners' webhooks: where they go, what was told, and how each delivery went."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.referrals.models import Model


class WebhookEndpoint(Model, table=True):
    """Where a partner hears of events; `busy_until` is the lease of whoever is sending to it now.

    `old_secrets` are `{sealed, until}`: those that sign beside the new one for a while after a rotation.
    """

    __tablename__ = "webhook_endpoint"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'disabled')", name="status"),
        Index("webhook_endpoint_partner_id_idx", "partner_id", "created_at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    partner_id: UUID = Field(foreign_key="partner.id")
    url: str
    events: list[str] = Field(sa_column=Column(ARRAY(String), nullable=False))
    status: str = "active"
    reason: str | None = None
    sealed_secret: str
    old_secrets: list[dict[str, str]] = Field(default_factory=list, sa_column=Column(JSONB, nullable=False))
    failing_since: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    disabled_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    busy_until: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    created_at: datetime = Field(sa_column=instant())


class WebhookMessage(Model, table=True):
    """Something a partner is told, once for each type and what it is about; the row outlives its body for that."""

    __tablename__ = "webhook_message"
    __table_args__ = (
        UniqueConstraint("type", "reference", name="webhook_message_type_reference_key"),
        Index("webhook_message_at_idx", "at", postgresql_where=text("body IS NOT NULL")),
        Index("webhook_message_partner_id_idx", "partner_id", "at", postgresql_where=text("body IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    partner_id: UUID = Field(foreign_key="partner.id")
    type: str
    reference: UUID
    body: str | None
    at: datetime = Field(sa_column=instant())


class WebhookDelivery(Model, table=True):
    """A message on its way to one endpoint; `tries` counts towards the schedule, `attempts` is the log of all of them."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'succeeded', 'failed')", name="status"),
        UniqueConstraint("endpoint_id", "message_id", name="webhook_delivery_endpoint_message_key"),
        Index(
            "webhook_delivery_due_idx", "endpoint_id", "next_attempt_at", postgresql_where=text("status = 'pending'")
        ),
        Index("webhook_delivery_log_idx", "endpoint_id", "created_at", "id"),
        Index("webhook_delivery_ended_at_idx", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    place: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    endpoint_id: UUID = Field(foreign_key="webhook_endpoint.id", ondelete="CASCADE")
    message_id: UUID = Field(foreign_key="webhook_message.id", index=True)
    status: str = "pending"
    tries: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    attempts: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSONB, nullable=False))
    created_at: datetime = Field(sa_column=instant())
    ended_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
