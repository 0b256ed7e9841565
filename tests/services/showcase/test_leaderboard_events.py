"""Leaderboard events: one reader for all who watch, a change a second at most, and an end."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from kit import clock
from kit.ids import new_id
from services.showcase.leaderboard_events import EVERY_S, Board


def votes_of(frame: bytes) -> list[int]:
    """The votes that a frame tells of."""
    data = next(line for line in frame.decode().splitlines() if line.startswith("data: "))
    return [item["votes"] for item in json.loads(data.removeprefix("data: "))["items"]]


async def test_watchers_hear_of_a_burst_of_votes_once(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    entry = await showcase.entry(contest)
    board = Board(api.rt, UUID(contest), 20)
    streams = [board.watch(None) for _ in range(3)]
    watching_since = asyncio.get_running_loop().time()
    first = await asyncio.gather(*(anext(stream) for stream in streams))
    assert {(frame.splitlines()[1], tuple(votes_of(frame))) for frame in first} == {(b"event: leaderboard", (0,))}
    other, lapsed = await showcase.entry(contest), first[0].splitlines()[0].removeprefix(b"id: ").decode()
    told = asyncio.gather(*(anext(stream) for stream in streams))
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(showcase.vote(entry) for _ in range(10)))
    deltas = await told
    assert [(frame.splitlines()[1], votes_of(frame)) for frame in deltas] == [(b"event: delta", [10, 0])] * 3
    heard_at = asyncio.get_running_loop().time()
    assert heard_at - watching_since >= EVERY_S
    assert heard_at - started < EVERY_S * 3
    # Told again is only what is new; who comes with what was told before the last gets that, anybody else the whole.
    late, stranger = board.watch(lapsed), board.watch("unknown")
    assert await anext(late) == deltas[0]
    assert (await anext(stranger)).splitlines()[1] == b"event: leaderboard"
    await showcase.vote(other)
    assert [votes_of(await anext(stream)) for stream in (*streams, late, stranger)] == [[1]] * 5
    await late.aclose()
    await stranger.aclose()
    for stream in streams:
        await stream.aclose()
    assert board.watchers == 0
    await asyncio.sleep(EVERY_S * 1.2)
    assert board.reader is None, "nobody watches, nobody reads"


async def test_the_stream_of_a_settled_contest_says_its_last_and_ends(showcase: Any, api: Any) -> None:
    ends_at = clock.now() + timedelta(days=1)
    contest = await showcase.contest(ends_at=ends_at, hide_totals=True)
    await showcase.vote(await showcase.entry(contest))
    api.clock.set(ends_at)
    await showcase.client.post(f"/v1/admin/contests/{contest}/settle", headers=api.admin())
    url = f"/v1/contests/{contest}/leaderboard/events"
    answer = await showcase.client.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert votes_of(answer.content) == [1]
    seen = answer.text.splitlines()[0].removeprefix("id: ")
    again = await showcase.client.get(url, headers={"Last-Event-ID": seen})
    assert (again.status_code, again.content) == (204, b"")


async def test_an_unknown_contest_has_no_stream(showcase: Any) -> None:
    refused = await showcase.client.get(f"/v1/contests/{new_id()}/leaderboard/events")
    assert (refused.status_code, refused.json()["code"]) == (404, "contest_not_found")
