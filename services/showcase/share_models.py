"""The table of share links: whose link to which work has which token."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlmodel import Field

from kit.db import instant
from services.showcase.models import Model


class ShareLink(Model, table=True):
    """A member's own link to a work."""

    __tablename__ = "share_link"
    __table_args__ = (
        Index("share_link_entry_key", "entry_id", "member_id", unique=True),
        Index("share_link_member_id_idx", "member_id"),
    )

    token: str = Field(primary_key=True)
    entry_id: UUID = Field(foreign_key="entry.id")
    member_id: UUID
    created_at: datetime = Field(sa_column=instant())
