"""The member directory: finding, seeing and changing members, with versions and notes."""

import asyncio
from datetime import timedelta
from typing import Any

from contracts.members import MemberChanged
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import PHONE, a_member
from tests.services.members.test_membership import paid


async def find(api: Api, **params: Any) -> list[str]:
    answer = await api.client.get("/v1/admin/members", params=params, headers=api.admin("members:read"))
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def change(api: Api, member_id: Any, headers: dict[str, str] | None = None, **patch: Any) -> Any:
    path = f"/v1/admin/members/{member_id}"
    return await api.client.patch(path, json=patch, headers=api.admin("members:write") | (headers or {}))


async def three_members(api: Api) -> list[str]:
    """Ada, who is active; Bo, expired, with a label; Cy, who never bought."""
    found = []
    for number, name in enumerate(("Ada 100%", "Bo_面包", "Cy")):
        member_id, headers = await a_member(api, f"+8613800138{number:03}")
        await api.client.patch("/v1/me", json={"nickname": name}, headers=headers)
        found.append(str(member_id))
    await change(api, found[1], labels=["vip", "north"], roles=["organizer"], tier="expert")
    await api.handle(paid(found[1]))  # type: ignore[arg-type]  # pydantic reads it
    api.clock.advance(timedelta(days=60))
    await api.handle(paid(found[0]))  # type: ignore[arg-type]
    await api.emitted()
    return found


async def test_members_are_found_by_every_filter(api: Api) -> None:
    ada, bo, cy = await three_members(api)
    assert await find(api) == [cy, bo, ada]
    assert await find(api, q="ada") == [ada]
    assert await find(api, q="100%") == [ada]
    assert await find(api, q="%") == [ada]
    assert await find(api, q="_") == [bo]
    assert await find(api, q="\\") == []
    assert await find(api, q="面包") == [bo]
    assert await find(api, q="面") == [bo]
    assert await find(api, q="包") == [bo]
    assert await find(api, q="O_") == [bo]
    assert await find(api, q="0%") == [ada]
    assert await find(api, q="包面") == []
    assert await find(api, q="y", tier="potential") == [cy]
    assert await find(api, q="y", tier="expert") == []
    assert await find(api, q="13800138002") == [cy]
    assert await find(api, q="+8613800138002") == [cy]
    assert await find(api, q=bo) == [bo]
    assert await find(api, tier="expert") == [bo]
    assert await find(api, role="organizer") == [bo]
    assert await find(api, label="vip") == [bo]
    assert await find(api, label="vip", tier="potential") == []
    assert await find(api, membership="active") == [ada]
    assert await find(api, membership="expired") == [bo]
    assert await find(api, membership="none") == [cy]
    assert await find(api, membership="grace") == []


async def test_a_whole_phone_finds_its_owner_alone_and_nobodys_is_looked_for_in_nicknames(api: Api) -> None:
    ada, _, _ = await three_members(api)
    names = {}
    for name in ("13800138000", "13900139000"):
        member_id, headers = await a_member(api, f"+86137{name[3:]}")
        await api.client.patch("/v1/me", json={"nickname": name}, headers=headers)
        names[name] = str(member_id)
    assert await find(api, q="13800138000") == [ada]
    assert await find(api, q="13900139000") == [names["13900139000"]]
    assert await find(api, q="1380013800") == [names["13800138000"]]
    assert await find(api, q="13600136000") == []


async def test_bad_filters_are_refused(api: Api) -> None:
    for params in (
        {"tier": "king"},
        {"role": "x"},
        {"membership": "x"},
        {"q": "a\u0000"},
        {"limit": 0},
        {"cursor": "x"},
    ):
        answer = await api.client.get("/v1/admin/members", params=params, headers=api.admin())
        assert answer.status_code == 422, params


async def test_the_directory_comes_in_pages(api: Api) -> None:
    ada, bo, cy = await three_members(api)
    first = (await api.client.get("/v1/admin/members?limit=2", headers=api.admin())).json()
    assert [item["id"] for item in first["items"]] == [cy, bo]
    rest = await api.client.get(f"/v1/admin/members?limit=2&cursor={first['next_cursor']}", headers=api.admin())
    assert [item["id"] for item in rest.json()["items"]] == [ada]
    assert rest.json()["next_cursor"] is None


