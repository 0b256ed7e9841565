"""The sandbox's clock: every service is moved to the same instant, and what has become due is done before the answer."""

import asyncio
import re
from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope

from gateway.calls import Answer, NoAnswer, ask
from gateway.inbound import Inbound
from gateway.own import Own, read_json
from gateway.problems import ClockBackward, UpstreamUnavailable
from gateway.routes import SERVICES
from kit import clock
from kit.errors import ValidationFailed
from kit.http import json_response
from kit.ids import new_id
from kit.settings import Settings
from kit.shapes import Instant
from kit.text import instant
from kit.wording import Sentence, Wrong, field_error, worded

MAX_ROUNDS: Final = 200
SETTLE_S: Final = 60.0
"""How long a service may take for one round; a walk of many rounds and stops takes as long as it gets on."""
EXACT_STOPS: Final = 1000
COARSE_STOPS: Final = 1000
"""After so many exact stops a move makes at most so many more, each as far on as that needs."""
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
"""A month's plan bought at the latest instant must still end before the calendar does."""

# ISO 8601 (5.5.2.2); weeks stand alone.
_DURATION: Final = re.compile(
    r"(?P<sign>-?)P(?=[\dT])(?:(?P<weeks>\d{1,5})W|(?:(?P<years>\d{1,4})Y)?(?:(?P<months>\d{1,5})M)?(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d{1,7})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,6})?)S)?)?)"
)


def later(present: datetime, duration: str) -> datetime:
    """`present` and an ISO 8601 duration: months by the business zone's calendar, the rest by length.

    ValueError for what is no duration, or past the calendar's end, OverflowError likewise. A negative one leads back.
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise Wrong("no ISO 8601 duration", "不是 ISO 8601 时长")
    sign = -1 if match["sign"] else 1
    parts = {name: sign * float(text or 0) for name, text in match.groupdict().items() if name != "sign"}
    months = int(parts.pop("years")) * 12 + int(parts.pop("months"))
    wall = present.astimezone(clock.ZONE)
    year, month = divmod(wall.year * 12 + wall.month - 1 + months, 12)
    wall = wall.replace(year=year, month=month + 1, day=min(wall.day, monthrange(year, month + 1)[1]))
    return wall.astimezone(UTC) + timedelta(**parts)


class Move(BaseModel):
    """How the clock is to move: by a duration, or to an instant; exactly one of them."""

    model_config = ConfigDict(extra="forbid")

    advance: str | None = Field(None, max_length=64)
    now: Instant | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Move":
        if (self.advance is None) == (self.now is None):
            raise Wrong("give exactly one of advance and now", "advance 和 now 请只填一个")
        if self.advance is not None and not _DURATION.fullmatch(self.advance):
            raise Wrong("advance is an ISO 8601 duration, such as P31D", "advance 应为 ISO 8601 时长，如 P31D")
        return self

    def target(self, present: datetime) -> datetime:
        """The instant to move to; OverflowError or ValueError past the calendar's end."""
        return self.now if self.now is not None else later(present, self.advance or "")


def _read(body: object) -> Move:
    try:
        return Move.model_validate(body)
    except ValidationError as failure:
        errors = [field_error(["body", *item["loc"]], worded(item), item["type"]) for item in failure.errors()]
        raise ValidationFailed(extra={"errors": errors}) from failure


def _too_far() -> ValidationFailed:
    said = Sentence(f"not past {LATEST:%Y}", f"不能晚于 {LATEST:%Y} 年")
    return ValidationFailed(extra={"errors": [field_error(["body"], said, "too_far")]})


async def _told(upstream: ASGIApp, method: str, path: str, json: Any = None, seconds: float = 5.0) -> dict[str, Any]:
    """A service's JSON answer to an internal call; UpstreamUnavailable when there is none."""
    try:
        answer: Answer = await ask(upstream, method, path, json=json, seconds=seconds)
        told: dict[str, Any] = answer.json()
    except (NoAnswer, ValueError) as failure:
        raise UpstreamUnavailable from failure
    if answer.status != HTTPStatus.OK:
        raise UpstreamUnavailable
    return told


class SandboxClock:
    """The one who moves the clock; moves are done one after another."""

    def __init__(self, upstreams: Mapping[str, ASGIApp]) -> None:
        self._upstreams = [upstreams[name] for name in SERVICES]
        self._members = upstreams["members"]
        self._moving = asyncio.Lock()

    async def offset(self) -> timedelta:
        """How far the product's clock is ahead, as members has it."""
        return timedelta(seconds=(await _told(self._members, "GET", "/internal/clock"))["offset_s"])

    async def move(self, move: Move) -> datetime:
        """Move every service's clock and settle what has become due; the instant reached."""
        async with self._moving:
            present = datetime.now(UTC) + await self.offset()
            try:
                target = move.target(present).astimezone(UTC)
            except (OverflowError, ValueError) as failure:
                raise _too_far() from failure
            if target > LATEST:
                raise _too_far()
            if target < present:
                raise ClockBackward
            await self._walk(present, target)
            return datetime.now(UTC) + clock.offset()

    async def _walk(self, present: datetime, target: datetime) -> None:
        """Stop wherever a service has something to do on the way, as if the time between had passed."""
        stops = 0
        pause = timedelta(seconds=1)
        walk = str(new_id())
        next_at = await self._settle(walk, last=present >= target)
        while present < target:
            stop = target if next_at is None else min(next_at, target)
            if stop <= present:
                # Said to be due, and yet nothing was done at it: pass by, further each time.
                stop = min(present + pause, target)
                pause *= 2
            else:
                pause = timedelta(seconds=1)
            if stops >= EXACT_STOPS:
                stop = min(max(stop, present + (target - present) / (EXACT_STOPS + COARSE_STOPS - stops)), target)
            stops += 1
            await self._set(stop)
            next_at = await self._settle(walk, last=stop == target)
            present = stop

    async def _set(self, instant: datetime) -> None:
        offset = instant - datetime.now(UTC)
        # This process' own clock judges tokens.
        clock.set_offset(max(offset, clock.offset()))
        wanted = {"offset_s": clock.offset().total_seconds()}
        await asyncio.gather(*(_told(one, "POST", "/internal/clock", wanted) for one in self._upstreams))

    async def _settle(self, walk: str, *, last: bool) -> datetime | None:
        """Rounds over all services, until a whole round finds nothing: one service's work is another's event.

        The earliest instant at which there will be something to do again; None when nobody knows of any.
        """
        wanted = {"walk": walk, "last": last}
        for _ in range(MAX_ROUNDS):
            calls = (_told(one, "POST", "/internal/settle", wanted, seconds=SETTLE_S) for one in self._upstreams)
            told = await asyncio.gather(*calls)
            if not sum(each["done"] for each in told):
                instants = [datetime.fromisoformat(each["next_at"]) for each in told if each.get("next_at")]
                return min(instants, default=None)
        raise UpstreamUnavailable


def endpoints(upstreams: Mapping[str, ASGIApp], settings: Settings) -> dict[str, Own]:
    """`/v1/sandbox/clock`, in the sandbox only."""
    if not settings.sandbox:
        return {}
    sandbox = SandboxClock(upstreams)

    async def read(_: Scope, __: Inbound, ___: Receive) -> Response:
        return json_response({"now": instant(datetime.now(UTC) + await sandbox.offset())})

    async def move(_: Scope, inbound: Inbound, receive: Receive) -> Response:
        wanted = _read(await read_json(inbound, receive))
        return json_response({"now": instant(await sandbox.move(wanted))})

    return {"/v1/sandbox/clock": {"GET": read, "POST": move}}
