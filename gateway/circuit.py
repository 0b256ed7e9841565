"""A circuit for each upstream in another process: while it answers nothing, its callers hear so at once."""

import asyncio
from collections.abc import Awaitable
from typing import Final

import structlog
from prometheus_client import Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.calls import NoAnswer, ask
from gateway.problems import UpstreamUnavailable

log = structlog.get_logger(__name__)

PATIENCE_S: Final = 3.0
"""How long a service may answer nobody before it is asked whether it lives, and how long that question may take."""
TRIAL_S: Final = 0.5
"""How long the same question may take while the circuit is open."""

OPEN: Final = Gauge("heika_upstream_open", "1 while the circuit to this upstream is open", ["upstream"])


class Circuit:
    """Closed, every request passes; open, each that comes shares one question to `/healthz`, and an answer closes it.

    It opens when a request got no answer and `/healthz` gives none either: a slow route cannot open it, and nobody waits
    for a timer when the service is back.
    """

    def __init__(self, name: str, upstream: ASGIApp) -> None:
        self.name = name
        self.upstream = upstream
        self.open = False
        self._asking: asyncio.Task[bool] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._under_way = 0
        self._answers = 0
        OPEN.labels(name).set(0)

    async def close(self) -> None:
        """Give up the upstream's connections, and the question under way."""
        if self._asking is not None:
            self._asking.cancel()
        if self._watch is not None:
            self._watch.cancel()
        await self.upstream.close()  # type: ignore[attr-defined]  # circuits are for upstreams that hold connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on; UpstreamUnavailable at once while the service answers nothing."""
        if self.open and not await asyncio.shield(self._ask()):
            raise UpstreamUnavailable(retry_after=1)
        self._under_way += 1
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(PATIENCE_S, self._look, self._answers)
        answered = False

        def heard(message: Message) -> Awaitable[None]:
            nonlocal answered
            if not answered:
                answered = True
                self._answers += 1
            return send(message)

        try:
            await self.upstream(scope, receive, heard)
        finally:
            self._under_way -= 1
            if not answered:
                self._ask()

    def _look(self, answers: int) -> None:
        """Ask whether it lives when it has answered nobody for so long; one timer, whatever the number of requests."""
        self._watch = None
        if self._under_way:
            if self._answers == answers:
                self._ask()
            self._watch = asyncio.get_running_loop().call_later(PATIENCE_S, self._look, self._answers)

    def _ask(self) -> asyncio.Task[bool]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._lives(), name=f"circuit of {self.name}")
        return self._asking

    async def _lives(self) -> bool:
        answers = self._answers
        try:
            await ask(self.upstream, "GET", "/healthz", seconds=TRIAL_S if self.open else PATIENCE_S)
        except NoAnswer:
            # A busy service that answers others meanwhile is not a dead one.
            lives = self._answers > answers
        else:
            lives = True
        if self.open is lives:
            log.warning("a circuit closes" if lives else "a circuit opens", upstream=self.name)
            self.open = not lives
            OPEN.labels(self.name).set(int(self.open))
        return lives
