"""Calls to the payment provider: turns in a crowd, retries, and a circuit that leaves a provider alone that is away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import stripe
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kit.ids import new_id
from services.billing.circuit import FAILURES, PAUSE, WINDOW
from services.billing.line import AT_ONCE, LONGEST_PAUSE_S, RETRIES, SHORTEST_PAUSE_S, Line
from services.billing.provider import PaymentProviderUnavailable, ProviderRefusal, provider_of
from services.billing.sandbox.provider import serving
from tests.harness import Clock
from tests.services.billing.till import Till


async def answer() -> int:
    return 1


async def fail() -> int:
    raise TimeoutError


async def decline() -> int:
    raise stripe.CardError("Your card was declined.", None, "card_declined")  # type: ignore[no-untyped-call]  # the SDK's


async def outcomes(line: Line, *calls: Callable[[], Any]) -> list[str]:
    """What becomes of calls, one after the other."""
    found = []
    for call in calls:
        try:
            found.append(str(await line.ask(call())))
        except (PaymentProviderUnavailable, ProviderRefusal) as failure:
            found.append(failure.code)
    return found


AWAY = "payment_provider_unavailable"


def gauge() -> float | None:
    return REGISTRY.get_sample_value("heika_provider_circuit_open")


async def test_a_crowd_of_calls_takes_turns() -> None:
    line = Line()
    under_way = most = 0

    async def call(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return number

    answers = await asyncio.gather(*(line.ask(call(number)) for number in range(100)))
    assert answers == list(range(100))
    assert most == AT_ONCE


async def test_who_waits_behind_calls_without_an_answer_is_told_at_once() -> None:
    line = Line()
    tried = 0

    async def call() -> None:
        nonlocal tried
        tried += 1
        await asyncio.sleep(0.05)
        raise TimeoutError

    answers = await asyncio.gather(*(line.ask(call()) for _ in range(100)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [PaymentProviderUnavailable] * 100
    assert tried == AT_ONCE
    with pytest.raises(PaymentProviderUnavailable) as refused:
        await line.ask(call())
    assert tried == AT_ONCE
    assert 1 <= int(refused.value.headers()["Retry-After"]) <= 10


async def test_a_provider_that_keeps_failing_is_left_alone_until_one_call_finds_it_back() -> None:
    line, clock = Line(), Clock()
    assert line.circuit.room(40) == 40
    assert await outcomes(line, *[fail] * FAILURES) == [AWAY] * FAILURES
    assert (line.circuit.room(40), gauge()) == (0, 1)
    # It is not asked: it would have answered.
    assert await outcomes(line, answer) == [AWAY]
    clock.advance(PAUSE)
    assert line.circuit.room(40) == 1
    assert await outcomes(line, fail, answer) == [AWAY, AWAY]
    clock.advance(PAUSE)
    assert await outcomes(line, answer, answer) == ["1", "1"]
    assert (line.circuit.room(40), gauge()) == (40, 0)


async def test_one_call_alone_finds_out_whether_it_is_back() -> None:
    line, clock = Line(), Clock()
    await outcomes(line, *[fail] * FAILURES)
    clock.advance(PAUSE)
    asked, go_on = 0, asyncio.Event()

    async def call() -> str:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return "back"

    crowd = [asyncio.create_task(line.ask(call())) for _ in range(10)]
    done, waiting = await asyncio.wait(crowd, timeout=0.05)
    assert (asked, len(done), len(waiting)) == (1, 9, 1)
    assert {type(task.exception()) for task in done} == {PaymentProviderUnavailable}
    # Whoever asked goes away: the next one finds out.
    (probe,) = waiting
    probe.cancel()
    await asyncio.wait(waiting)
    assert line.circuit.room(40) == 1
    go_on.set()
    assert await outcomes(line, call, call) == ["back", "back"]


async def test_a_declined_card_and_other_refusals_are_answers() -> None:
    line = Line()
    assert await outcomes(line, *[decline] * 20) == ["card_declined"] * 20
    assert line.circuit.room(40) == 40
    assert await outcomes(line, answer) == ["1"]


async def test_a_few_failures_among_many_answers_close_nothing() -> None:
    line, clock = Line(), Clock()
    await outcomes(line, *[answer, answer, fail] * 10)
    assert line.circuit.room(40) == 40
    for _ in range(3):
        clock.advance(WINDOW)
        await outcomes(line, *[fail] * (FAILURES - 1))
    assert await outcomes(line, answer) == ["1"]


class Grumpy:
    """A provider that answers some statuses before it answers a refund; and the pauses of those who ask."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.keys: list[str] = []
        self.headers: dict[str, str] = {}
        self.client: stripe.StripeClient

    async def reply(self, request: Request) -> Response:
        self.keys.append(request.headers["idempotency-key"])
        if self.statuses:
            return JSONResponse({"error": {"message": "no"}}, self.statuses.pop(0), self.headers)
        return JSONResponse({"id": "re_1", "object": "refund", "status": "succeeded"})


