"""Deadlines of all calls under way by one timer: a timer each would cost more than counting the call's limits does."""

import asyncio
from collections.abc import Callable
from typing import Final

LATE_S: Final = 0.05
"""How much later than its deadline a call may hear of it."""


class Deadlines:
    """What is to be done if a call has not been struck off by then."""

    def __init__(self) -> None:
        self._until: dict[Callable[[], None], float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self, expire: Callable[[], None], seconds: float) -> None:
        """Call `expire` in so many seconds."""
        loop = asyncio.get_running_loop()
        self._until[expire] = loop.time() + seconds
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(LATE_S, self._look)

    def strike(self, expire: Callable[[], None]) -> None:
        """This one is not to be called any more."""
        self._until.pop(expire, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for expire, until in self._until.items():
            if until <= now:
                # By itself: one that fails must not keep the others from theirs.
                loop.call_soon(self._expire, expire)
        if self._until:
            loop.call_later(LATE_S, self._look)
        else:
            self._loop = None

    def _expire(self, expire: Callable[[], None]) -> None:
        # It may have been struck off a moment ago.
        if self._until.pop(expire, None) is not None:
            expire()
