"""Sharing: one link a member and work, told once, that credits whoever shares."""

import asyncio
import io

import segno
from PIL import Image

from contracts.members import MemberErased, MemberMerged
from contracts.showcase import EntryShared
from kit.ids import new_id
from services.showcase.settings import Settings
from tests.harness import Api
from tests.kit.test_poster import modules
from tests.services.showcase.conftest import Showcase, picture


async def test_a_link_is_one_for_each_member_and_work_however_often_it_is_asked_for(
    api: Api, showcase: Showcase
) -> None:
    author = api.member()
    entry = await showcase.entry(await showcase.contest(), author)
    await api.emitted()
    path, canvasser = f"/v1/entries/{entry}/share-links", new_id()

    answers = await asyncio.gather(*(api.client.post(path, headers=api.member(canvasser)) for _ in range(6)))

    links = {answer.json()["token"] for answer in answers}
    assert ({answer.status_code for answer in answers}, len(links)) == ({201}, 1)
    (token,) = links
    assert answers[0].json()["url"] == f"http://127.0.0.1:8000/w/{entry}?invite_code={token}"
    [told] = await api.emitted()
    assert isinstance(told, EntryShared)
    assert (told.token, str(told.entry_id), told.member_id) == (token, entry, canvasser)
    assert (await api.client.post(path, headers=author)).json()["token"] != token
    assert (await api.client.post(path)).status_code == 401
    # Two accounts that become one keep one link; who leaves leaves none.
    other = new_id()
    await api.client.post(path, headers=api.member(other))
    await api.handle(MemberMerged(kept_id=canvasser, merged_id=other))
    assert [row.token for row in await api.sql("SELECT token FROM share_link WHERE member_id = :id", id=canvasser)] == [
        token
    ]
    await api.handle(MemberErased(member_id=canvasser))
    assert await api.sql("SELECT 1 FROM share_link WHERE member_id = :id", id=canvasser) == []


async def test_only_what_is_on_show_can_be_shared(api: Api, showcase: Showcase) -> None:
    author = api.member()
    waiting = (await showcase.enter(await showcase.contest(moderation="pre"), author)).json()["id"]
    for entry in (waiting, str(new_id())):
        refused = await api.client.post(f"/v1/entries/{entry}/share-links", headers=author)
        assert (refused.status_code, refused.json()["code"]) == (404, "entry_not_found")
    pages = Settings(entry_url="https://h5.example/#/work?id={entry_id}")
    assert pages.entry_link(work := new_id(), channel="douyin") == f"https://h5.example/#/work?id={work}&channel=douyin"


async def test_the_poster_shows_the_work_and_opens_the_callers_own_link(api: Api, showcase: Showcase) -> None:
    author, canvasser = api.member(author_id := new_id()), api.member()
    await showcase.registered(author_id, "爱吃可颂的小周")
    entry = (await showcase.enter(await showcase.contest(), author, title="草莓蛋糕🍓" * 8)).json()["id"]
    path = f"/v1/entries/{entry}"

    answer = await api.client.get(f"{path}/poster.png", headers=canvasser)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    link = (await api.client.post(f"{path}/share-links", headers=canvasser)).json()
    with Image.open(io.BytesIO(picture())) as brought:
        tomato = brought.getpixel((5, 5))
    with Image.open(io.BytesIO(answer.content)) as poster:
        assert poster.size == (750, 1250)
        assert poster.convert("RGB").getpixel((375, 400)) == tomato
        expected = segno.make(link["url"], error="m", micro=False, boost_error=False).matrix
        assert modules(poster.crop((400, 900, 750, 1250))) == [[bool(dot) for dot in row] for row in expected]
    assert (await api.client.get(f"{path}/poster.png")).status_code == 401
    # Of a work whose pictures are gone there still is a poster; of one that is not on show there is none.
    await api.sql("DELETE FROM entry_image")
    assert (await api.client.get(f"{path}/poster.png", headers=author)).status_code == 200
    await api.client.delete(path, headers=author)
    gone = await api.client.get(f"{path}/poster.png", headers=author)
    assert (gone.status_code, gone.json()["code"]) == (404, "entry_not_found")
