"""Rate limits: a sliding log in Redis by one script and one round trip, in this process' memory when Redis is away."""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import Request
from redis.asyncio import Redis
from redis.exceptions import RedisError

from kit import clock
from kit.errors import TooManyRequests
from kit.http import client_address
from kit.ids import new_id

log = structlog.get_logger(__name__)

RELAXED_FACTOR = 100
"""How much wider limits per address are in the relaxed set; limits per phone, code and account are the same."""
LOCAL_KEYS = 10_000
RETRY_S = 2.0
"""How long limits stay local after Redis gave no answer; then one caller asks it again, and only that one waits."""

# Exact over any window: the log holds one member for each take, so a burst at the edge of two windows cannot double it.
_TAKE = """
local now, span, times = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - span)
local used = redis.call('ZCARD', KEYS[1])
if used >= times then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return {0, tostring(tonumber(oldest[2]) + span - now)}
end
if ARGV[4] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[4])
  redis.call('PEXPIRE', KEYS[1], math.ceil(span * 1000))
end
return {times - used, '0'}
"""

_local: dict[str, deque[float]] = {}
_redis_away_until: float | None = None


@dataclass(frozen=True, slots=True)
class Take:
    """One use of a limit, which a success may give back: a limit on failures counts attempts that failed."""

    redis: Redis | None
    key: str
    member: str

    async def give_back(self) -> None:
        """Undo this use; a look was none."""
        if not self.member:
            return
        log_of_key = _local.get(self.key)
        if log_of_key:
            log_of_key.pop()
        if self.redis is not None:
            try:
                await self.redis.zrem(self.key, self.member)
            except (RedisError, OSError):
                log.warning("limit not given back")


async def limit(request: Request, name: str, key: str, *, times: int, seconds: float, only_look: bool = False) -> Take:
    """Use one of `times` in any `seconds` for this key (a phone, code, account); TooManyRequests when none is left.

    `only_look` uses none: for a limit on failures that is looked at before the try and used after one that failed.
    """
    runtime: Any = request.app.state.runtime
    if runtime.settings.limits == "off":
        return Take(None, "", "")
    key = f"heika:limit:{name}:{key}"
    return await take(runtime.redis, key, times=times, seconds=seconds, only_look=only_look, name=name)


async def limit_address(request: Request, name: str, *, times: int, seconds: float, only_look: bool = False) -> Take:
    """`limit` for the caller's address; a hundred times wider in the relaxed set."""
    runtime: Any = request.app.state.runtime
    mode = runtime.settings.limits
    if mode == "off":
        return Take(None, "", "")
    wide = times * RELAXED_FACTOR if mode == "relaxed" else times
    key = f"heika:limit:{name}:address:{client_address(request)}"
    return await take(runtime.redis, key, times=wide, seconds=seconds, only_look=only_look, name=name)


async def take(
    redis: Redis, key: str, *, times: int, seconds: float, only_look: bool = False, name: str = "limit"
) -> Take:
    """Use one of `times` in any `seconds` of the product's clock; TooManyRequests with Retry-After when none is left."""
    try:
        return await _take(redis, key, times=times, seconds=seconds, only_look=only_look)
    except TooManyRequests as refusal:
        refusal.policy = (name, times, seconds)
        raise


async def _take(redis: Redis, key: str, *, times: int, seconds: float, only_look: bool) -> Take:
    global _redis_away_until  # noqa: PLW0603 - one answer a process, whichever limit asked
    now, member = clock.now().timestamp(), "" if only_look else str(new_id())
    moment = time.monotonic()
    if _redis_away_until is not None:
        if moment < _redis_away_until:
            _take_local(key, now, times, seconds, only_look=only_look)
            return Take(None, key, member)
        _redis_away_until = moment + RETRY_S
    try:
        left, wait = await redis.eval(_TAKE, 1, key, now, seconds, times, member)
    except (RedisError, OSError) as failure:
        log.warning("limits are local: Redis is away", error=type(failure).__name__)
        _redis_away_until = time.monotonic() + RETRY_S
        _take_local(key, now, times, seconds, only_look=only_look)
        return Take(None, key, member)
    _redis_away_until = None
    if int(left) == 0:
        raise TooManyRequests(retry_after=max(1.0, float(wait)))
    return Take(redis, key, member)


def _take_local(key: str, now: float, times: int, seconds: float, *, only_look: bool) -> None:
    if len(_local) > LOCAL_KEYS:
        _local.clear()
    uses = _local.setdefault(key, deque())
    while uses and uses[0] <= now - seconds:
        uses.popleft()
    if len(uses) >= times:
        raise TooManyRequests(retry_after=max(1.0, uses[0] + seconds - now))
    if not only_look:
        uses.append(now)
