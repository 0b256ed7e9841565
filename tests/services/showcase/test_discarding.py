"""Pictures of a member who leaves: their files are deleted, once, and never those that somebody else shows too."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

from contracts.members import MemberErased
from kit import clock
from kit.ids import new_id
from services.showcase.storage import PicturesAway


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


async def test_an_upload_that_was_cut_short_is_never_shown_and_leaves_nothing(
    showcase: Any, api: Any, author: Any, make_picture: Any, monkeypatch: Any
) -> None:
    contest, folder, mine = await showcase.contest(), api.rt.settings.uploads, api.member(author)
    storage = api.rt.state["darkroom"].storage
    whole = storage.save
    saved: list[str] = []

    def dies(name: str, content: bytes) -> None:
        if len(saved) == 2:
            raise PicturesAway(retry_after=5)
        saved.append(name)
        whole(name, content)

    with monkeypatch.context() as broken:
        broken.setattr(storage, "save", dies)
        refused = await showcase.upload(mine, make_picture((30, 30)), **{"Idempotency-Key": "cut"})
    assert (refused.status_code, refused.json()["code"]) == (503, "pictures_away")
    assert refused.headers["retry-after"] == "5"
    [(cut, stored)] = await api.sql("SELECT id::text, stored FROM upload")
    assert (stored, files(folder)) == (False, 2)
    body = {"title": "x", "upload_ids": [cut]}
    entered = await showcase.client.post(f"/v1/contests/{contest}/entries", json=body, headers=mine)
    assert (entered.status_code, entered.json()["code"]) == (422, "upload_unknown")

    # The retry with the same key succeeds, and keeps the files that the first one had begun.
    again = await showcase.upload(mine, make_picture((30, 30)), **{"Idempotency-Key": "cut"})
    assert again.status_code == 201, again.text
    other = new_id()
    with monkeypatch.context() as broken:
        broken.setattr(storage, "save", dies)
        saved.clear()
        assert (await showcase.upload(api.member(other), make_picture((50, 30)))).status_code == 503
    assert (await api.run_due(), files(folder)) == (0, 6)
    api.clock.advance(timedelta(hours=1, seconds=1))
    # Two rows given up, and two pictures looked at: one is shown by the retry.
    assert await api.run_due() == 4
    assert await api.run_due() == 0
    assert files(folder) == 4
    [(left, stored)] = await api.sql("SELECT id::text, stored FROM upload")
    assert (left, stored) == (again.json()["id"], True)


async def test_files_are_deleted_without_a_connection_and_whoever_brings_them_again_waits(
    showcase: Any, api: Any, author: Any, make_picture: Any, monkeypatch: Any
) -> None:
    content, storage = make_picture((30, 30)), api.rt.state["darkroom"].storage
    assert (await showcase.upload(api.member(author), content)).status_code == 201
    await api.handle(MemberErased(member_id=author))
    begun, go_on, delete = threading.Event(), threading.Event(), storage.delete

    def slowly(names: Any) -> None:
        begun.set()
        go_on.wait(20)
        delete(names)

    monkeypatch.setattr(storage, "delete", slowly)
    cleaning = asyncio.create_task(api.run_due())
    await asyncio.to_thread(begun.wait, 20)
    assert api.rt.db.engine.pool.checkedout() == 0
    bringing = asyncio.create_task(showcase.upload(api.member(), content))
    while not api.rt.state["darkroom"].inside:  # noqa: ASYNC110 - the darkroom tells nobody
        await asyncio.sleep(0.01)
    go_on.set()
    answer, done = await asyncio.gather(bringing, cleaning)
    assert (answer.status_code, done) == (201, 1)
    assert files(api.rt.settings.uploads) == 4
    assert await api.run_due() == 0
