"""The billing service on a fresh database, paid through the sandbox provider over loopback HTTP."""

from collections.abc import AsyncIterator

import pytest

from services.billing.app import service
from services.billing.line import HTTPClient
from services.billing.sandbox.provider import serving
from services.members.app import service as members
from tests.harness import Api, Run
from tests.services.billing.renewing import World
from tests.services.billing.till import COUPON_KEY, WEBHOOK_SECRET, Till


@pytest.fixture
async def till(run: Run, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Till]:
    """The service with its plans; the provider's webhooks reach it over HTTP, as through the gateway."""
    # How long a call that failed waits before it is made again is a test's of its own.
    monkeypatch.setattr(HTTPClient, "_sleep_time_seconds", lambda *_: 0.0)
    options = {
        "stripe_webhook_secrets": (WEBHOOK_SECRET,),
        "coupon_keys": (COUPON_KEY,),
        "allowed_origins": ("https://h5.heika.test",),
    }
    async with (
        run(service, seed=True, **options) as api,
        serving(api.client._transport.app) as address,  # type: ignore[attr-defined]
    ):
        api.rt.settings.sandbox_webhook_url = f"{address}/v1/webhooks/stripe"
        # What the provider keeps and pays out is booked at night; tests of that let the nights come.
        await api.sql("INSERT INTO provider_balance (id, booked_until, next_at) VALUES (1, now(), '9000-01-01')")
        # The seeded plans were told of before any test began.
        await api.emitted()
        yield Till(api)


@pytest.fixture
def api(till: Till) -> Api:
    """The same service, for what needs no payment."""
    return till.api


@pytest.fixture
async def world(till: Till, run: Run) -> AsyncIterator[World]:
    """The same service beside members, for what goes through both."""
    async with run(members, limits_mode="relaxed") as people:
        yield World(till, people)
