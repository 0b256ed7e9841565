"""Alembic for many services: each has its own folder and history; kit's tables are made by numbered functions here."""

import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from alembic import command, context, op
from alembic.config import Config
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from kit.db import NAMES
from kit.tables import Xid8

log = structlog.get_logger(__name__)

SCRIPTS = Path(__file__).resolve().parent.parent / "services"
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "15min"


def config_of(service: str, connection: Connection | None = None) -> Config:
    """Alembic's configuration for one service."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).resolve().parent / "alembic"))
    config.set_main_option("version_locations", str(SCRIPTS / service / "migrations" / "versions"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["service"] = service
    return config


def metadata_of(service: str) -> sa.MetaData:
    """The tables a service declares."""
    # The app, for a service may keep tables beside its models.
    return import_module(f"services.{service}.app").service.metadata  # type: ignore[no-any-return]


def run_env() -> None:
    """What alembic/env.py calls: run on the given connection, with limits, under an advisory lock."""
    config = context.config
    connection: Connection = config.attributes["connection"]
    context.configure(
        connection=connection,
        # For its names alone: what a migration does is in it, and the service need not be imported to run it.
        target_metadata=sa.MetaData(naming_convention=NAMES),
        transaction_per_migration=True,
    )
    # Held by the session, so that it spans every migration's own transaction and goes with the connection.
    connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": zlib.crc32(b"heika migrations")})
    connection.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(sa.text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    newest = context.script.get_current_head() or ""
    newer = [found for found in context.get_context().get_current_heads() if found > newest]
    connection.commit()
    if newer:
        # A release that went back: what the one after it added does not disturb, and is no reason not to start.
        log.warning(
            "database is newer than this release, left as it is",
            service=config.attributes["service"],
            database=newer[0],
            release=newest,
        )
        return
    with context.begin_transaction():
        context.run_migrations()


async def upgrade(service: str, url: str, revision: str = "head") -> None:
    """Bring a service's database to a revision; two processes that start at once do it one after the other."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: command.upgrade(config_of(service, sync), revision))
            await connection.commit()
    finally:
        await engine.dispose()


def create_kit_tables_1() -> None:
    """Kit's tables, version 1."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("xid", Xid8(), nullable=False, server_default=sa.text("pg_current_xact_id()")),
        sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("request_id", sa.String),
        sa.Column("traceparent", sa.String),
        _instant("written_at", server_default=sa.text("clock_timestamp()")),
        _instant("published_at", nullable=True),
    )
    op.create_index("outbox_unpublished", "outbox", ["xid", "id"], postgresql_where=sa.text("published_at IS NULL"))
    op.create_index(
        "outbox_published", "outbox", ["published_at"], postgresql_where=sa.text("published_at IS NOT NULL")
    )
    op.create_table(
        "relay_state", sa.Column("id", sa.SmallInteger, primary_key=True), sa.Column("epoch", sa.String, nullable=False)
    )
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.Uuid, primary_key=True),
        _instant("handled_at", server_default=sa.text("clock_timestamp()")),
    )
    op.create_table(
        "event_failure",
        sa.Column("event_id", sa.Uuid, primary_key=True),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("request_id", sa.String),
        sa.Column("traceparent", sa.String),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        _instant("failed_at"),
        _instant("next_attempt_at", nullable=True),
    )
    op.create_index(
        "event_failure_due",
        "event_failure",
        ["next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("scope", sa.LargeBinary, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        _instant("created_at", index=True),
    )
    op.create_table(
        "sandbox_clock",
        sa.Column("id", sa.SmallInteger, primary_key=True),
        sa.Column("offset_s", sa.Float, nullable=False),
    )


def drop_kit_tables_1() -> None:
    """Undo `create_kit_tables_1`."""
    for table in ("sandbox_clock", "idempotency_key", "event_failure", "inbox", "relay_state", "outbox"):
        op.drop_table(table)


def _instant(name: str, **options: Any) -> "sa.Column[Any]":
    return sa.Column(name, sa.DateTime(timezone=True), **({"nullable": False} | options))
