"""One PostgreSQL database a service: the engine, the request's one transaction, the registry of its tables."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import asyncpg
import orjson
from fastapi import Depends, Request
from sqlalchemy import Column, DateTime, MetaData, make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import registry
from sqlmodel._compat import SQLModelConfig

from kit import audit
from kit.errors import DatabaseUnavailable
from kit.line import Line
from kit.pulse import pulse_of
from kit.tables import attach_kit_tables
from kit.turns import FairPool

CONNECT_TIMEOUT_S = 2.8
POOL_TIMEOUT_S = 18.0
"""For a crowd, which is served in turn; a database that is away is noticed long before."""
WRITERS = 2

NAMES = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}


UNCHECKED = SQLModelConfig(defer_build=True)
"""The `model_config` of tables: pydantic validates no rows, so a start need not wait until it could."""


def new_registry() -> registry:
    """A service's own registry, with kit's tables; SQLModel otherwise shares one metadata among all of them.

    Use: `class Model(SQLModel, registry=new_registry())` with `model_config = UNCHECKED`, once in each service.
    """
    metadata = MetaData(naming_convention=NAMES)
    attach_kit_tables(metadata)
    return registry(metadata=metadata)


def instant(**options: Any) -> Column[Any]:
    """A `timestamptz` column, not null unless told otherwise."""
    return Column(DateTime(timezone=True), **({"nullable": False} | options))


class Database:
    """The connections of one service to its database."""

    def __init__(self, url: str, *, name: str, pool_size: int = 10) -> None:
        self.url = url
        self.name = name
        self.pulse = pulse_of(make_url(url))
        self.engine = self._engine(pool_size, overflow=4)
        # Group commit has connections of its own: requests that wait for it may hold all the others.
        self.writers = self._engine(WRITERS, overflow=2)
        # What the background asks every second waits for no request, and no request for it.
        self.line = Line(self.guarded)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False, info={"service": name})

    def _engine(self, size: int, *, overflow: int) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=POOL_TIMEOUT_S,
            poolclass=FairPool,
            # Their values may be somebody's phone; an exception ends in the log.
            hide_parameters=True,
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "server_settings": {"application_name": f"heika-{self.name}", "timezone": "UTC"},
            },
        )
        return self.pulse.guard(engine)

    def session(self) -> AsyncSession:
        """A session for work outside a request: `async with db.session() as session, session.begin():`."""
        return self.sessions()

    async def connect(self, session: AsyncSession) -> AsyncConnection:
        """Take the session's connection now; DatabaseUnavailable when there is none to be had."""
        self.require()
        try:
            return await session.connection()
        except (OSError, PoolTimeout, asyncpg.PostgresError, asyncpg.InterfaceError) as failure:
            raise DatabaseUnavailable from failure

    def require(self) -> None:
        """Raise DatabaseUnavailable while the database is known to hang."""
        if self.pulse.stopped:
            raise DatabaseUnavailable

    async def raw(self) -> asyncpg.Connection:
        """A plain asyncpg connection outside the pool, for LISTEN and long-held advisory locks; the caller closes it."""
        url = self.engine.url
        options: dict[str, Any] = {"host": url.host or url.query.get("host"), "port": url.port}
        return await asyncpg.connect(
            user=url.username,
            password=url.password,
            database=url.database,
            timeout=CONNECT_TIMEOUT_S,
            **{key: value for key, value in options.items() if value},
        )

    async def guarded(self) -> asyncpg.Connection:
        """As `raw`, of a connection that is cut when the database hangs; while it is known to, DatabaseUnavailable."""
        self.require()
        connection = await self.raw()
        self.pulse.guard_line(connection)
        return connection

    async def close(self) -> None:
        """Give all connections back."""
        self.line.close()
        await self.engine.dispose()
        await self.writers.dispose()


async def fetch(connection: AsyncConnection, sql: str, *values: Any) -> list[asyncpg.Record]:
    """The rows of one statement, asked of the driver itself: of a hot one, SQLAlchemy's part is the larger.

    It belongs to the transaction that was begun on this connection; without one, it is a transaction by itself.
    """
    line = await _line_of(connection)
    if connection.in_transaction():
        if not line.is_in_transaction():  # SQLAlchemy begins with its first statement
            await connection.exec_driver_sql("SELECT 1")
    elif line.is_closed():
        # It was lost while nobody used it, as in a restart of the database.
        await connection.invalidate()
        line = await _line_of(connection)
    try:
        rows: list[asyncpg.Record] = await line.fetch(sql, *values)
    finally:
        if line.is_closed():
            await connection.invalidate()
    return rows


async def _line_of(connection: AsyncConnection) -> asyncpg.Connection:
    return (await connection.get_raw_connection()).driver_connection


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """The request's one transaction: committed after the endpoint, before its answer leaves; rolled back if it raises.

    An idempotent request (see kit.idempotency) brings its own session, which it commits together with the stored answer.
    """
    own: AsyncSession | None = request.scope.get("heika.session")
    if own is not None:
        own.info["scope"] = request.scope
        yield own
        return
    database: Database = request.app.state.runtime.db
    async with database.session() as session:
        session.info["scope"] = request.scope
        await database.connect(session)
        yield session
        await audit.complete(request, session)
        await session.commit()


SessionDep = Annotated[AsyncSession, Depends(open_session, scope="function")]
