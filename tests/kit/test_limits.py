"""Limits: exact over any window, by the product's clock, and still there when Redis is not."""

import asyncio
import os
import signal
import time
from datetime import timedelta

import pytest

from kit import limits
from kit.errors import TooManyRequests
from kit.limits import take
from tests.harness import Api, Stores


async def taken(api: Api, key: str, times: int) -> bool:
    """Whether one more of so many in ten seconds was to be had."""
    try:
        await take(api.rt.redis, key, times=times, seconds=10)
    except TooManyRequests:
        return False
    return True


async def test_no_window_holds_more_than_the_limit(api: Api) -> None:
    got = []
    for _ in range(30):
        got.append(await taken(api, "k", 5))
        api.clock.advance(timedelta(seconds=1))
    for start in range(20):
        assert sum(got[start : start + 10]) <= 5
    assert sum(got) == 15


async def test_fifty_at_once_get_exactly_the_limit(api: Api) -> None:
    got = await asyncio.gather(*(taken(api, "crowd", 7) for _ in range(50)))
    assert sum(got) == 7


async def test_the_refusal_says_when_to_come_back(api: Api) -> None:
    await take(api.rt.redis, "k", times=1, seconds=10)
    api.clock.advance(timedelta(seconds=4))
    with pytest.raises(TooManyRequests) as refused:
        await take(api.rt.redis, "k", times=1, seconds=10)
    assert 5 < (refused.value.retry_after or 0) <= 6.1


async def test_a_use_given_back_may_be_used_again(api: Api) -> None:
    use = await take(api.rt.redis, "k", times=1, seconds=10)
    await use.give_back()
    assert await taken(api, "k", 1)
    assert not await taken(api, "k", 1)


async def test_looking_uses_nothing_and_sees_when_nothing_is_left(api: Api) -> None:
    looks = [await take(api.rt.redis, "k", times=1, seconds=10, only_look=True) for _ in range(5)]
    assert await taken(api, "k", 1)
    await looks[-1].give_back()
    with pytest.raises(TooManyRequests):
        await take(api.rt.redis, "k", times=1, seconds=10, only_look=True)
    assert not await taken(api, "k", 1)
    api.clock.advance(timedelta(seconds=10))
    await take(api.rt.redis, "k", times=1, seconds=10, only_look=True)


async def test_without_redis_the_process_counts_by_itself(api: Api, stores: Stores) -> None:
    stores.valkey.stop()
    try:
        await api.rt.redis.connection_pool.disconnect()
        assert [await taken(api, "local", 3) for _ in range(5)] == [True, True, True, False, False]
        api.clock.advance(timedelta(seconds=11))
        assert await taken(api, "local", 3)
    finally:
        stores.valkey.start()


async def test_a_redis_that_hangs_holds_nobody_up_but_who_asks_first(api: Api, stores: Stores) -> None:
    pid = stores.valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await taken(api, "hung", 5)
        started = time.monotonic()
        assert [await taken(api, "hung", 5) for _ in range(6)] == [True, True, True, True, False, False]
        assert time.monotonic() - started < 0.5
    finally:
        os.kill(pid, signal.SIGCONT)
    # Asked again after a while, and counted there from then on.
    while limits._redis_away_until is not None:
        await asyncio.sleep(0.1)
        await taken(api, "probe", 1000)
    assert [await taken(api, "hung", 2) for _ in range(3)] == [True, True, False]
