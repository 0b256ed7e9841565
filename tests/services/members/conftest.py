"""The members service on a fresh database, and the steps that many of its tests begin with."""

from collections.abc import AsyncIterator

import pytest

from services.members.app import service
from tests.harness import Api, Run


@pytest.fixture
async def api(run: Run) -> AsyncIterator[Api]:
    """The service, with nothing limited by address."""
    async with run(service) as api:
        yield api
