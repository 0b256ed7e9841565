"""Fixtures of the referrals tests."""

from collections.abc import AsyncIterator

import pytest

from services.referrals.app import service
from tests.harness import Api, Run
from tests.services.referrals.hooks import Receiver, listening

KEYS = ("first coupon key of the tests, long enough", "second coupon key of the tests, long enough")


@pytest.fixture
async def api(run: Run) -> AsyncIterator[Api]:
    """Referrals, with the sandbox's world, allowed to call loopback."""
    options = {"coupon_keys": KEYS, "limits_mode": "relaxed", "webhook_allow": ("127.0.0.0/8",)}
    async with run(service, seed=True, **options) as api:
        yield api


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A partner's server."""
    async with listening() as receiver:
        yield receiver
