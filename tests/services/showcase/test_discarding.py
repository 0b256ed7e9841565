"""Pictures of a member who leaves: their files are deleted, once, and never those that somebody else shows too."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from contracts.members import MemberErased
from kit import clock
from kit.ids import new_id


def files(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


async def test_the_files_go_and_the_job_finds_nothing_more(
    showcase: Any, api: Any, author: Any, make_picture: Any
) -> None:
    folder = api.rt.settings.uploads
    mine = (await showcase.upload(api.member(author), make_picture((30, 30)))).json()
    other = (await showcase.upload(api.member(), make_picture((50, 30)))).json()
    assert files(folder) == 8
    event = MemberErased(member_id=author)
    await api.handle(event, event, MemberErased(member_id=author))
    assert await api.sql("SELECT 1 FROM upload WHERE member_id = :id", id=author) == []
    assert files(folder) == 8
    assert await api.run_due() == 1
    assert await api.run_due() == 0
    assert files(folder) == 4
    path = mine["url"].split("test", 1)[-1]
    assert (await showcase.client.get(path[path.index("/v1") :])).status_code == 404
    path = other["url"]
    assert (await showcase.client.get(path[path.index("/v1") :])).status_code == 200


async def test_a_picture_that_somebody_else_brought_too_stays(
    showcase: Any, api: Any, author: Any, make_picture: Any
) -> None:
    content = make_picture((30, 30))
    for member in (api.member(author), api.member()):
        assert (await showcase.upload(member, content)).status_code == 201
    await api.handle(MemberErased(member_id=author))
    assert await api.run_due() == 1
    assert files(api.rt.settings.uploads) == 4
    assert await api.sql("SELECT 1 FROM discarded_picture") == []


async def test_a_picture_brought_again_after_it_was_discarded_is_there(
    showcase: Any, api: Any, author: Any, make_picture: Any
) -> None:
    content = make_picture((30, 30))
    for _ in range(5):
        leaving = new_id()
        assert (await showcase.upload(api.member(leaving), content)).status_code == 201
        await api.handle(MemberErased(member_id=leaving))
        answer, _ = await asyncio.gather(showcase.upload(api.member(author), content), api.run_due())
        path = answer.json()["url"]
        assert (await showcase.client.get(path[path.index("/v1") :])).status_code == 200
        await api.run_due()
        assert files(api.rt.settings.uploads) == 4
        await api.sql("DELETE FROM upload")


async def test_works_leave_running_contests_and_stay_in_published_results(showcase: Any, api: Any, author: Any) -> None:
    settled, running = await showcase.contest(ends_at=clock.now() + timedelta(days=1)), await showcase.contest()
    placed = await showcase.entry(settled, api.member(author))
    await showcase.vote(placed)
    leaving = await showcase.entry(running, api.member(author))
    staying = await showcase.entry(running)
    api.clock.advance(timedelta(days=2))
    assert (await showcase.client.post(f"/v1/admin/contests/{settled}/settle", headers=api.admin())).status_code == 200
    await api.handle(MemberErased(member_id=author))
    await api.run_due()
    results = (await showcase.client.get(f"/v1/contests/{settled}/results")).json()
    assert [(item["entry_id"], item["votes"]) for item in results["items"]] == [(placed, 1)]
    shown = (await showcase.client.get(f"/v1/entries/{placed}")).json()
    assert (shown["images"], shown["story"]) == ([], "")
    assert (await showcase.client.get(f"/v1/entries/{leaving}")).status_code == 404
    listed = (await showcase.client.get(f"/v1/contests/{running}/entries")).json()
    assert [item["id"] for item in listed["items"]] == [staying]
