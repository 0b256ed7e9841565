"""General limits per address and per caller, kept in this process, and the RateLimit headers that show them."""

import time
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

from gateway.inbound import Headers
from kit.errors import TooManyRequests
from kit.limits import RELAXED_FACTOR

WINDOW_S: Final = 60.0
MAX_KEYS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Policy:
    """How many requests a minute; `per` is what they are counted by."""

    name: str
    per: Literal["address", "caller"]
    times: int


# One address may be a whole company or a mobile operator's exit; a caller is one person with a few devices.
POLICIES: Final[dict[str, tuple[Policy, ...]]] = {
    "general": (Policy("address", "address", 6000), Policy("caller", "caller", 3000)),
    "auth": (Policy("login", "address", 120),),
    "webhook": (Policy("webhook", "address", 60_000),),
    "none": (),
}


class _Rule:
    """A policy in force, with what its headers repeat."""

    __slots__ = ("by_caller", "header", "interval", "name", "shown")

    def __init__(self, policy: Policy, times: int) -> None:
        self.name = policy.name
        self.by_caller = policy.per == "caller"
        self.interval = WINDOW_S / times
        quoted = b'"%b"' % policy.name.encode()
        self.header = (b"ratelimit-policy", quoted + b";q=%d;w=%d" % (times, WINDOW_S))
        self.shown = quoted + b";r=%d;t=%d"


class Limits:
    """The generic cell rate algorithm (ITU-T I.371): one number a key, an even refill, a burst of the whole quota."""

    def __init__(self, mode: Literal["strict", "relaxed", "off"]) -> None:
        factor = RELAXED_FACTOR if mode == "relaxed" else 1
        self._off = mode == "off"
        self._policies = {
            name: tuple(_Rule(policy, policy.times * factor) for policy in policies)
            for name, policies in POLICIES.items()
        }
        self._full_at: dict[tuple[str, str], float] = {}

    def use(self, limit_class: str, address: str, caller: str | None) -> Headers:
        """Count one request; the headers that show what is left, or TooManyRequests with the seconds to wait."""
        if self._off:
            return []
        now = time.monotonic()
        shown: Headers = []
        for rule in self._policies[limit_class]:
            who = caller if rule.by_caller else address
            if who is None:
                continue
            key = (rule.name, who)
            interval = rule.interval
            full_at = max(self._full_at.get(key, now), now) + interval
            wait = full_at - now - WINDOW_S
            if wait > interval * 1e-6:
                raise TooManyRequests(retry_after=wait)
            self._full_at[key] = full_at
            left = max(0, int(1e-6 - wait / interval))
            shown = [rule.header, (b"ratelimit", rule.shown % (left, ceil(full_at - now)))]
        if len(self._full_at) > MAX_KEYS:
            self._forget(now)
        return shown

    def _forget(self, now: float) -> None:
        """Drop what is full again; if everybody is busy, everybody starts anew rather than memory growing."""
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        if len(self._full_at) > MAX_KEYS // 2:
            self._full_at.clear()
