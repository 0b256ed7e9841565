"""Connections in turn: nobody who waits is overtaken, and none is lost with one who gives up."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from kit.turns import FairPool, _InTurn
from tests.harness import Run
from tests.kit.conftest import service


async def test_a_connection_given_back_goes_to_who_waited_longest_and_not_to_a_newcomer(run: Run) -> None:
    async with run(service) as api:
        engine = create_async_engine(api.rt.db.url, poolclass=FairPool, pool_size=1, max_overflow=0, pool_timeout=5)
        served: list[str] = []

        async def ask(name: str) -> AsyncConnection:
            connection = await engine.connect()
            served.append(name)
            return connection

        first = await ask("first")
        waiting = [asyncio.create_task(ask(name)) for name in ("second", "third", "gives up", "fourth")]
        await asyncio.sleep(0.05)
        for task in waiting:
            # A newcomer who asks in the same moment stands behind all who wait.
            newcomer = asyncio.create_task(ask("newcomer"))
            await first.close()
            if task is waiting[2]:
                # What was handed to them goes on to the next.
                task.cancel()
                newcomer.cancel()
                continue
            first = await asyncio.wait_for(task, 2)
            newcomer.cancel()
            await asyncio.gather(newcomer, return_exceptions=True)
            assert (await first.execute(text("SELECT 1"))).scalar_one() == 1
        assert served == ["first", "second", "third", "fourth"]

        engine.pool._timeout = 0.05  # type: ignore[attr-defined]
        with pytest.raises(PoolTimeout):
            await engine.connect()
        await first.close()
        async with engine.connect() as again:
            assert (await again.execute(text("SELECT 2"))).scalar_one() == 2
        await engine.dispose()


async def test_what_was_given_up_is_there_again_also_where_the_stack_is_full() -> None:
    stack = _InTurn(1)
    gives_up = asyncio.create_task(stack.get())
    await asyncio.sleep(0)
    stack.put_nowait("handed over")
    stack.put_nowait("laid down")
    with pytest.raises(asyncio.QueueFull):
        stack.put_nowait("too much")
    gives_up.cancel()
    await asyncio.gather(gives_up, return_exceptions=True)
    assert {stack.get_nowait(), stack.get_nowait()} == {"handed over", "laid down"}
