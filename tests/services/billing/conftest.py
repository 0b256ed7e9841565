"""The billing service on a fresh database, paid through the sandbox provider over loopback HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from services.billing.app import service
from tests.harness import Api, Run
from tests.services.billing.till import COUPON_KEY, WEBHOOK_SECRET, Till


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Any:
        """Leave the signals to pytest."""
        yield


@pytest.fixture
async def till(run: Run) -> AsyncIterator[Till]:
    """The service with its plans; the provider's webhooks reach it over HTTP, as through the gateway."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    options = {
        "stripe_webhook_secrets": (WEBHOOK_SECRET,),
        "coupon_keys": (COUPON_KEY,),
        "sandbox_webhook_url": f"{address}/v1/webhooks/stripe",
        "allowed_origins": ("https://h5.heika.test",),
    }
    async with run(service, seed=True, **options) as api:
        app = api.client._transport.app  # type: ignore[attr-defined]
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn tells its start by a flag only
            await asyncio.sleep(0.002)
        try:
            yield Till(api)
        finally:
            server.should_exit = True
            await serving
            listener.close()


@pytest.fixture
def api(till: Till) -> Api:
    """The same service, for what needs no payment."""
    return till.api
