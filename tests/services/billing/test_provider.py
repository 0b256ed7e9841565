"""Calls to the payment provider: a crowd takes turns, and those behind a call that got no answer are not kept waiting."""

import asyncio

import pytest

from services.billing.provider import AT_ONCE, PaymentProviderUnavailable, provider_of
from tests.services.billing.till import Till


async def test_a_crowd_of_calls_takes_turns(till: Till) -> None:
    provider = provider_of(till.api.rt)
    under_way = most = 0

    async def call(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return number

    answers = await asyncio.gather(*(provider._ask(call(number)) for number in range(100)))
    assert answers == list(range(100))
    assert most == AT_ONCE


async def test_who_waits_behind_calls_without_an_answer_is_told_at_once(till: Till) -> None:
    provider = provider_of(till.api.rt)
    tried = 0

    async def call() -> None:
        nonlocal tried
        tried += 1
        await asyncio.sleep(0.05)
        raise TimeoutError

    answers = await asyncio.gather(*(provider._ask(call()) for _ in range(100)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [PaymentProviderUnavailable] * 100
    assert tried == AT_ONCE
    with pytest.raises(PaymentProviderUnavailable):
        await provider._ask(call())
    assert tried == AT_ONCE + 1
