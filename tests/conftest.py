"""Fixtures of every test: the embedded stores, once a worker, and a service run on a copy of its database."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import redis

from onebox.stores import Postgres, Valkey
from tests import harness


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Stores]:
    """PostgreSQL and Valkey of this worker."""
    folder: Path = tmp_path_factory.mktemp("stores")
    postgres, valkey = Postgres(folder / "postgres", durable=False), Valkey(folder / "valkey", durable=False)
    postgres.start()
    valkey.start()
    yield harness.Stores(postgres, valkey)
    valkey.stop()
    postgres.stop()


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    harness.forget()
    yield
    harness.forget()


@pytest.fixture
def run(stores: harness.Stores) -> Callable[..., AbstractAsyncContextManager[harness.Api]]:
    """Start a service on its own database, with an empty Redis; an async context manager that yields its Api."""
    with redis.Redis.from_url(stores.valkey.url) as client:
        client.flushall()
    return partial(harness.running, stores)
