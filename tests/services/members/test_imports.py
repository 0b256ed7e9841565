"""Imports: every row of a file or none, each bad one named, written by a job that a crash or a race begins again."""

import asyncio
from typing import Any

import httpx
import pytest

from contracts.members import MemberChanged, MemberRegistered
from services.members import importing
from tests.harness import Api
from tests.services.members.steps import a_member, sign_in

HEADER = "nickname,phone,labels,tier\n"


async def send(api: Api, content: str | bytes, **options: Any) -> httpx.Response:
    files = {"file": ("people.csv", content if isinstance(content, bytes) else content.encode(), "text/csv")}
    headers = options.get("headers") or api.admin("members:write")
    return await api.client.post("/v1/admin/members/imports", files=files, headers=headers)


async def progress(api: Api, import_id: str) -> dict[str, Any]:
    answer = await api.client.get(f"/v1/admin/members/imports/{import_id}", headers=api.admin("members:read"))
    assert answer.status_code == 200
    return dict(answer.json())


async def members(api: Api) -> dict[str, tuple[str, str, list[str]]]:
    items = (await api.client.get("/v1/admin/members?limit=100", headers=api.admin())).json()["items"]
    return {item["phone"]: (item["nickname"], item["tier"], item["labels"]) for item in items}


async def test_a_file_registers_people_and_labels_those_who_are_there(api: Api) -> None:
    member_id, headers = await a_member(api, "+8613800138000")
    await api.client.patch("/v1/me", json={"nickname": "Ada"}, headers=headers)
    await api.emitted()
    content = (
        "\ufeff" + HEADER + "Other,13800138000,vip;north,expert\n小麦,+8613800138001,vip,\n,13800138002,,instructor\n\n"
    )
    answer = await send(api, content)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/v1/admin/members/imports/{job['id']}"
    assert (job["status"], job["rows"], job["done"]) == ("pending", 3, 0)
    assert len(await members(api)) == 1

    assert await api.run_due() == 2, "the file, and the tag of the one who was here"
    shown = await progress(api, job["id"])
    assert {name: shown[name] for name in ("status", "done", "created", "updated")} == {
        "status": "done",
        "done": 3,
        "created": 2,
        "updated": 1,
    }
    found = await members(api)
    assert found["+8613800138000"] == ("Ada", "expert", ["vip", "north"])
    assert found["+8613800138001"] == ("小麦", "potential", ["vip"])
    assert found["+8613800138002"][0].startswith("烘焙友")
    told = await api.emitted()
    assert sorted(type(event).__name__ for event in told) == ["MemberChanged"] * 3 + ["MemberRegistered"] * 2
    assert {event.tier for event in told if isinstance(event, MemberChanged) and event.member_id == member_id} == {
        "expert"
    }
    assert await api.sql("SELECT 1 FROM member_import WHERE sealed IS NOT NULL") == []
    assert await api.run_due() == 0
    assert await api.emitted() == []

    again = await sign_in(api, "+8613800138001")
    assert (again["created"], again["member"]["nickname"]) == (False, "小麦")
    acts = (await api.client.get(f"/v1/admin/audit?target={job['id']}", headers=api.admin())).json()["items"]
    assert [(act["action"], act["after"]["file"]) for act in acts] == [
        ("members.imported", "people.csv"),
        ("members.import_asked", "people.csv"),
    ]


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (HEADER + "a,13800138000,,\nb,12,,king\n", [(3, "phone", "value_error"), (3, "tier", "literal_error")]),
        (HEADER + "a,13800138000,,\nb,+86 138 0013 8000,,\n", [(3, "phone", "phone_repeated")]),
        (HEADER + f"{'x' * 31},13800138000,,\n", [(2, "nickname", "too_long")]),
        (HEADER + f"a,13800138000,{'x' * 41},\n", [(2, "labels", "too_long")]),
        (HEADER + "a,13800138000,,,more\n", [(2, "tier", "too_many_cells")]),
        (HEADER, [(2, "phone", "missing")]),
        ("nickname,secret\na,b\n", [(1, "secret", "unknown_column"), (1, "phone", "missing")]),
        ("phone,phone\n1,2\n", [(1, "phone", "repeated")]),
        (HEADER + 'a,"13800138000\n', [(2, "phone", "csv_invalid")]),
        ("", [(1, "phone", "missing")]),
    ],
)
async def test_one_bad_row_refuses_the_file_and_is_named(
    api: Api, content: str, errors: list[tuple[int, str, str]]
) -> None:
    refused = await send(api, content)
    assert (refused.status_code, refused.json()["code"]) == (422, "import_refused")
    assert [(e["loc"][1], e["loc"][2], e["code"]) for e in refused.json()["errors"]] == errors
    assert await api.run_due() == 0
    assert await members(api) == {}


