"""The tables of a contest's integrity: which rules took votes out, and what its result was counted from."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.showcase.models import Model


class QuarantineRun(Model, table=True):
    """A rule that was run over a contest's votes: how many it took out, or put back."""

    __tablename__ = "quarantine_run"
    __table_args__ = (Index("quarantine_run_contest_id_idx", "contest_id", "id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    contest_id: UUID = Field(foreign_key="contest.id")
    rule: str
    params: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB))
    votes: int
    entries: int
    at: datetime = Field(sa_column=instant())


class Settlement(Model, table=True):
    """What a contest's result was counted from, written with it: enough to count again and compare."""

    __tablename__ = "settlement"

    contest_id: UUID = Field(primary_key=True, foreign_key="contest.id")
    settled_at: datetime = Field(sa_column=instant())
    tie_chain: list[str] = Field(sa_column=Column(JSONB, nullable=False))
    votes: int
    voters: int
    counted: int
    removed: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    digest: str
