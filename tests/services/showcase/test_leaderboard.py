"""Leaderboards: what Redis holds is a copy, and whatever happens to it nobody is shown anything but the rows."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

from kit.ids import new_id
from services.showcase.app import service
from services.showcase.standings import CHECK_EVERY_S, Standings, standings_of
from tests.harness import Api
from tests.services.showcase.conftest import Showcase


async def board(showcase: Any, contest: str, limit: int = 20) -> list[tuple[int, str, int]]:
    answer = await showcase.client.get(f"/v1/contests/{contest}/leaderboard", params={"limit": limit})
    assert answer.status_code == 200
    return [(item["rank"], item["entry_id"], item["votes"]) for item in answer.json()["items"]]


async def voted(showcase: Any, contest: str, *votes: int) -> list[str]:
    entries = [await showcase.entry(contest) for _ in votes]
    for entry, number in zip(entries, votes, strict=True):
        await asyncio.gather(*(showcase.vote(entry) for _ in range(number)))
    return entries


async def copied(api: Any, contest: str) -> dict[str, int]:
    """What Redis holds."""
    standings = standings_of(api.rt)
    while standings._noting is not None and not standings._noting.done():
        await standings._noting
    scores = await api.rt.redis.zrange(f"heika:standings:{contest}", 0, -1, withscores=True)
    return {str(UUID(bytes=id_)): -int(score) for id_, score in scores}


async def test_the_copy_follows_votes_and_is_made_again_when_it_is_lost(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    first, second, third = await voted(showcase, contest, 0, 2, 1)
    assert await copied(api, contest) == {}, "nobody has looked yet"
    expected = [(1, second, 2), (2, third, 1), (3, first, 0)]
    assert await board(showcase, contest) == expected
    for _ in range(3):
        await showcase.vote(first)
    assert await copied(api, contest) == {first: 3, second: 2, third: 1}
    expected = [(1, first, 3), (2, second, 2), (3, third, 1)]
    for lost in ("", ":changes"):
        await api.rt.redis.delete(f"heika:standings:{contest}{lost}")
        assert await board(showcase, contest) == expected
    await api.rt.redis.flushall()
    assert await board(showcase, contest, 2) == expected[:2]
    assert await copied(api, contest) == {first: 3, second: 2, third: 1}


async def test_works_that_come_and_go_are_on_the_board_at_once(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(moderation="pre")
    author = new_id()
    entry = (await showcase.enter(contest, api.member(author))).json()["id"]
    assert await board(showcase, contest) == []

    async def moderate(**decision: str) -> None:
        path = f"/v1/admin/entries/{entry}/moderation"
        assert (await api.client.post(path, json=decision, headers=api.admin())).status_code == 200

    await moderate(decision="approve")
    await showcase.vote(entry)
    assert await board(showcase, contest) == [(1, entry, 1)]
    await moderate(decision="reject", reason="不是蛋糕")
    assert await board(showcase, contest) == []
    await moderate(decision="approve")
    assert await board(showcase, contest) == [(1, entry, 1)]
    other = (await showcase.enter(contest, api.member())).json()["id"]
    # One comes as another goes: as many as before, and not the same.
    await api.client.delete(f"/v1/entries/{entry}", headers=api.member(author))
    entry = other
    await moderate(decision="approve")
    assert await board(showcase, contest) == [(1, other, 0)]


async def test_a_wrong_copy_is_never_shown_and_does_not_last(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    entries = await voted(showcase, contest, 3, 2, 1)
    expected = [(rank, entry, votes) for rank, (entry, votes) in enumerate(zip(entries, (3, 2, 1), strict=True), 1)]
    assert await board(showcase, contest) == expected
    key, standings = f"heika:standings:{contest}", standings_of(api.rt)

    async def set_copy(entry: str, votes: int, changes: int | None = None) -> None:
        await api.rt.redis.zadd(key, {UUID(entry).bytes: -votes})
        if changes is not None:
            await api.rt.redis.hset(f"{key}:changes", UUID(entry).bytes, changes)

    await set_copy(entries[2], 99)
    assert await board(showcase, contest) == expected
    assert await copied(api, contest) == dict(zip(entries, (3, 2, 1), strict=True))
    # Too low, and out of sight: the next look at all rows finds it.
    await set_copy(entries[0], 0)
    standings.doubt(UUID(contest))
    await board(showcase, contest, 1)
    await standings._copies[UUID(contest)].checking  # type: ignore[misc]
    assert await board(showcase, contest, 1) == expected[:1]
    # Of a database that was ahead of this one.
    await set_copy(entries[1], 50, changes=1000)
    assert await board(showcase, contest) == expected
    standings._copies[UUID(contest)].made_at = time.monotonic() - CHECK_EVERY_S - 1
    await board(showcase, contest)
    await standings._copies[UUID(contest)].checking  # type: ignore[misc]
    assert await board(showcase, contest) == expected
    assert await copied(api, contest) == dict(zip(entries, (3, 2, 1), strict=True))


async def test_an_older_count_never_replaces_a_newer_one_whoever_writes_it(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    [entry] = await voted(showcase, contest, 3)
    await board(showcase, contest)
    elsewhere = Standings(api.rt)
    for votes, changes in ((2, 2), (1, 1), (9, 900), (8, 899)):
        elsewhere.note(UUID(contest), UUID(entry), votes, changes)
        elsewhere.note(UUID(contest), UUID(entry), votes - 1, changes - 1)
        await elsewhere._noting  # type: ignore[misc]
    assert await copied(api, contest) == {entry: 9}
    await elsewhere.close()


async def test_take_backs_and_quarantine_reach_the_board(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    first, second = await voted(showcase, contest, 2, 2)
    voter = api.member()
    await showcase.vote(second, voter)
    assert await board(showcase, contest) == [(1, second, 3), (2, first, 2)]
    await showcase.client.delete(f"/v1/entries/{second}/votes", headers=voter)
    assert await board(showcase, contest) == [(1, first, 2), (1, second, 2)]
    body = {"rule": "address", "params": {"per_prefix": 1}, "dry_run": False}
    path = f"/v1/admin/contests/{contest}/quarantine"
    assert (await api.client.post(path, json=body, headers=api.admin())).json()["entries"] == 2
    assert await board(showcase, contest) == [(1, first, 1), (1, second, 1)]


async def test_without_redis_the_rows_are_read(
    run: Callable[..., AbstractAsyncContextManager[Api]], tmp_path: Path
) -> None:
    async with run(service, data=tmp_path, redis_url="redis://127.0.0.1:1/0") as api:
        showcase = Showcase(api)
        contest = await showcase.contest()
        entries = await voted(showcase, contest, 1, 2, 1)
        for _ in range(2):
            assert await board(showcase, contest) == [(1, entries[1], 2), (2, entries[0], 1), (2, entries[2], 1)]
        assert await board(showcase, contest, 1) == [(1, entries[1], 2)]
