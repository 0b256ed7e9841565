"""The table of reports: what members found wrong with works and comments, and what became of it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.showcase.models import Model


class Report(Model, table=True):
    """A member's report of a work, or of a comment under it; `quote` is what was reported, `author_id` who wrote it."""

    __tablename__ = "report"
    __table_args__ = (
        # Once a member and thing, so that nobody's voice counts twice.
        Index("report_entry_key", "entry_id", "member_id", unique=True, postgresql_where=text("comment_id IS NULL")),
        Index("report_comment_key", "comment_id", "member_id", unique=True),
        Index("report_status_idx", "status", "id"),
        Index("report_member_id_idx", "member_id"),
        Index("report_author_id_idx", "author_id"),
        CheckConstraint("status IN ('open', 'upheld', 'dismissed')", name="status"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    entry_id: UUID = Field(foreign_key="entry.id")
    comment_id: UUID | None = None
    member_id: UUID
    author_id: UUID
    reason: str
    text: str
    quote: str
    status: str = "open"
    decision: str | None = None
    created_at: datetime = Field(sa_column=instant())
    decided_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
