"""The line to the payment provider: turns in a crowd, time limits, retries with jitter, and a circuit that opens."""

import asyncio
import random
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import httpx
import stripe
import structlog
from prometheus_client import Counter

from kit.errors import Unavailable
from services.billing.circuit import CallFailed, Circuit, CircuitOpen

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

CALL_S = 3.0
CONNECT_S = 1.5
DEADLINE_S = 8.0
"""For one call with its retries."""
RETRIES = 2
SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 0.5
AT_ONCE = 16
"""Calls under way at once; the others wait their turn, so that a crowd does not run into the time limit of each call."""
TURN_S = 20.0
TOO_MANY = 429

CALLS = Counter("heika_provider_calls_total", "Calls to the payment provider", ["outcome"])


class PaymentProviderUnavailable(Unavailable):
    """The payment provider does not answer at the moment; nothing is lost. Try again after Retry-After."""

    zh = "支付渠道暂时没有应答，订单没有变化。请按 Retry-After 稍后再试。"


class ProviderRefusal(Exception):
    """The provider understood and said no; `code` is its word for it, its cause the SDK's error."""

    def __init__(self, code: str | None) -> None:
        super().__init__(code)
        self.code = code or "refused"


class HTTPClient(stripe.HTTPXClient):
    """The SDK's HTTP client, whose retries come at different moments, also after 429.

    The SDK sends every POST with an idempotency key, so that a repeated one is done once.
    """

    def _sleep_time_seconds(self, num_retries: int) -> float:
        return random.uniform(SHORTEST_PAUSE_S, LONGEST_PAUSE_S * 2 ** (num_retries - 1))  # noqa: S311 - spreads load

    def _should_retry(
        self,
        response: tuple[Any, int, Mapping[str, str] | None] | None,
        api_connection_error: stripe.APIConnectionError | None,
        num_retries: int,
        max_network_retries: int | None,
    ) -> bool:
        if response is not None and response[1] == TOO_MANY and num_retries < (max_network_retries or 0):
            return (response[2] or {}).get("stripe-should-retry") != "false"
        return bool(super()._should_retry(response, api_connection_error, num_retries, max_network_retries))


class Line:
    """What every call to the provider goes through."""

    def __init__(self) -> None:
        self.circuit = Circuit()
        self.http = HTTPClient(timeout=httpx.Timeout(CALL_S, connect=CONNECT_S))
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer; ProviderRefusal when it is no, PaymentProviderUnavailable when the outcome is unknown."""
        try:
            # A crowd behind an open circuit is not let into the queue, and one in the queue does not wait for nothing.
            self.circuit.check()
            async with asyncio.timeout(TURN_S):
                await self._turns.acquire()
        except TimeoutError as failure:
            call.close()
            raise PaymentProviderUnavailable(retry_after=3) from failure
        except CircuitOpen as away:
            call.close()
            raise _unavailable(away) from away
        try:
            with self.circuit.passage():
                answer = await self._call(call)
        except CircuitOpen as away:
            call.close()
            raise _unavailable(away) from away
        except CallFailed as failure:
            CALLS.labels("failed").inc()
            raise PaymentProviderUnavailable(retry_after=3) from failure
        except ProviderRefusal:
            CALLS.labels("refused").inc()
            raise
        finally:
            self._turns.release()
        CALLS.labels("answered").inc()
        return answer

    async def _call(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await call
        except (stripe.InvalidRequestError, stripe.CardError) as refusal:
            # A declined card is an answer: the provider is well.
            raise ProviderRefusal(refusal.code) from refusal
        except stripe.IdempotencyError as failure:
            # It was asked before, in other words: it answers, but what came of the first time stays unknown.
            log.exception("payment provider was asked something else with this key")
            raise PaymentProviderUnavailable(retry_after=5) from failure
        except (stripe.StripeError, TimeoutError) as failure:
            log.warning("payment provider away", error=type(failure).__name__, detail=str(failure)[:300])
            raise CallFailed from failure


def _unavailable(away: CircuitOpen) -> PaymentProviderUnavailable:
    CALLS.labels("not_made").inc()
    return PaymentProviderUnavailable(retry_after=away.retry_after)
