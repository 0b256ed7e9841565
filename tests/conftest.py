"""Fixtures of every test: the embedded stores, once a worker, and a service run on a copy of its database."""

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from kit import garbage
from onebox.stores import Postgres, Valkey
from tests import harness

SLOW = ("journeys", "onebox", "clients", "gateway/test_docs_page.py", "gateway/test_fuzz.py", "gateway/test_browser.py")

# How fast examples come says how busy the machine is, not whether the product is right.
settings.register_profile("heika", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("heika")


def pytest_sessionstart() -> None:
    """Look for no garbage among what is only being imported."""
    gc.disable()


def pytest_collection_finish() -> None:
    """As a server after its start: what was imported is looked through no more."""
    garbage.settle()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole Heikas and browsers first: they take longest, and no worker should be left with them at the end."""
    slow = [Path(__file__).parent / name for name in SLOW]
    items.sort(key=lambda item: not any(item.path.is_relative_to(path) for path in slow))


@pytest.fixture(scope="session")
def stores() -> Iterator[harness.Stores]:
    """PostgreSQL and Valkey of this worker."""
    for left in harness.place().glob("heika-tests-*"):
        # A worker that was killed could not remove its own.
        if not psutil.pid_exists(int(left.name.rpartition("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    folder = harness.new_folder()
    postgres, valkey = Postgres(folder / "postgres", durable=False), Valkey(folder / "valkey", durable=False)
    postgres.start()
    valkey.start()
    stores = harness.Stores(postgres, valkey)
    yield stores
    stores.close()
    valkey.stop()
    postgres.stop()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    harness.forget()
    yield
    harness.forget()


@pytest.fixture
def run(stores: harness.Stores) -> Callable[..., AbstractAsyncContextManager[harness.Api]]:
    """Start a service on its own database, with an empty Redis; an async context manager that yields its Api."""
    stores.redis.flushall()
    return partial(harness.running, stores)
