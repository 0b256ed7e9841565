"""What everybody sees alike: asked of its service once a second at most, and seldom waited for (RFC 5861 3)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.types import ASGIApp

from gateway.calls import NoAnswer, ask
from gateway.inbound import Inbound
from kit import clock

FRESH_S: Final = 1.0
"""How long a part is shown without asking again."""
STALE_S: Final = 3.0
"""How old a part may get that is shown while it is asked for again; less than answers with it may be kept by anybody."""
RENEWED_S: Final = 2.0
"""How old a part gets that nobody asks for, as long as somebody did in the last minute: whoever comes next need not wait."""
WANTED_S: Final = 60.0
PART_S: Final = 2.0
"""How long a part may take; below the 3 s that a stopped service may cost the whole."""

Question = Callable[[], Awaitable[Any]]


class Missing(Exception):
    """A service gave no good answer for a part."""


class PublicParts:
    """Parts by name, kept for a moment; a change through this gateway by an admin or the sandbox drops them all."""

    def __init__(self, upstreams: Mapping[str, ASGIApp]) -> None:
        self._upstreams = upstreams
        self._asking: dict[str, asyncio.Task[orjson.Fragment]] = {}
        self._before: dict[str, asyncio.Task[orjson.Fragment]] = {}
        self._wanted: dict[str, tuple[float, Question]] = {}
        self._offset = timedelta()

    def forget(self) -> None:
        """Ask anew for whoever comes from now on; questions under way were put before the change."""
        self._asking = {}
        self._before = {}

    async def get(self, name: str, question: Question) -> orjson.Fragment:
        """The part as ready JSON; Missing when its service gave no good answer, a moment ago or now."""
        if clock.offset() != self._offset:
            self._offset = clock.offset()
            self.forget()
        self._wanted[name] = asyncio.get_running_loop().time() + WANTED_S, question
        task = self._asking.get(name) or self._start(name, question)
        if not task.done() and (before := self._before.get(name)) is not None:
            return before.result()
        # Whoever leaves must not take the answer from the others.
        return await asyncio.shield(task)

    async def one(self, service: str, target: str, inbound: Inbound) -> Any:
        """A service's answer to anybody; None when there is nothing, Missing when it gave no good answer."""
        try:
            answer = await ask(
                self._upstreams[service], "GET", target, seconds=PART_S, inbound=inbound, as_caller=False
            )
            if answer.status == HTTPStatus.OK:
                return answer.json()
        except (NoAnswer, ValueError) as failure:
            raise Missing from failure
        if answer.status != HTTPStatus.NOT_FOUND:
            raise Missing
        return None

    async def items(self, service: str, target: str, inbound: Inbound) -> list[Any]:
        """The items of a public list."""
        found = await self.one(service, target, inbound)
        items: list[Any] = found.get("items", []) if isinstance(found, dict) else []
        return items

    def _start(self, name: str, question: Question) -> asyncio.Task[orjson.Fragment]:
        task = self._asking[name] = asyncio.create_task(self._ask(question), name=f"public part {name}")
        task.add_done_callback(lambda done: self._keep(name, done))
        return task

    async def _ask(self, question: Question) -> orjson.Fragment:
        try:
            async with asyncio.timeout(PART_S):
                return orjson.Fragment(orjson.dumps(await question()))
        except TimeoutError as late:
            raise Missing from late

    def _keep(self, name: str, task: asyncio.Task[orjson.Fragment]) -> None:
        if not task.cancelled():
            task.exception()  # whoever asked has seen it
        if self._asking.get(name) is task:
            self._before.pop(name, None)
            asyncio.get_running_loop().call_later(FRESH_S, self._grow_old, name, task)

    def _grow_old(self, name: str, task: asyncio.Task[orjson.Fragment]) -> None:
        if self._asking.get(name) is task:
            del self._asking[name]
            if not task.cancelled() and task.exception() is None:
                self._before[name] = task
                asyncio.get_running_loop().call_later(RENEWED_S - FRESH_S, self._renew, name, task)
                asyncio.get_running_loop().call_later(STALE_S - FRESH_S, self._drop, name, task)

    def _renew(self, name: str, task: asyncio.Task[orjson.Fragment]) -> None:
        wanted_until, question = self._wanted[name]
        unasked = self._before.get(name) is task and name not in self._asking
        if unasked and asyncio.get_running_loop().time() < wanted_until:
            self._start(name, question)

    def _drop(self, name: str, task: asyncio.Task[orjson.Fragment]) -> None:
        if self._before.get(name) is task:
            del self._before[name]
