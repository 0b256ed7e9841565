"""Forgetting what the consumer needs no more: events that nobody can tell again, and processes that are gone."""

import contextlib
import time
from collections.abc import Iterable
from math import inf
from typing import Any, Final, cast
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import text

from kit.db import Database

KEPT_DAYS: Final = 30
"""An event is told again for at most 20 days, and kept as told for two more."""
AT_ONCE = 5000
DEAD_AFTER_MS = 24 * 3600 * 1000

# Ids begin with the moment they were made (RFC 9562), so that the primary key finds the old ones.
_FORGET: Final = text(
    "DELETE FROM inbox WHERE event_id IN (SELECT event_id FROM inbox WHERE event_id < CAST(:before AS uuid) "
    "AND handled_at < clock_timestamp() - make_interval(days => :days) ORDER BY event_id LIMIT :most "
    "FOR UPDATE SKIP LOCKED)"
)
# In one piece: one that comes back while it is looked at must not lose what it just took.
_DROP_THE_DEAD: Final = """
local dropped = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local of = {}
  for i = 1, #fields, 2 do of[fields[i]] = fields[i + 1] end
  if of.pending == 0 and of.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], of.name)
    dropped = dropped + 1
  end
end
return dropped
"""


async def forget_handled(db: Database, redis: Redis, streams: Iterable[str], group: str) -> int:
    """Drop inbox rows older than any event that could still be told again, some thousands at most; how many.

    None while a message as old waits in Redis, as after a crash and a long outage: it may be one that was handled.
    """
    made_before = int((time.time() - KEPT_DAYS * 86_400) * 1000)
    try:
        if any([await _waits_since(redis, stream, group) < made_before for stream in streams]):
            return 0
    except RedisError:
        return 0
    values = {"before": UUID(int=made_before << 80), "days": KEPT_DAYS, "most": AT_ONCE}
    async with db.session() as session, session.begin():
        return int((await session.execute(_FORGET, values)).rowcount)  # type: ignore[attr-defined]


async def _waits_since(redis: Redis, stream: str, group: str) -> float:
    """When the oldest message was told that this group has not acknowledged, in milliseconds since 1970; or infinity."""
    found: list[bytes] = []
    try:
        groups: Any = await redis.xinfo_groups(stream)
        for mine in (one for one in groups if one["name"] in (group, group.encode())):
            pending: Any = await redis.xpending(stream, group)
            found += [pending["min"]] if pending["min"] else []
            after: Any = mine["last-delivered-id"]
            unread: Any = await redis.xrange(stream, min=b"(" + after, count=1)
            found += [unread[0][0]] if unread else []
    except ResponseError:
        # No such stream: nothing was ever told on it, or Redis has lost its memory.
        return inf
    return min((int(item.partition(b"-")[0]) for item in found), default=inf)


async def drop_the_dead(redis: Redis, streams: Iterable[str], group: str) -> None:
    """Take processes that are gone, and left nothing behind, off Redis' list: each deployment brings new names."""
    for stream in streams:
        with contextlib.suppress(RedisError):
            await cast("Any", redis.eval(_DROP_THE_DEAD, 1, stream, group, DEAD_AFTER_MS))
