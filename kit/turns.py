"""A pool whose connections go to whoever has waited longest: the library's lets newcomers take what was given back for others."""

import asyncio
from collections import deque
from typing import Any

from sqlalchemy import util
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util.queue import AsyncAdaptedQueue


class _InTurn(asyncio.LifoQueue[Any]):
    """A stack of what is free; while somebody waits, nothing is: it is handed over, and never lies there to be taken."""

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def put_nowait(self, item: Any) -> None:
        """Give to the first who waits, or lay down; QueueFull where there is no room."""
        if self.full() and not any(not waiter.done() for waiter in self._waiting):
            raise asyncio.QueueFull
        self._give(item)

    def _give(self, item: Any) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(item)
                return
        self._put(item)

    async def get(self) -> Any:
        """What was laid down last, or what is given next, in turn."""
        if not self.empty():
            return self.get_nowait()
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # It was given in the very moment in which it was given up; what came back since may have filled the stack.
                self._give(waiter.result())
            raise


class _Queue(AsyncAdaptedQueue[Any]):
    @util.memoized_property
    def _queue(self) -> asyncio.Queue[Any]:
        return _InTurn(self.maxsize)


class FairPool(AsyncAdaptedQueuePool):
    """The library's pool, first come, first served; what was used last is given first, as with `pool_use_lifo`."""

    _queue_class = _Queue
