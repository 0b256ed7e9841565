"""The table of features: works that the community's editors show, with an interview of their author."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.showcase.models import Model


class Feature(Model, table=True):
    """A featured work; `published_at` is when it was first shown, and null for a draft that never was."""

    __tablename__ = "feature"
    __table_args__ = (
        Index("feature_shown_idx", "published_at", "id", postgresql_where=text("published")),
        Index("feature_entry_id_idx", "entry_id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    entry_id: UUID = Field(foreign_key="entry.id")
    title: str
    body: str
    published: bool
    version: int = 1
    created_at: datetime = Field(sa_column=instant())
    published_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
