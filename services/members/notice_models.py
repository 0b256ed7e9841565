"""The table of notices."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.members.models import Model


class Notice(Model, table=True):
    """What a member was to be told, how, and the proof that they were; `reference` is the occasion's, of its teller.

    `next_attempt_at` is when a pending one is to be sent, be it again.
    """

    __tablename__ = "notice"
    __table_args__ = (
        UniqueConstraint("teller", "reference"),
        Index("notice_member_id_idx", "member_id", "wanted_at", "id"),
        Index("notice_pending_idx", "next_attempt_at", postgresql_where=text("status = 'pending'")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID
    teller: str
    reference: str
    kind: str
    channel: str
    language: str
    body: str
    status: str
    reason: str | None = None
    wanted_at: datetime = Field(sa_column=instant())
    sent_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    proof: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
