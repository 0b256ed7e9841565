"""The courses service, ready to be asked."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.courses.app import service
from tests.harness import Api, Run


@pytest.fixture
async def api(run: Run, tmp_path: Path) -> AsyncIterator[Api]:
    """Courses on an empty database."""
    async with run(service, data=tmp_path) as api:
        yield api


@pytest.fixture
async def seeded(run: Run, tmp_path: Path) -> AsyncIterator[Api]:
    """Courses with the sandbox's catalogue."""
    async with run(service, data=tmp_path, seed=True) as api:
        yield api
