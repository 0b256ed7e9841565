"""Features: drafts that only editors see, then shown to everybody and told once."""

from typing import Any

from contracts.showcase import EntryFeatured
from kit.ids import new_id
from tests.harness import Api
from tests.services.showcase.conftest import Showcase

PATH = "/v1/admin/features"


async def feature(api: Api, entry_id: str, **changes: Any) -> Any:
    body = {"entry_id": entry_id, "title": "第一炉欧包", "body": "访谈：从养酵种说起。", "published": False} | changes
    return await api.client.post(PATH, headers=api.admin("contests:write"), json=body)


async def test_a_draft_is_seen_by_editors_and_told_when_it_is_first_published(api: Api, showcase: Showcase) -> None:
    author = api.member(author_id := new_id())
    entry = await showcase.entry(await showcase.contest(), author)
    await api.emitted()

    made = await feature(api, entry)

    assert (made.status_code, made.headers["etag"], made.json()["published"]) == (201, '"1"', False), made.text
    path = f"{PATH}/{made.json()['id']}"
    assert (await api.client.get("/v1/features")).json()["items"] == []
    assert (await api.client.get(f"/v1/features/{made.json()['id']}")).json()["code"] == "feature_not_found"
    assert len((await api.client.get(PATH, headers=api.admin("contests:read"))).json()["items"]) == 1
    changed = made
    for published in (True, False, True):
        changed = await api.client.patch(path, headers=api.admin(), json={"published": published})
        assert (changed.status_code, changed.json()["published"]) == (200, published)
    (told,) = await api.emitted()
    assert isinstance(told, EntryFeatured)
    assert (str(told.entry_id), told.member_id) == (entry, author_id)
    (shown,) = (await api.client.get("/v1/features")).json()["items"]
    assert (shown["title"], shown["entry"]["id"], shown["version"]) == ("第一炉欧包", entry, 4)
    stale = await api.client.patch(path, headers=api.admin() | {"If-Match": '"1"'}, json={"title": "旧"})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    read = await api.client.get(path, headers=api.admin("contests:read"))
    assert (read.json(), read.headers["etag"]) == (changed.json(), '"4"')


async def test_what_its_author_withdraws_is_not_shown_any_more(api: Api, showcase: Showcase) -> None:
    author = api.member()
    entry = await showcase.entry(await showcase.contest(), author)
    made = (await feature(api, entry, published=True)).json()
    assert (await api.client.get(f"/v1/features/{made['id']}")).status_code == 200

    await api.client.delete(f"/v1/entries/{entry}", headers=author)

    assert (await api.client.get(f"/v1/features/{made['id']}")).status_code == 404
    assert (await api.client.get("/v1/features")).json()["items"] == []
    again = await feature(api, entry)
    assert (again.status_code, again.json()["code"]) == (409, "entry_not_on_show")
    assert (await feature(api, str(new_id()))).json()["code"] == "entry_not_found"


async def test_only_editors_feature_works(api: Api, showcase: Showcase) -> None:
    entry = await showcase.entry(await showcase.contest())
    made = (await feature(api, entry, published=True)).json()
    body = {"entry_id": entry, "title": "x", "body": "", "published": True}
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("contests:read"), 403)):
        assert (await api.client.post(PATH, headers=headers, json=body)).status_code == status
        assert (await api.client.patch(f"{PATH}/{made['id']}", headers=headers, json={})).status_code == status
        assert (await api.client.delete(f"{PATH}/{made['id']}", headers=headers)).status_code == status
    assert (await api.client.get(f"{PATH}/{made['id']}", headers=api.member())).status_code == 403
    assert (await api.client.delete(f"{PATH}/{made['id']}", headers=api.admin())).status_code == 204
    assert (await api.client.get(f"{PATH}/{made['id']}", headers=api.admin())).json()["code"] == "feature_not_found"
    assert (await api.client.get("/v1/features")).json()["items"] == []
