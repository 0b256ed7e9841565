"""Models and migrations say the same, and migrations can be run again."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

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
