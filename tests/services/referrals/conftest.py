"""Fixtures of the referrals tests."""

from collections.abc import AsyncIterator

import pytest

from services.referrals import newcomers
from services.referrals.app import service
from tests.harness import Api, Run
from tests.services.referrals.hooks import Receiver, listening

KEYS = ("first coupon key of the tests, long enough", "second coupon key of the tests, long enough")


@pytest.fixture
async def api(run: Run, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """Referrals, with the sandbox's world, allowed to call loopback; here no news are on their way."""
    monkeypatch.setattr(newcomers, "WAITS_S", (0.01,))
    options = {"coupon_keys": KEYS, "limits_mode": "relaxed", "webhook_allow": ("127.0.0.0/8",)}
    async with run(service, seed=True, **options) as api:
        yield api


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A partner's server."""
    async with listening() as receiver:
        yield receiver
