"""The tables kit keeps in every service's database: outbox, inbox, failures, idempotency keys, the sandbox clock."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id, which orders the outbox by commit."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in SQL."""
        return "xid8"


# So that a look at a database, for drift, recognises the column.
ischema_names["xid8"] = Xid8


def attach_kit_tables(metadata: MetaData) -> None:
    """Add kit's tables to a service's metadata, so that drift checks see them."""
    outbox = Table(
        "outbox",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
        Column("event_id", Uuid, nullable=False, unique=True),
        Column("type", String, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("body", JSONB, nullable=False),
        Column("request_id", String),
        Column("traceparent", String),
        Column("written_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
        Column("published_at", DateTime(timezone=True)),
    )
    Index("outbox_unpublished", outbox.c.xid, outbox.c.id, postgresql_where=outbox.c.published_at.is_(None))
    Index("outbox_published", outbox.c.published_at, postgresql_where=outbox.c.published_at.is_not(None))
    Table(
        "relay_state",
        metadata,
        Column("id", SmallInteger, primary_key=True),
        Column("epoch", String, nullable=False),
    )
    Table(
        "inbox",
        metadata,
        Column("event_id", Uuid, primary_key=True),
        Column("handled_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    )
    failure = Table(
        "event_failure",
        metadata,
        Column("event_id", Uuid, primary_key=True),
        Column("type", String, nullable=False),
        Column("body", JSONB, nullable=False),
        Column("request_id", String),
        Column("traceparent", String),
        Column("attempts", Integer, nullable=False),
        Column("error", Text, nullable=False),
        Column("failed_at", DateTime(timezone=True), nullable=False),
        Column("next_attempt_at", DateTime(timezone=True)),
    )
    Index("event_failure_due", failure.c.next_attempt_at, postgresql_where=failure.c.next_attempt_at.is_not(None))
    Table(
        "idempotency_key",
        metadata,
        Column("scope", LargeBinary, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("status", SmallInteger, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, index=True),
    )
    Table(
        "sandbox_clock",
        metadata,
        Column("id", SmallInteger, primary_key=True),
        Column("offset_s", Float, nullable=False),
    )
