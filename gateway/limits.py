"""Limits per address, caller and class of request, and the RateLimit headers that show them.

Strict classes are counted in Redis before the request goes on. The general ones are counted in this process, which tells
Redis of a bucket after each hundredth of it, and hears what the others took: exact to that hundredth a process, and free.
"""

import asyncio
import time
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

from prometheus_client import Counter

from gateway.inbound import Headers
from gateway.routes import Route
from gateway.shared_limits import Move, Shared, Take
from kit.errors import TooManyRequests
from kit.limits import RELAXED_FACTOR

WINDOW_S: Final = 60.0
MAX_KEYS: Final = 100_000
"""How many buckets a rule may have."""
EXCHANGE_S: Final = 0.1
"""How long news for Redis gathers."""
TOLD_SHARE: Final = 100

REFUSED: Final = Counter("heika_limited_total", "Requests refused by a limit of the gateway", ["limit"])


@dataclass(frozen=True, slots=True)
class Policy:
    """How many requests a minute; `per` is what they are counted by."""

    name: str
    per: Literal["address", "caller"]
    times: int


# One address may be a whole company or a mobile operator's exit; a caller is one person with a few devices. Services hold
# their own, narrower limits on failures: these keep a flood of tries away from them.
POLICIES: Final[dict[str, tuple[Policy, ...]]] = {
    "general": (Policy("address", "address", 6000), Policy("caller", "caller", 3000)),
    "auth": (Policy("login", "address", 120),),
    "codes": (Policy("codes-address", "address", 600), Policy("codes", "caller", 60)),
    "coupons": (Policy("coupons-address", "address", 1200), Policy("coupons", "caller", 60)),
    "votes": (Policy("votes-address", "address", 1200), Policy("votes", "caller", 120)),
    "webhook": (Policy("webhook", "address", 60_000),),
    "none": (),
}
STRICT: Final = frozenset({"auth", "codes", "coupons", "votes"})
_WRITES_ONLY: Final = frozenset({"codes", "coupons"})
_VOTES: Final = ("/votes", "/vote", "/upvote")


def class_of(route: Route, method: str, path: str) -> str:
    """The class a request is counted in: looking at coupons or works is nothing special, claiming and voting is."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return "general" if route.limit_class in _WRITES_ONLY else route.limit_class
    return "votes" if path.endswith(_VOTES) else route.limit_class


class _Rule:
    """A policy in force, with what its headers repeat, and a bucket for each whom it counts."""

    __slots__ = ("buckets", "by_caller", "header", "interval", "most", "name", "share", "shown", "times")

    def __init__(self, policy: Policy, times: int) -> None:
        self.name = policy.name
        self.by_caller = policy.per == "caller"
        self.times = times
        self.buckets: dict[str, _Bucket] = {}
        self.interval = WINDOW_S / times
        # As much as a rounding error more than the window.
        self.most = WINDOW_S + self.interval * 1e-6
        self.share = max(1, times // TOLD_SHARE)
        quoted = b'"%b"' % policy.name.encode()
        self.header = (b"ratelimit-policy", quoted + b";q=%d;w=%d" % (times, WINDOW_S))
        self.shown = quoted + b";r=%d;t=%d"

    def refuse(self, wait: float) -> TooManyRequests:
        REFUSED.labels(self.name).inc()
        return TooManyRequests(retry_after=wait, policy=(self.name, self.times, WINDOW_S))

    def bucket(self, who: str, now: float) -> "_Bucket":
        """A new one. Of too many those go that are full again; if all are in use, all begin anew."""
        if len(self.buckets) >= MAX_KEYS:
            self.buckets = {key: bucket for key, bucket in self.buckets.items() if bucket.full_at > now}
            if len(self.buckets) > MAX_KEYS // 2:
                self.buckets.clear()
        bucket = self.buckets[who] = _Bucket()
        return bucket

    def show(self, owed: float) -> Headers:
        """What is left of a bucket that owes so many seconds."""
        left = max(0, int((WINDOW_S - owed) / self.interval + 1e-6))
        return [self.header, (b"ratelimit", self.shown % (left, ceil(owed)))]


class _Bucket:
    """When it is full again, on this process' clock, and how much was let through here that Redis does not know of."""

    __slots__ = ("full_at", "untold")

    def __init__(self) -> None:
        self.full_at = 0.0
        self.untold = 0