async def test_an_admin_sees_a_member_whole(api: Api) -> None:
    member_id, headers = await a_member(api)
    await api.handle(paid(member_id))
    await api.client.post("/v1/me/check-ins", headers=headers)
    answer = await api.client.get(f"/v1/admin/members/{member_id}", headers=api.admin("members:read"))
    body = answer.json()
    assert answer.headers["etag"] == '"1"'
    assert (body["phone"], body["phone_masked"], body["points"]) == (PHONE, "138****8000", 2)
    assert (body["frozen"], body["note"], body["evidence"]) == (False, "", {})
    assert body["membership"]["status"] == "active"
    missing = await api.client.get(f"/v1/admin/members/{new_id()}", headers=api.admin())
    assert (missing.status_code, missing.json()["code"]) == (404, "member_not_found")


async def test_a_change_is_told_and_noted_with_before_and_after(api: Api) -> None:
    member_id, _ = await a_member(api)
    admin_id = new_id()
    answer = await change(
        api, member_id, api.admin(admin_id=admin_id), tier="instructor", labels=["a", "a", "b"], note="met at the fair"
    )
    assert answer.status_code == 200
    assert (answer.json()["tier"], answer.json()["labels"]) == ("instructor", ["a", "b"])
    assert answer.headers["etag"] == '"2"'
    [told] = await api.emitted()
    assert isinstance(told, MemberChanged)
    assert (told.tier, told.labels, told.frozen) == ("instructor", ("a", "b"), False)
    [noted] = (await api.client.get(f"/v1/admin/audit?actor={admin_id}", headers=api.admin())).json()["items"]
    assert noted["action"] == "member.changed"
    assert noted["before"] == {"tier": "potential", "labels": [], "note": ""}
    assert noted["after"] == {"tier": "instructor", "labels": ["a", "b"], "note": "met at the fair"}


async def test_a_change_of_nothing_is_neither_told_nor_noted(api: Api) -> None:
    member_id, _ = await a_member(api)
    assert (await change(api, member_id, tier="potential", frozen=False)).headers["etag"] == '"1"'
    assert (await change(api, member_id)).status_code == 200
    assert await api.emitted() == []
    assert (await api.client.get("/v1/admin/audit", headers=api.admin())).json()["items"] == []


async def test_a_stale_version_changes_nothing(api: Api) -> None:
    member_id, _ = await a_member(api)
    assert (await change(api, member_id, {"If-Match": '"1"'}, tier="beginner")).status_code == 200
    refused = await change(api, member_id, {"If-Match": '"1"'}, tier="expert")
    assert (refused.status_code, refused.json()["code"]) == (412, "stale_version")
    assert (await api.client.get(f"/v1/admin/members/{member_id}", headers=api.admin())).json()["tier"] == "beginner"


async def test_of_ten_changes_to_one_version_at_once_one_is_made(api: Api) -> None:
    member_id, _ = await a_member(api)
    calls = [change(api, member_id, {"If-Match": '"1"'}, note=str(number)) for number in range(1, 11)]
    answers = await asyncio.gather(*calls)
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    assert len((await api.client.get("/v1/admin/audit", headers=api.admin())).json()["items"]) == 1


NO_CHANGES: tuple[dict[str, Any], ...] = (
    {"tier": "king"},
    {"tier": None},
    {"roles": ["king"]},
    {"roles": "organizer"},
    {"labels": [""]},
    {"labels": ["x" * 41]},
    {"frozen": "true"},
    {"frozen": 1},
    {"note": "x" * 2001},
    {"nickname": "not an admin's to change"},
)


async def test_what_a_member_cannot_be_is_refused(api: Api) -> None:
    member_id, _ = await a_member(api)
    for patch in NO_CHANGES:
        refused = await change(api, member_id, **patch)
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed"), patch
    assert await api.emitted() == []


async def test_reading_does_not_allow_writing(api: Api) -> None:
    member_id, headers = await a_member(api)
    assert (await change(api, member_id, api.admin("members:read"), frozen=True)).status_code == 403
    assert (await change(api, member_id, headers, frozen=True)).status_code == 403
    assert (await api.client.get("/v1/admin/members", headers=api.admin("audit:read"))).status_code == 403
