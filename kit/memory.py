"""What a Redis remembers of the streams told to it, by name: another name means that it has forgotten something."""

import asyncio
from math import inf
from typing import Any, Final, cast
from weakref import WeakValueDictionary

from redis.asyncio import Redis

from kit.ids import new_id

# Each stream's mark, and its run_id, which changes when it starts again.
_ASK: Final = """
local known = {string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')}
for number, key in ipairs(KEYS) do known[number + 1] = redis.call('GET', key) end
return known
"""


class Memory:
    """The names of all streams that one process tells to one Redis: whoever asks first asks for all."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._marks: set[str] = set()
        self._asked_at = -inf
        self._turn = asyncio.Lock()

    async def name(self, redis: Redis, mark: str, max_age_s: float) -> str:
        """The name of what is remembered under this mark, asked for at most so many seconds ago."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if mark not in self._names or now - self._asked_at > max_age_s:
                self._marks.add(mark)
                self._names = await self._ask(redis)
                self._asked_at = now
            if mark not in self._names:
                await redis.set(mark, str(new_id()))
                self._names = await self._ask(redis)
            return self._names[mark]

    async def _ask(self, redis: Redis) -> dict[str, str]:
        marks = list(self._marks)
        run_id, *known = await cast("Any", redis.eval(_ASK, len(marks), *marks))
        return {mark: f"{value.decode()} {run_id.decode()}" for mark, value in zip(marks, known, strict=True) if value}


_memories: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], Memory] = WeakValueDictionary()


def memory_of(redis_url: str) -> Memory:
    """The memory of the Redis at this address; the relays of one process share it."""
    place = (asyncio.get_running_loop(), redis_url)
    memory = _memories.get(place)
    if memory is None:
        memory = _memories[place] = Memory()
    return memory
