"""What tests of rooms build upon: lessons at any hour, members with a card, and the events of a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import httpx

from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from kit.text import instant
from tests.harness import Api
from tests.services.courses.live_world import plan

LIVE = "/v1/live-lessons"
BENEFITS = ("member_lessons", "live_replay", "live_priority", "qa_priority")


async def plan_at(api: Api, start: timedelta, *path: str, **fields: Any) -> str:
    """A lesson of 90 minutes that starts so long from now, without a limit of seats."""
    starts_at = clock.now() + start
    span = {"starts_at": instant(starts_at), "ends_at": instant(starts_at + timedelta(minutes=90))}
    return await plan(api, *path, **(span | {"capacity": None} | fields))


async def give_card(api: Api, member_id: UUID, *benefits: str, version: int = 1) -> None:
    now = clock.now()
    piece = SegmentPicture(
        id=new_id(),
        source="comp",
        source_id=new_id(),
        plan_code="black-card-1m",
        months=0,
        days=30,
        starts_at=now - timedelta(days=1),
        ends_at=now + timedelta(days=29),
        benefits=benefits or BENEFITS,
        added_at=now,
    )
    await api.handle(MembershipChanged(member_id=member_id, version=version, segments=(piece,)))


async def ask(api: Api, method: str, path: str, member_id: UUID, json: Any = None, **headers: str) -> httpx.Response:
    return await api.client.request(method, path, json=json, headers=api.member(member_id) | headers)


class News(NamedTuple):
    """One server-sent event."""

    id: int
    event: str
    data: Any


def parse(chunk: bytes) -> list[News]:
    """The events of a piece of a stream; comments are none."""
    found = []
    for block in chunk.decode().split("\n\n"):
        if block and not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            found.append(News(int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


class Stream:
    """An open stream of a lesson; a background task keeps what comes."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self.came = asyncio.Condition()

    async def until(self, count: int, *events: str, data: Any = None) -> list[News]:
        """The events of these kinds, or with this data, once there are so many."""

        def found() -> list[News]:
            return [item for item in self.news if item.event in events and data in (None, item.data)]

        async with asyncio.timeout(20), self.came:
            await self.came.wait_for(lambda: len(found()) >= count)
        return found()


@asynccontextmanager
async def following(api: Api, lesson_id: str, who: UUID, last: int | None = None) -> AsyncIterator[Stream]:
    """Follow a lesson as the endpoint's own stream does."""
    stream = Stream()

    async def keep() -> None:
        async for chunk in api.rt.state["feeds"].follow(UUID(lesson_id), str(who), last):
            async with stream.came:
                stream.news += parse(chunk)
                stream.came.notify_all()

    task = asyncio.create_task(keep())
    try:
        yield stream
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def at(value: str) -> datetime:
    return datetime.fromisoformat(value)