_Key = tuple[_Rule, str]


class Limits:
    """The generic cell rate algorithm (ITU-T I.371): one number a key, an even refill, a burst of the whole quota."""

    def __init__(self, mode: Literal["strict", "relaxed", "off"], redis_url: str | None = None) -> None:
        factor = RELAXED_FACTOR if mode == "relaxed" else 1
        self._off = mode == "off"
        self._policies = {
            name: tuple(_Rule(policy, policy.times * factor) for policy in policies)
            for name, policies in POLICIES.items()
        }
        self._news: set[_Key] = set()
        self._shared = Shared(redis_url) if redis_url else None
        self._telling: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Let go of Redis."""
        if self._telling is not None:
            self._telling.cancel()
        if self._shared is not None:
            await self._shared.close()

    async def admit(self, limit_class: str, address: str, caller: str | None) -> Headers:
        """`use`, counted together with all other gateways where the class is a strict one."""
        if limit_class not in STRICT or self._shared is None or self._off:
            return self.use(limit_class, address, caller)
        keys = [
            (rule, who)
            for rule in self._policies[limit_class]
            if (who := caller if rule.by_caller else address) is not None
        ]
        answer = await self._shared.ask(Take([_move(key, 1) for key in keys]))
        if answer is None:
            return self.use(limit_class, address, caller)
        wait, owed = answer
        if wait > 0:
            emptiest = max(range(len(keys)), key=lambda number: owed[number] + keys[number][0].interval)
            raise keys[emptiest][0].refuse(wait)
        return keys[-1][0].show(owed[-1])

    def use(self, limit_class: str, address: str, caller: str | None) -> Headers:
        """Count one request here; the headers that show what is left, or TooManyRequests with the seconds to wait."""
        if self._off:
            return []
        now = time.monotonic()
        last, owed = None, 0.0
        for rule in self._policies[limit_class]:
            who = caller if rule.by_caller else address
            if who is None:
                continue
            bucket = rule.buckets.get(who) or rule.bucket(who, now)
            full_at = bucket.full_at
            if full_at <= now:
                full_at = now
                bucket.untold = 0
            full_at += rule.interval
            last, owed = rule, full_at - now
            if owed > rule.most:
                raise rule.refuse(owed - WINDOW_S)
            bucket.full_at = full_at
            bucket.untold += 1
            if bucket.untold >= rule.share and self._shared is not None:
                self._tell((rule, who))
        return last.show(owed) if last is not None else []

    def _tell(self, key: _Key) -> None:
        self._news.add(key)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._exchange(), name="limits told")

    async def _exchange(self) -> None:
        """Tell Redis what was let through here, and take over what all gateways together have let through."""
        while self._news and self._shared is not None:
            await asyncio.sleep(EXCHANGE_S)
            keys, self._news = list(self._news), set()
            moves = [_move(key, self._told(key)) for key in keys]
            answers = await asyncio.gather(*(self._shared.ask(Take([move], told=True)) for move in moves))
            now = time.monotonic()
            for key, answer in zip(keys, answers, strict=True):
                bucket = key[0].buckets.get(key[1])
                if answer is not None and bucket is not None:
                    bucket.full_at = now + answer[1][0] + bucket.untold * key[0].interval

    def _told(self, key: _Key) -> int:
        """How much of this bucket Redis hears of now."""
        bucket = key[0].buckets.get(key[1])
        if bucket is None:
            return 0
        count, bucket.untold = bucket.untold, 0
        return count


def _move(key: _Key, count: int) -> Move:
    rule, who = key
    return Move(f"heika:front:{rule.name}:{who}", count * rule.interval, WINDOW_S)