async def test_only_writers_import_and_only_utf8(api: Api) -> None:
    assert (await send(api, HEADER, headers=api.admin("members:read"))).status_code == 403
    refused = await send(api, "昵称".encode("gbk"))
    assert (refused.status_code, refused.json()["code"]) == (422, "not_utf8")
    path = "/v1/admin/members/imports/01990d3f-6c9e-7cc5-8f0e-1f6a3e1b2c3d"
    assert (await api.client.get(path, headers=api.admin())).json()["code"] == "import_not_found"


async def test_phones_lie_sealed_while_they_wait(api: Api) -> None:
    await send(api, HEADER + "小麦,13800138001,,\n")
    [[sealed]] = await api.sql("SELECT sealed FROM member_import")
    assert "13800138001" not in sealed


async def test_how_far_it_is_can_be_seen_and_its_people_only_at_the_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "PORTION", 2)
    people = "".join(f"p{number},1380013800{number},,\n" for number in range(5))
    import_id = (await send(api, HEADER + people)).json()["id"]
    seen: list[tuple[int, int]] = []
    show = importing._show

    async def showing(*args: Any) -> None:
        await show(*args)
        seen.append(((await progress(api, import_id))["done"], len(await members(api))))

    monkeypatch.setattr(importing, "_show", showing)
    assert await api.run_due() == 1
    assert seen == [(2, 0), (4, 0), (5, 0)]
    assert len(await members(api)) == 5


async def test_an_import_that_breaks_off_leaves_nothing_and_begins_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "PORTION", 1)
    import_id = (await send(api, HEADER + "a,13800138000,,\nb,13800138001,,\n")).json()["id"]
    show = importing._show

    async def breaking(*args: Any) -> None:
        raise importing.Raced

    monkeypatch.setattr(importing, "_show", breaking)
    assert await importing.write_imports(api.rt) == 0
    assert await members(api) == {}
    assert await api.emitted() == []
    monkeypatch.setattr(importing, "_show", show)
    # Two processes find the job at once: one writes it.
    written = await asyncio.gather(importing.write_imports(api.rt), importing.write_imports(api.rt))
    assert sorted(written) == [0, 1]
    assert (await progress(api, import_id))["created"] == 2
    assert [type(event) for event in await api.emitted()] == [MemberRegistered] * 2


async def test_a_large_file_is_taken_whole(api: Api) -> None:
    labels = ";".join(f"{number:02}{'标' * 38}" for number in range(50))
    people = "".join(
        f"{'饼' * 30},1380{number:07},{labels if number % 100 == 0 else 'vip'},\n" for number in range(2000)
    )
    import_id = (await send(api, HEADER + people)).json()["id"]
    assert await api.run_due() == 1
    shown = await progress(api, import_id)
    assert (shown["status"], shown["done"], shown["created"], shown["updated"]) == ("done", 2000, 2000, 0)
    [row] = await api.sql("SELECT count(*) AS n, count(DISTINCT id) AS d, max(cardinality(labels)) AS most FROM member")
    assert (row.n, row.d, row.most) == (2000, 2000, 50)
    again = (await send(api, HEADER + people)).json()["id"]
    assert await api.run_due() == 1
    assert ((await progress(api, again))["created"], (await progress(api, again))["updated"]) == (0, 2000)


async def test_an_import_that_cannot_be_opened_holds_up_no_other(api: Api) -> None:
    first = (await send(api, HEADER + "a,13800138000,,\n")).json()["id"]
    await api.sql("UPDATE member_import SET sealed = 'sealed with a lost key'")
    second = (await send(api, HEADER + "b,13800138001,,\n")).json()["id"]
    assert await api.run_due() == 2
    assert ((await progress(api, first))["status"], (await progress(api, second))["status"]) == ("failed", "done")
    assert (await members(api)).keys() == {"+8613800138001"}
