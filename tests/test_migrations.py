"""Models and migrations say the same, and migrations can be run again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from contracts.schemas import TELLERS
from kit.migrations import metadata_of, upgrade
from tests.harness import Stores


def _differences(connection: Connection, service: str) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata_of(service)))


@pytest.mark.parametrize("service", TELLERS)
async def test_the_migrated_database_is_what_the_models_declare(stores: Stores, service: str) -> None:
    name = f"drift_{service}"
    stores.postgres.ensure_database(name)
    url = stores.postgres.url(name)
    await upgrade(service, url)
    await upgrade(service, url)
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(_differences, service) == []
    finally:
        await engine.dispose()
    stores.postgres.drop_database(name)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def test_a_release_that_went_back_starts_on_the_tables_of_the_one_after_it(stores: Stores) -> None:
    stores.postgres.ensure_database("newer")
    url = stores.postgres.url("newer")
    await upgrade("members", url)
    async with _connected(url) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9000'"))
    await upgrade("members", url)
    async with _connected(url) as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9000"
        assert await connection.run_sync(_differences, "members") == []
    stores.postgres.drop_database("newer")
