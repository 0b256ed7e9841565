"""Best works: an archive with everything the community's own media need, written while it is sent."""

import csv
import io
import zipfile
from datetime import timedelta
from typing import Any

import pytest

from kit import clock
from kit.ids import new_id
from services.showcase import best_works
from services.showcase.channel_texts import CHANNELS, Work, text_for
from tests.harness import Api
from tests.services.showcase.conftest import Showcase, picture


async def archive(api: Api, contest: str, **params: Any) -> zipfile.ZipFile:
    path = f"/v1/admin/contests/{contest}/best-works.zip"
    answer = await api.client.get(path, headers=api.admin("contests:read"), params=params)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    found = zipfile.ZipFile(io.BytesIO(answer.content))
    assert found.testzip() is None
    return found


async def test_the_archive_holds_the_best_with_their_pictures_and_a_text_for_each_channel(
    api: Api, showcase: Showcase
) -> None:
    contest = await showcase.contest(ends_at=clock.now() + timedelta(days=1))
    author = api.member(author_id := new_id())
    await showcase.registered(author_id, "=小麦")
    ids = [(await showcase.upload(author, picture((40 + n, 30)))).json()["id"] for n in range(3)]
    names = {"title": "../草莓/蛋糕: 一", "story": "做了两天。" * 100, "upload_ids": ids}
    first = (await showcase.enter(contest, author, **names)).json()
    second, third = await showcase.entry(contest), await showcase.entry(contest)
    hidden = (await showcase.enter(contest, api.member())).json()["id"]
    reject = {"decision": "reject", "reason": "模糊"}
    await api.client.post(f"/v1/admin/entries/{hidden}/moderation", json=reject, headers=api.admin())
    for entry in (first["id"], first["id"], second):
        assert (await showcase.vote(entry)).status_code == 201

    found = await archive(api, contest, limit=2)

    folders = {name.split("/")[0] for name in found.namelist()} - {"works.csv"}
    assert folders == {"01-草莓蛋糕 一", "02-草莓蛋糕"}
    rows = list(csv.DictReader(io.StringIO(found.read("works.csv").decode("utf-8-sig"))))
    assert [(row["place"], row["votes"], row["pictures"]) for row in rows] == [("1", "2", "3"), ("2", "1", "1")]
    assert (rows[0]["author"], rows[0]["entry_id"]) == ("'=小麦", first["id"])
    texts = [name for name in found.namelist() if name.startswith("01-") and name.endswith(".txt")]
    assert len(texts) == len(CHANNELS) == 16
    douyin = found.read("01-草莓蛋糕 一/texts/douyin-抖音.txt").decode()
    assert f"http://127.0.0.1:8000/w/{first['id']}?channel=douyin" in douyin
    served = await api.client.get(first["images"][1]["url"])
    assert found.read("01-草莓蛋糕 一/2.jpg") == served.content
    # Once settled it is the results that count, and their ranks that are told.
    api.clock.advance(timedelta(days=2))
    settled = await api.client.post(f"/v1/admin/contests/{contest}/settle", headers=api.admin())
    assert settled.status_code == 200
    found = await archive(api, contest)
    assert "第 1 名" in found.read("01-草莓蛋糕 一/texts/weibo-微博.txt").decode()
    assert {name.split("/")[0][:3] for name in found.namelist()} == {"wor", "01-", "02-", "03-"}
    assert third in found.read("works.csv").decode()


async def test_a_picture_that_is_gone_leaves_the_rest_and_only_one_is_in_memory(
    api: Api, showcase: Showcase, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = await showcase.contest()
    for _ in range(3):
        await showcase.entry(contest)
    read, held = api.rt.state["darkroom"].storage.read, list[int]()
    taken = best_works._Sent.take

    def take(self: Any) -> bytes:
        held.append(len(self.waiting))
        return taken(self)

    names: list[str] = []

    def one_is_gone(name: str) -> bytes | None:
        names.append(name)
        return None if len(names) == 2 else read(name)

    monkeypatch.setattr(best_works._Sent, "take", take)
    monkeypatch.setattr(api.rt.state["darkroom"].storage, "read", one_is_gone)
    found = await archive(api, contest)
    assert len([name for name in found.namelist() if name.endswith(".jpg")]) == 2
    assert len(names) == 3
    assert max(held) < 8000  # a picture, a text or the directory, never all of them
    empty = await archive(api, await showcase.contest())
    assert empty.namelist() == ["works.csv"]


async def test_only_who_reads_contests_takes_the_archive(api: Api, showcase: Showcase) -> None:
    path = f"/v1/admin/contests/{await showcase.contest()}/best-works.zip"
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("orders:read"), 403)):
        assert (await api.client.get(path, headers=headers)).status_code == status
    for limit in (0, 101):
        assert (await api.client.get(path, headers=api.admin(), params={"limit": limit})).status_code == 422
    missing = await api.client.get(f"/v1/admin/contests/{new_id()}/best-works.zip", headers=api.admin())
    assert (missing.status_code, missing.json()["code"]) == (404, "contest_not_found")


@pytest.mark.parametrize("story", ["", "短", "长" * 5000])
def test_a_text_fits_its_channel_and_keeps_the_link(story: str) -> None:
    link = "https://h5.heika.example/w/01990d3f-6c00-7000-8000-00000000cafe?channel=xiaohongshu"
    work = Work("题" * 80, story, "名" * 20, "赛" * 120, "第 10 名")
    for code, channel in CHANNELS.items():
        text = text_for(code, work, link)
        assert len(text) <= channel.length, code
        assert (link in text) == (code != "ximalaya"), code
        assert story[:1] in text
