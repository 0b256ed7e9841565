"""Revocations as a process knows them: read from Redis every second, what was ended here counts at once."""

import time
from collections.abc import Iterable
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from kit import clock

log = structlog.get_logger(__name__)

REVOKED_KEY = "heika:revoked"
"""Sorted set in Redis: `session:<uuid>` or `member:<uuid>`, scored by the epoch second until which it matters; `NOBODY`."""
FROZEN_KEY = "heika:frozen"
"""Set in Redis: ids of frozen members, and `NOBODY`."""
NOBODY = "-"
"""Always in both sets: so an empty answer tells of a Redis that forgot, not of nobody revoked or frozen."""
HERE_S = 10.0


class Revocations:
    """Sessions, and members, whose tokens no longer count before they expire."""

    def __init__(self) -> None:
        self.gone: frozenset[str] = frozenset()
        self.frozen: frozenset[str] = frozenset()
        self._read_at = 0.0
        # What was committed here counts at once, and until Redis has surely told everybody.
        self._gone_here: dict[str, float] = {}
        self._frozen_here: dict[str, tuple[bool, float]] = {}

    def end(self, *sessions: UUID) -> None:
        """These sessions were ended by this process."""
        self._gone_here |= dict.fromkeys((f"session:{item}" for item in sessions), time.monotonic() + HERE_S)
        self._know(self.gone, self.frozen)

    def freeze(self, member_id: UUID, *, frozen: bool) -> None:
        """This member was frozen, or is not any more, by this process."""
        self._frozen_here[str(member_id)] = frozen, time.monotonic() + HERE_S
        self._know(self.gone, self.frozen)

    def _know(self, gone: frozenset[str], frozen: frozenset[str]) -> None:
        now = time.monotonic()
        self._gone_here = {item: until for item, until in self._gone_here.items() if until > now}
        self._frozen_here = {item: held for item, held in self._frozen_here.items() if held[1] > now}
        self.gone = gone | self._gone_here.keys()
        self.frozen = (frozen - self._frozen_here.keys()) | {
            item for item, held in self._frozen_here.items() if held[0]
        }

    def is_old(self, age: float) -> bool:
        """Whether both sets were last asked for so many seconds ago or more."""
        return time.monotonic() - self._read_at >= age

    async def poll(self, redis: Redis) -> None:
        """Read both sets; when Redis is away, or has forgotten them, what was known stays known."""
        self._read_at = time.monotonic()
        try:
            # Together: what is written anew between the two would be half known.
            async with redis.pipeline(transaction=True) as pipeline:
                pipeline.zrangebyscore(REVOKED_KEY, clock.now().timestamp(), "+inf")
                pipeline.smembers(FROZEN_KEY)
                gone, frozen = await pipeline.execute()
        except (RedisError, OSError) as failure:
            log.warning("revocations not read", error=type(failure).__name__)
            return
        # What is empty was forgotten: members writes it again within a second, unless it is stopped, too.
        self._know(_texts(gone) or self.gone, _texts(frozen) or self.frozen)


def _texts(items: Iterable[bytes]) -> frozenset[str]:
    return frozenset(item.decode() for item in items)


revocations = Revocations()
