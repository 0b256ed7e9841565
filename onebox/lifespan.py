"""The life of an ASGI app, driven from outside: started together with others, each in a task of its own."""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message

from onebox.trouble import Trouble

PATIENCE_S = 8.0


class DidNotStart(Trouble):
    """A service refused to start."""


class Life:
    """One app's lifespan (ASGI Lifespan Protocol 2.0); entered and left in the same task, as its contexts require."""

    def __init__(self, name: str, app: ASGIApp) -> None:
        self.name = name
        self._app = app
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the app has started; DidNotStart says why it has not."""
        scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.create_task(self._live(scope), name=f"life of {self.name}")
        await self._orders.put({"type": "lifespan.startup"})
        answer = await self._answers.get()
        if answer["type"] != "lifespan.startup.complete":
            reason = (answer.get("message") or "?").strip().splitlines()[-1]
            raise DidNotStart(f"{self.name} did not start: {reason}", f"服务 {self.name} 启动失败:{reason}")

    async def stop(self) -> None:
        """Return when the app has ended, or has been given up."""
        if self._task is None:
            return
        await self._orders.put({"type": "lifespan.shutdown"})
        _, late = await asyncio.wait([self._task], timeout=PATIENCE_S)
        if late:
            # The stores are stopped next and everything committed is safe: nothing is worth waiting for longer.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)

    async def _live(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._orders.get, self._answers.put)
        except Exception as error:  # noqa: BLE001 - whatever an app dies of is its answer
            await self._answers.put({"type": "failed", "message": f"{type(error).__name__}: {error}"})
