"""The limits that all gateways share: levels in Redis, moved by one script in one round trip for all who wait."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger(__name__)

TAKE_SECONDS: Final = 0.25
"""How long a request waits for Redis before its limits are judged in this process."""
RETRY_SECONDS: Final = 2.0
"""How long Redis is not asked after it gave no answer."""
MAX_TAKES: Final = 200
MICRO: Final = 1_000_000

# The generic cell rate algorithm (ITU-T I.371) on Redis' own clock, in microseconds: one number a key, the instant at which
# its bucket is full again. A take is all or nothing; what is only told has been let through already.
_MOVE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answers = {}
for _, take in ipairs(cjson.decode(ARGV[1])) do
  local wait, levels = 0, {}
  for i = 2, #take do
    local key, cost, burst = KEYS[take[i][1]], take[i][2], take[i][3]
    local full = math.max(tonumber(redis.call('GET', key) or 0), now) + cost
    wait = math.max(wait, full - now - burst)
    levels[i] = full
  end
  if take[1] == 0 then wait = 0 end
  answers[#answers + 1] = wait
  for i = 2, #take do
    local key, full = KEYS[take[i][1]], levels[i]
    if wait > 0 then
      full = full - take[i][2]
    else
      redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
    end
    answers[#answers + 1] = full - now
  end
end
return answers
"""


@dataclass(frozen=True, slots=True)
class Move:
    """One bucket's part in a take; all in seconds: what it costs, and how much the bucket may owe."""

    key: str
    cost: float
    burst: float


@dataclass(slots=True)
class Take:
    """What is taken from some buckets at once, or only `told`; answered with the wait and what each bucket owes then."""

    moves: Sequence[Move]
    told: bool = False
    answer: "asyncio.Future[tuple[float, list[float]] | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Shared:
    """Buckets in Redis. Whoever comes while a round trip is under way goes along with the next."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None
        self._waiting: list[Take] = []
        self._going: asyncio.Task[None] | None = None
        self._away_until = 0.0
        self.trips = 0

    async def ask(self, take: Take) -> tuple[float, list[float]] | None:
        """Seconds to wait (0: taken) and what each bucket owes now; None while Redis is away."""
        if time.monotonic() < self._away_until:
            return None
        self._waiting.append(take)
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go(), name="shared limits")
        return await take.answer

    async def close(self) -> None:
        """Let go of the connection."""
        if self._going is not None:
            self._going.cancel()
        if self._redis is not None:
            await self._redis.aclose()

    async def _go(self) -> None:
        while self._waiting:
            takes, self._waiting = self._waiting[:MAX_TAKES], self._waiting[MAX_TAKES:]
            try:
                async with asyncio.timeout(TAKE_SECONDS):
                    found = iter(await self._move(takes))
            except Exception as failure:  # noqa: BLE001 - whatever Redis' trouble is, requests go on without it
                log.warning("the gateway's limits are local: Redis is away", error=type(failure).__name__)
                self._away_until = time.monotonic() + RETRY_SECONDS
                for take in (*takes, *self._waiting):
                    _tell(take, None)
                self._waiting.clear()
                return
            for take in takes:
                wait = next(found) / MICRO
                _tell(take, (wait, [next(found) / MICRO for _ in take.moves]))

    async def _move(self, takes: Sequence[Take]) -> list[int]:
        keys: dict[str, int] = {}
        asked = [
            [
                int(not take.told),
                *(
                    [keys.setdefault(move.key, len(keys) + 1), round(move.cost * MICRO), round(move.burst * MICRO)]
                    for move in take.moves
                ),
            ]
            for take in takes
        ]
        self.trips += 1
        answers: list[int] = await self._client()(keys=list(keys), args=[orjson.dumps(asked)])
        return answers

    def _client(self) -> Any:
        if self._redis is None:
            # A gateway without traffic on the strict classes needs none of it, and starts sooner.
            from redis.asyncio import Redis  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415

            self._redis = Redis.from_url(
                self._url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=TAKE_SECONDS, health_check_interval=0
            )
            self._script = self._redis.register_script(_MOVE)
        return self._script


def _tell(take: Take, answer: tuple[float, list[float]] | None) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # whoever asked has gone
        take.answer.set_result(answer)
