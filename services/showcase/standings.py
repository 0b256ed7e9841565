"""Standings: each contest's works by votes in a sorted set of Redis, a copy that is made again whenever it is lost or wrong."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.app import Runtime

log = structlog.get_logger(__name__)

CHECK_EVERY_S: Final = 10.0
"""How often a copy that is read is held against all the rows."""
AWAY_S: Final = 2.0
"""For so long nothing is asked of a Redis that did not answer."""
SMALL: Final = 1000
"""Copies of fewer works are made again at once whenever a work came or went, larger ones once a second at most."""
KEEP_S: Final = 86_400
_WORK: Final = Struct(">16sdd")
_PLACE: Final = Struct(">16sd")

# Votes count down, so that equal ones stand in the order of ids. A work's newer count is never replaced by an older one,
# whoever wrote it last; what has no copy yet is left for the reader who misses it.
_NOTE: Final = """
for at = 1, #ARGV[1], 32 do
  local id, votes, changes = struct.unpack('>c16dd', ARGV[1], at)
  local held = redis.call('HGET', KEYS[2], id)
  if held and changes >= tonumber(held) then
    redis.call('ZADD', KEYS[1], -votes, id)
    redis.call('HSET', KEYS[2], id, string.format('%.0f', changes))
  end
end
"""
_MAKE: Final = """
local standing, ahead, held = {}, {}, {}
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do held[all[i]] = all[i + 1] end
for at = 1, #ARGV[2], 32 do
  local id, votes, changes = struct.unpack('>c16dd', ARGV[2], at)
  standing[id] = true
  if not held[id] or changes >= tonumber(held[id]) then
    redis.call('ZADD', KEYS[1], -votes, id)
    redis.call('HSET', KEYS[2], id, string.format('%.0f', changes))
  else
    ahead[#ahead + 1] = id
    ahead[#ahead + 1] = held[id]
  end
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if not standing[id] then redis.call('ZREM', KEYS[1], id) end
end
for id in pairs(held) do
  if not standing[id] then redis.call('HDEL', KEYS[2], id) end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
return ahead
"""
# In one piece: sixty small ones take Python longer to read than all the rest.
_READ: Final = """
local found, out = redis.call('ZRANGE', KEYS[1], 0, ARGV[1], 'WITHSCORES'), {}
for i = 1, #found, 2 do out[#out + 1] = struct.pack('>c16d', found[i], -tonumber(found[i + 1])) end
return {redis.call('ZCARD', KEYS[1]), table.concat(out)}
"""
_ROWS: Final = text("""
SELECT e.id, coalesce(t.votes, 0) AS votes, coalesce(t.changes, 0) AS changes
FROM entry e LEFT JOIN tally t ON t.entry_id = e.id WHERE e.contest_id = :contest AND e.status = 'approved'
""")
_WORKS: Final = text("SELECT count(*) FROM entry WHERE contest_id = :contest AND status = 'approved'")
_CHANGES: Final = text("SELECT entry_id, changes FROM tally WHERE entry_id = ANY(:ids)")


class RedisAway(Exception):
    """There is no copy to be had at this moment."""


@dataclass(slots=True)
class _Copy:
    """When this process last made or checked a contest's copy, and counted its works, by the monotonic clock."""

    made_at: float = float("-inf")
    works: int = 0
    counted_at: float = float("-inf")
    checking: asyncio.Task[None] | None = None


class Standings:
    """The sorted sets as one process writes and reads them."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self._note = rt.redis.register_script(_NOTE)
        self._make = rt.redis.register_script(_MAKE)
        self._first = rt.redis.register_script(_READ)
        self._noted: defaultdict[UUID, dict[UUID, tuple[int, int]]] = defaultdict(dict)
        self._noting: asyncio.Task[None] | None = None
        self._copies: defaultdict[UUID, _Copy] = defaultdict(_Copy)
        self._away_until = float("-inf")

    def note(self, contest_id: UUID, entry_id: UUID, votes: int, changes: int) -> None:
        """Copy a work's votes soon; nobody waits for it."""
        if time.monotonic() < self._away_until:
            return
        noted = self._noted[contest_id]
        held = noted.get(entry_id)
        if held is None or held[1] < changes:
            noted[entry_id] = (votes, changes)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._write_noted(), name="standings")

    async def _write_noted(self) -> None:
        while self._noted:
            noted, self._noted = self._noted, defaultdict(dict)
            for contest_id, works in noted.items():
                try:
                    await self._note(_keys(contest_id), [_packed((id_, *counts) for id_, counts in works.items())])
                except (RedisError, OSError) as failure:
                    self._is_away(failure)
                    return

    async def top(self, session: AsyncSession, contest_id: UUID, limit: int) -> list[tuple[UUID, int]]:
        """The first works and their votes; RedisAway when there is no copy to read."""
        copy, now = self._copies[contest_id], time.monotonic()
        first, held = await self._read(contest_id, limit)
        if copy.works < SMALL or held != copy.works or now - copy.counted_at > 1:
            copy.works = (await session.execute(_WORKS, {"contest": contest_id})).scalar_one()
            copy.counted_at = now
        works, age = copy.works, now - copy.made_at
        if held == 0 < works or (held != works and (works < SMALL or age > 1)):
            await self.make(session, contest_id)
            first, held = await self._read(contest_id, limit)
        elif age > CHECK_EVERY_S and works and (copy.checking is None or copy.checking.done()):
            copy.checking = asyncio.create_task(self._check(contest_id), name="standings check")
        return first

    async def correct(self, contest_id: UUID, rows: list[tuple[UUID, int, int]]) -> None:
        """Copy what the rows say of these works, where the copy said otherwise."""
        try:
            await self._note(_keys(contest_id), [_packed(rows)])
        except (RedisError, OSError) as failure:
            raise self._is_away(failure) from failure

    def doubt(self, contest_id: UUID) -> None:
        """Hold the copy against the rows when it is read next."""
        self._copies[contest_id].made_at = float("-inf")

    async def make(self, session: AsyncSession, contest_id: UUID) -> list[bytes]:
        """Make the copy what the rows say; counts that came later than these rows stay, and are answered by work."""
        rows = (await session.execute(_ROWS, {"contest": contest_id})).all()
        try:
            ahead: list[bytes] = await self._make(_keys(contest_id), [KEEP_S, _packed(rows)])
        except (RedisError, OSError) as failure:
            raise self._is_away(failure) from failure
        self._copies[contest_id].made_at = time.monotonic()
        return ahead

    async def _check(self, contest_id: UUID) -> None:
        try:
            async with self.rt.db.session() as session:
                ahead = await self.make(session, contest_id)
                if ahead:
                    held = {UUID(bytes=ahead[i]): int(ahead[i + 1]) for i in range(0, len(ahead), 2)}
                    found = await session.execute(_CHANGES, {"ids": list(held)})
                    if any(row.changes < held[row.entry_id] for row in found):
                        # No row was ever so far: the copy is of another database, an older or a lost one.
                        await self.rt.redis.delete(*_keys(contest_id))
        except Exception as failure:  # noqa: BLE001 - whoever reads next checks again
            log.warning("standings not checked", error=type(failure).__name__)

    async def _read(self, contest_id: UUID, limit: int) -> tuple[list[tuple[UUID, int]], int]:
        if time.monotonic() < self._away_until:
            raise RedisAway
        try:
            held, first = await self._first(_keys(contest_id)[:1], [limit - 1])
        except (RedisError, OSError) as failure:
            raise self._is_away(failure) from failure
        return [(UUID(bytes=id_), int(votes)) for id_, votes in _PLACE.iter_unpack(first)], held

    def _is_away(self, failure: Exception) -> RedisAway:
        log.warning("standings not copied", error=type(failure).__name__)
        self._away_until = time.monotonic() + AWAY_S
        self._noted.clear()
        return RedisAway()

    async def close(self) -> None:
        """Leave nothing running."""
        tasks = [copy.checking for copy in self._copies.values()] + [self._noting]
        running = [task for task in tasks if task is not None and not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _keys(contest_id: UUID) -> list[str]:
    return [f"heika:standings:{contest_id}", f"heika:standings:{contest_id}:changes"]


def _packed(rows: Iterable[Any]) -> bytes:
    """Works as the scripts read them: one argument, as thousands take long to say."""
    return b"".join([_WORK.pack(id_.bytes, votes, changes) for id_, votes, changes in rows])


def standings_of(rt: Runtime) -> Standings:
    """This process' standings."""
    standings: Standings | None = rt.state.get("standings")
    if standings is None:
        standings = rt.state["standings"] = Standings(rt)
    return standings
