"""Fixtures of the referrals tests."""

from collections.abc import AsyncIterator

import pytest

from services.referrals.app import service
from tests.harness import Api, Run

KEYS = ("first coupon key of the tests, long enough", "second coupon key of the tests, long enough")


@pytest.fixture
async def api(run: Run) -> AsyncIterator[Api]:
    """Referrals, with the sandbox's world."""
    async with run(service, seed=True, coupon_keys=KEYS, limits_mode="relaxed") as api:
        yield api
