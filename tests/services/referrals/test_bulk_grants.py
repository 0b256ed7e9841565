"""Grants in bulk: a file is taken whole or not at all, every row is settled once, and never one more than there are."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from contracts.members import MemberErased, MemberMerged
from contracts.referrals import CouponIssued
from kit.ids import new_id
from services.referrals import giving
from services.referrals.app import service
from services.referrals.giving import give_waiting
from tests.harness import Api, Run
from tests.services.referrals.conftest import KEYS
from tests.services.referrals.world import campaign, claim, coupons, member, registered

CAMPAIGNS = "/v1/admin/coupon-campaigns"


def table(*members: UUID, note: str = "小麦") -> bytes:
    return "\n".join(["\ufeffmember_id,note", *(f"{one},{note}" for one in members), ""]).encode()


async def send(api: Api, campaign_id: str, content: bytes, headers: dict[str, str] | None = None) -> Any:
    path = f"{CAMPAIGNS}/{campaign_id}/grant-batches"
    return await api.client.post(
        path, headers=headers or api.admin(), files={"file": ("名单.csv", content, "text/csv")}
    )


async def rows(api: Api, location: str, **params: str) -> list[tuple[int, str, str | None]]:
    """Number, state and reason of every row, over all pages."""
    found, cursor = [], None
    while True:
        page = await api.client.get(
            f"{location}/rows",
            headers=api.admin(),
            params={"limit": 100, **params, **({"cursor": cursor} if cursor else {})},
        )
        assert page.status_code == 200, page.text
        found += [(item["row"], item["status"], item["code"]) for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found


async def test_a_file_of_members_is_given_behind_the_answer_and_shows_how_far_it_is(api: Api) -> None:
    made = await campaign(api, total=3, audience="tier:expert")
    people = [await member(api) for _ in range(4)]
    await claim(api, made["id"], people[0])  # not for them: nothing is held
    gone, nobody = await member(api), new_id()
    await api.handle(MemberErased(member_id=gone))
    content = table(people[0], nobody, gone, *people[1:])
    await api.emitted()
    await api.acted()

    answer = await send(api, made["id"], content)

    assert answer.status_code == 202, answer.text
    batch, location = answer.json(), answer.headers["Location"]
    assert (batch["rows"], batch["granted"], batch["refused"], batch["finished_at"]) == (6, 0, 0, None)
    assert batch["file_name"] == "名单.csv"
    assert [one.action for one in await api.acted()] == ["coupons.grant_asked"]
    assert await rows(api, location) == [(number, "waiting", None) for number in range(2, 8)]
    assert await api.run_due() == 6
    assert await api.run_due() == 0
    done = (await api.client.get(location, headers=api.admin())).json()
    assert (done["granted"], done["refused"]) == (3, 3)
    assert done["finished_at"] is not None
    assert await rows(api, location, status="refused") == [
        (3, "refused", "member_unknown"),
        (4, "refused", "member_unknown"),
        (7, "refused", "coupon_exhausted"),
    ]
    told = [event for event in await api.emitted() if isinstance(event, CouponIssued)]
    assert [event.member_id for event in told] == people[:3]
    assert [len(await coupons(api, one)) for one in people] == [1, 1, 1, 0]
    assert (await api.client.get(f"{CAMPAIGNS}/{made['id']}/stats", headers=api.admin())).json()["claimed"] == 3

    again = await send(api, made["id"], content)

    assert (again.status_code, again.json()) == (202, done)
    assert await api.run_due() == 0
    listed = (await api.client.get(f"{CAMPAIGNS}/{made['id']}/grant-batches", headers=api.admin())).json()["items"]
    assert listed == [done]


async def test_what_was_refused_is_tried_again_and_what_was_given_is_not(api: Api) -> None:
    made = await campaign(api, total=1, per_member=2)
    people = [await member(api) for _ in range(3)]
    location = (await send(api, made["id"], table(*people))).headers["Location"]
    await api.run_due()
    await api.client.patch(f"{CAMPAIGNS}/{made['id']}", headers=api.admin(), json={"total": 9})

    answers = await asyncio.gather(*(api.client.post(f"{location}/retries", headers=api.admin()) for _ in range(3)))

    assert [(one.status_code, one.json()["granted"], one.json()["refused"]) for one in answers] == [(202, 1, 0)] * 3
    assert await api.run_due() == 2
    done = (await api.client.get(location, headers=api.admin())).json()
    assert (done["granted"], done["refused"], done["finished_at"] is None) == (3, 0, False)
    assert [len(await coupons(api, one)) for one in people] == [1, 1, 1]


async def test_two_processes_and_a_crowd_give_exactly_the_total(
    api: Api, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "PORTION", 7)
    made = await campaign(api, total=50)
    people = [registered() for _ in range(60)]
    await api.handle(*people)
    location = (await send(api, made["id"], table(*(one.member_id for one in people)))).headers["Location"]
    async with run(service, database_url=str(api.rt.db.url), coupon_keys=KEYS) as second:
        claims = [claim(api, made["id"], new_id()) for _ in range(20)]
        settled = await asyncio.gather(give_waiting(api.rt), give_waiting(second.rt), *claims)
        rest = await give_waiting(api.rt)

    done = (await api.client.get(location, headers=api.admin())).json()
    claimed = len([answer for answer in settled[2:] if answer.status_code == 201])
    assert settled[0] + settled[1] + rest == 60
    assert done["granted"] + done["refused"] == 60
    assert done["granted"] + claimed == 50
    assert done["finished_at"] is not None
    stored = await api.sql("SELECT count(*) AS n, count(DISTINCT member_id) AS people FROM coupon")
    assert tuple(stored[0]) == (50, 50)


async def test_a_job_that_dies_midway_goes_on_where_it_stopped(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving, "PORTION", 2)
    made = await campaign(api)
    people = [registered() for _ in range(5)]
    await api.handle(*people)
    location = (await send(api, made["id"], table(*(one.member_id for one in people)))).headers["Location"]
    give, calls = giving._give, 0

    async def dies(session: Any, batch_id: UUID, portion: Any) -> None:
        nonlocal calls
        calls += 1
        await give(session, batch_id, portion)
        if calls == 2:
            raise ConnectionError

    monkeypatch.setattr(giving, "_give", dies)
    with pytest.raises(ConnectionError):
        await give_waiting(api.rt)
    midway = (await api.client.get(location, headers=api.admin())).json()

    assert await give_waiting(api.rt) == 3

    assert (midway["granted"], midway["finished_at"]) == (2, None)
    assert (await api.client.get(location, headers=api.admin())).json()["granted"] == 5
    held = await api.sql("SELECT count(*) AS n FROM coupon")
    assert held[0].n == 5


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (b"", [(1, "member_id", "missing")]),
        (b"member_id\n", [(2, "member_id", "missing")]),
        (b"phone\n13900000001\n", [(1, "phone", "unknown_column"), (1, "member_id", "missing")]),
        (b"member_id,member_id\n", [(1, "member_id", "repeated")]),
        (b"member_id\nnobody\n\n1,2\n", [(2, "member_id", "uuid_parsing"), (4, "member_id", "too_many_cells")]),
        (b'member_id\n"broken\n', [(2, "member_id", "csv_invalid")]),
        (f"member_id,note\n{UUID(int=7)},{'x' * 201}\n".encode(), [(2, "note", "too_long")]),
        (table(UUID(int=7), UUID(int=8), UUID(int=7)), [(4, "member_id", "member_repeated")]),
    ],
)
async def test_a_file_with_a_bad_row_gives_nobody_anything(
    api: Api, content: bytes, errors: list[tuple[int, str, str]]
) -> None:
    made = await campaign(api)

    answer = await send(api, made["id"], content)

    assert (answer.status_code, answer.json()["code"]) == (422, "grant_file_refused")
    found = [(error["loc"][1], error["loc"][2], error["code"]) for error in answer.json()["errors"]]
    assert [(number, column) for number, column, _ in found] == [(number, column) for number, column, _ in errors]
    assert [code in known for (_, _, code), (_, _, known) in zip(found, errors, strict=True)] == [True] * len(errors)
    assert await api.sql("SELECT * FROM grant_batch") == []


async def test_a_batch_follows_a_merge_is_forgotten_and_is_an_admins_alone(api: Api) -> None:
    made, other = await campaign(api), await campaign(api)
    kept, merged, erased = [await member(api) for _ in range(3)]
    location = (await send(api, made["id"], table(kept, merged, erased, note="王女士"))).headers["Location"]
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged), MemberErased(member_id=erased))
    await api.run_due()

    assert await rows(api, location) == [
        (2, "granted", None),
        (3, "refused", "coupon_already_claimed"),
        (4, "refused", "member_unknown"),
    ]
    items = (await api.client.get(f"{location}/rows", headers=api.admin())).json()["items"]
    assert [item["note"] for item in items] == ["王女士", "王女士", ""]
    assert items[1]["member_id"] == str(kept)
    bad = await send(api, made["id"], "member_id\n王".encode("gbk"))
    assert (bad.status_code, bad.json()["code"]) == (422, "not_utf8")
    missing = await send(api, str(new_id()), table(kept))
    assert (missing.status_code, missing.json()["code"]) == (404, "campaign_not_found")
    elsewhere = location.replace(made["id"], other["id"])
    for path in (elsewhere, f"{elsewhere}/rows"):
        found = await api.client.get(path, headers=api.admin())
        assert (found.status_code, found.json()["code"]) == (404, "grant_batch_not_found")
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("plans:read"), 403)):
        for path in (location, f"{location}/rows", f"{CAMPAIGNS}/{made['id']}/grant-batches"):
            assert (await api.client.get(path, headers=headers)).status_code == status
    reader = api.admin("coupons:read")
    assert (await send(api, made["id"], table(kept), reader)).status_code == 403
    assert (await api.client.post(f"{location}/retries", headers=reader)).status_code == 403
