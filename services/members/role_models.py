"""The table of roles' history."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, String, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.members.models import Model


class RoleChange(Model, table=True):
    """A member's roles changed: why, and what they had done in the 28 days before."""

    __tablename__ = "role_change"
    __table_args__ = (Index("role_change_member_id_idx", "member_id", "at", "id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    member_id: UUID
    before: list[str] = Field(sa_column=Column(ARRAY(String), nullable=False))
    after: list[str] = Field(sa_column=Column(ARRAY(String), nullable=False))
    cause: str
    evidence: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    at: datetime = Field(sa_column=instant())
