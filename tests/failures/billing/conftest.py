"""Billing and members side by side, each on a database of its own."""

from collections.abc import AsyncIterator

import pytest

from services.members.app import service as members
from tests.failures.billing.world import World
from tests.harness import Run
from tests.services.billing.conftest import till
from tests.services.billing.till import Till

__all__ = ["till"]


@pytest.fixture
async def world(till: Till, run: Run) -> AsyncIterator[World]:
    """Both services; what they tell one another travels when the test says so."""
    async with run(members) as other:
        yield World(till, other)