@pytest.fixture
async def grumpy() -> AsyncIterator[Grumpy]:
    found, line = Grumpy(), Line()
    async with serving(Starlette(routes=[Route("/v1/refunds", found.reply, methods=["POST"])])) as address:
        found.client = stripe.StripeClient(
            "sk_test_x", base_addresses={"api": address}, max_network_retries=RETRIES, http_client=line.http
        )
        yield found
        await line.http.close_async()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_call_is_repeated_with_its_key(grumpy: Grumpy, status: int) -> None:
    grumpy.statuses = [status] * RETRIES
    made = await grumpy.client.v1.refunds.create_async({"payment_intent": "pi_1"}, {"idempotency_key": "ours"})
    assert (made.id, grumpy.keys) == ("re_1", ["ours"] * (RETRIES + 1))


async def test_a_call_is_not_repeated_for_ever_nor_against_the_provider_s_word(grumpy: Grumpy) -> None:
    grumpy.statuses = [429] * 10
    with pytest.raises(stripe.RateLimitError):
        await grumpy.client.v1.refunds.create_async({"payment_intent": "pi_1"}, {"idempotency_key": "ours"})
    assert len(grumpy.keys) == RETRIES + 1
    grumpy.headers = {"Stripe-Should-Retry": "false"}
    with pytest.raises(stripe.RateLimitError):
        await grumpy.client.v1.refunds.create_async({"payment_intent": "pi_1"}, {"idempotency_key": "ours"})
    assert len(grumpy.keys) == RETRIES + 2


def test_repetitions_come_at_different_moments() -> None:
    pauses = [Line().http._sleep_time_seconds(1) for _ in range(50)]
    assert len(set(pauses)) > 40
    assert SHORTEST_PAUSE_S <= min(pauses) <= max(pauses) <= LONGEST_PAUSE_S


async def test_an_order_does_not_notice_two_failed_calls(till: Till) -> None:
    await till.break_calls("error", times=RETRIES)
    assert (await till.order(new_id())).status_code == 201
    assert await till.api.sql("SELECT count(*) FROM sandbox_session") == [(1,)]


async def test_due_work_waits_while_the_provider_is_left_alone_and_then_goes_on(till: Till) -> None:
    orders = [(await till.order(new_id())).json() for _ in range(3)]
    await till.lose_webhooks()
    for order in orders:
        await till.pay(order)
    provider = provider_of(till.api.rt)
    await outcomes(provider._line, *[fail] * FAILURES)
    till.api.clock.advance(timedelta(minutes=2))
    await outcomes(provider._line, fail)
    assert await till.api.run_due() == 0
    till.api.clock.advance(PAUSE)
    await till.api.run_due()
    assert await till.api.sql('SELECT status FROM "order"') == [("paid",)] * 3


async def test_two_events_of_one_payment_ask_the_provider_once(till: Till) -> None:
    def calls() -> float:
        return REGISTRY.get_sample_value("heika_provider_calls_total", {"outcome": "answered"}) or 0.0

    order = (await till.order(new_id())).json()
    before = calls()
    await till.pay(order)
    assert await till.api.sql("SELECT count(*) FROM provider_event WHERE outcome = 'applied'") == [(2,)]
    assert calls() - before == 1
