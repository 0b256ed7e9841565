"""Contests: phases follow the clock, admins edit until the start, and settlement happens once."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.members import MemberRegistered
from contracts.showcase import EntryApproved, EntryPlaced, PrizeWon
from kit import clock
from kit.ids import new_id
from kit.text import instant
from services.showcase.app import service
from services.showcase.ballots import Ballot, Standing, cast
from services.showcase.seed import CONTEST_ID, seed

PRIZES: list[dict[str, Any]] = [
    {"from": 1, "to": 1, "title": "一等奖", "reward": {"kind": "membership_days", "value": 30}},
    {"from": 2, "to": 3, "title": "二等奖", "reward": {"kind": "coupon", "value": 500}},
]


async def test_a_contest_is_shown_as_its_admin_made_it(showcase: Any, api: Any) -> None:
    starts_at = clock.now().replace(microsecond=0) + timedelta(days=1)
    body = {
        "title": "中点大赛",
        "rules": "只做中式点心。",
        "starts_at": instant(starts_at),
        "ends_at": instant(starts_at + timedelta(days=7)),
        "votes_per_day": 5,
        "accounts_before": instant(starts_at - timedelta(days=1)),
        "moderation": "pre",
        "hide_totals": True,
        "prizes": PRIZES,
    }
    made = await showcase.client.post("/v1/admin/contests", json=body, headers=api.admin("contests:write"))
    assert made.status_code == 201
    assert made.headers["etag"] == '"1"'
    shown = body | {"id": made.json()["id"], "phase": "upcoming", "entries": 0, "settled_at": None}
    shown["tie_chain"] = ["votes", "trees", "reached_at", "submitted_at", "entry_id"]
    assert made.json() == shown
    public = await showcase.client.get(f"/v1/contests/{shown['id']}")
    assert (public.status_code, public.json()) == (200, shown)
    again = await showcase.client.get(f"/v1/contests/{shown['id']}", headers={"If-None-Match": public.headers["etag"]})
    assert again.status_code == 304


async def test_accounts_before_is_the_start_unless_given(showcase: Any, api: Any) -> None:
    starts_at = clock.now() + timedelta(hours=1)
    contest = await showcase.contest(starts_at=starts_at, accounts_before=None)
    url = f"/v1/admin/contests/{contest}"
    assert (await showcase.client.get(url, headers=api.admin())).json()["accounts_before"] == instant(starts_at)
    moved = instant(starts_at + timedelta(hours=1))
    answer = await showcase.client.patch(url, json={"starts_at": moved}, headers=api.admin())
    assert (answer.json()["starts_at"], answer.json()["accounts_before"]) == (moved, moved)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": ""},
        {"title": "好" * 121},
        {"title": None},
        {"starts_at": 0},
        {"ends_at": "2020-01-01T00:00:00Z"},
        {"ends_at": "2099-01-01T00:00:00"},
        {"ends_at": "9999-01-01T00:00:00Z"},
        {"accounts_before": "2099-01-01T00:00:00Z"},
        {"votes_per_day": 0},
        {"votes_per_day": 1001},
        {"votes_per_day": True},
        {"votes_per_day": "3"},
        {"moderation": "never"},
        {"hide_totals": "yes"},
        {"unknown": 1},
        {"prizes": [PRIZES[0], PRIZES[0]]},
        {"prizes": [PRIZES[1] | {"from": 5}]},
        {"prizes": [PRIZES[0] | {"reward": {"kind": "points", "value": "many"}}]},
        {"prizes": [PRIZES[0] | {"reward": {"kind": "points", "value": True}}]},
        {"prizes": [PRIZES[0] | {"reward": {"kind": "cake", "value": 1}}]},
    ],
)
async def test_a_contest_that_makes_no_sense_is_refused(showcase: Any, api: Any, changes: dict[str, Any]) -> None:
    now = clock.now()
    body = {"title": "大赛", "starts_at": instant(now), "ends_at": instant(now + timedelta(days=1))} | changes
    refused = await showcase.client.post("/v1/admin/contests", json=body, headers=api.admin())
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert await api.sql("SELECT 1 FROM contest") == []


async def test_the_phase_follows_the_clock_to_the_instant(showcase: Any, api: Any) -> None:
    starts_at = clock.now() + timedelta(hours=1)
    ends_at = starts_at + timedelta(hours=1)
    contest = await showcase.contest(starts_at=starts_at, ends_at=ends_at)

    async def phases() -> tuple[str, list[str]]:
        found = [
            phase
            for phase in ("upcoming", "open", "closed", "settled")
            if (await showcase.client.get(f"/v1/contests?phase={phase}")).json()["items"]
        ]
        return (await showcase.client.get(f"/v1/contests/{contest}")).json()["phase"], found

    assert await phases() == ("upcoming", ["upcoming"])
    api.clock.set(starts_at)
    assert await phases() == ("open", ["open"])
    api.clock.set(ends_at)
    assert await phases() == ("closed", ["closed"])
    await showcase.client.post(f"/v1/admin/contests/{contest}/settle", headers=api.admin())
    assert await phases() == ("settled", ["settled"])
    assert (await showcase.client.get("/v1/contests?phase=over")).status_code == 422


async def test_after_the_start_only_the_end_moves_and_only_later(showcase: Any, api: Any) -> None:
    starts_at, ends_at = clock.now() + timedelta(hours=1), clock.now() + timedelta(hours=5)
    contest = await showcase.contest(starts_at=starts_at, ends_at=ends_at)
    url = f"/v1/admin/contests/{contest}"

    async def patch(**body: Any) -> tuple[int, str | None]:
        # The clock moves on, and a token lives a quarter of an hour.
        answer = await showcase.client.patch(url, json=body, headers=api.admin())
        return answer.status_code, answer.json().get("code")

    assert await patch(title="新标题", votes_per_day=1) == (200, None)
    api.clock.set(starts_at)
    assert await patch(title="更新的标题") == (409, "contest_started")
    assert await patch(ends_at=instant(ends_at - timedelta(minutes=1))) == (409, "contest_started")
    later = ends_at + timedelta(hours=1)
    assert await patch(ends_at=instant(later), votes_per_day=2) == (409, "contest_started")
    assert await patch(ends_at=instant(later), title="新标题") == (200, None)
    deleted = await showcase.client.delete(url, headers=api.admin())
    assert (deleted.status_code, deleted.json()["code"]) == (409, "contest_started")
    api.clock.set(ends_at)
    assert (await showcase.client.get(url, headers=api.admin())).json()["phase"] == "open"
    api.clock.set(later)
    assert await patch(ends_at=instant(later + timedelta(hours=1))) == (409, "contest_started")


async def test_a_stale_version_changes_nothing(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(starts_at=clock.now() + timedelta(hours=1))
    url, admin = f"/v1/admin/contests/{contest}", api.admin()
    held = (await showcase.client.get(url, headers=admin)).headers["etag"]
    changed = await showcase.client.patch(url, json={"title": "二"}, headers=admin | {"If-Match": held})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    stale = await showcase.client.patch(url, json={"title": "三"}, headers=admin | {"If-Match": held})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    assert (await showcase.client.delete(url, headers=admin | {"If-Match": held})).status_code == 412
    bad = await showcase.client.patch(url, json={"ends_at": instant(clock.now())}, headers=admin)
    assert (bad.status_code, bad.json()["code"]) == (422, "validation_failed")
    assert (await showcase.client.get(url, headers=admin)).json()["title"] == "二"
    assert (await showcase.client.delete(url, headers=admin | {"If-Match": '"2"'})).status_code == 204
    assert (await showcase.client.get(url, headers=admin)).status_code == 404


async def test_every_admin_call_asks_for_its_scope(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    calls = [
        ("GET", "/v1/admin/contests", "contests:write"),
        ("GET", f"/v1/admin/contests/{contest}", "contests:write"),
        ("POST", "/v1/admin/contests", "contests:read"),
        ("PATCH", f"/v1/admin/contests/{contest}", "contests:read"),
        ("DELETE", f"/v1/admin/contests/{contest}", "contests:read"),
        ("POST", f"/v1/admin/contests/{contest}/settle", "contests:read"),
        ("GET", "/v1/admin/entries", "contests:write"),
    ]
    for method, url, wrong in calls:
        body: Any = {} if method in {"POST", "PATCH"} else None
        callers: list[dict[str, str]] = [{}, api.member(), api.admin(wrong)]
        statuses = [
            (await showcase.client.request(method, url, json=body, headers=headers)).status_code for headers in callers
        ]
        assert statuses == [401, 403, 403], (method, url)


async def test_settlement_ranks_by_the_tie_chain_and_stores_what_decided(showcase: Any, api: Any) -> None:
    ends_at = clock.now() + timedelta(days=2)
    contest = await showcase.contest(ends_at=ends_at, prizes=PRIZES)
    entries = [await showcase.entry(contest) for _ in range(5)]
    friends = [new_id() for _ in range(2)]
    for friend in friends:
        await api.handle(MemberRegistered(member_id=friend, nickname="", registered_at=clock.now(), invite_code="SAME"))
    for voter in friends:  # two votes out of one invite tree
        await showcase.vote(entries[0], api.member(voter))
    for entry, votes in ((entries[1], 2), (entries[2], 2), (entries[3], 3)):
        for _ in range(votes):
            await showcase.vote(entry)
            api.clock.advance(timedelta(seconds=1))
    url = f"/v1/admin/contests/{contest}/settle"
    early = await showcase.client.post(url, headers=api.admin())
    assert (early.status_code, early.json()["code"]) == (409, "contest_open")
    unready = await showcase.client.get(f"/v1/contests/{contest}/results")
    assert (unready.status_code, unready.json()["code"]) == (404, "results_not_ready")
    api.clock.set(ends_at)
    first = await showcase.client.post(url, headers=api.admin())
    assert first.status_code == 200
    places = [(item["rank"], item["entry_id"], item["votes"], item["tie_break"]) for item in first.json()["items"]]
    assert places == [
        (1, entries[3], 3, None),
        (2, entries[1], 2, "reached_at"),
        (3, entries[2], 2, "reached_at"),
        (4, entries[0], 2, "trees"),
        (5, entries[4], 0, None),
    ]
    assert [item["prize"] for item in first.json()["items"]] == [PRIZES[0], PRIZES[1], PRIZES[1], None, None]
    assert first.json()["removed"] == []
    api.clock.advance(timedelta(hours=1))
    assert (await showcase.client.post(url, headers=api.admin())).json() == first.json()
    assert (await showcase.client.get(f"/v1/contests/{contest}/results")).json() == first.json()
    told = await api.emitted()
    assert [type(event) for event in told] == [EntryApproved] * 5 + [EntryPlaced] * 4 + [PrizeWon] * 3, (
        "and nothing else"
    )
    assert [(event.rank, str(event.entry_id)) for event in told[5:9]] == [place[:2] for place in places[:4]]
    won = [(event.rank, str(event.entry_id), event.title, event.reward, event.value) for event in told[9:]]
    assert won == [
        (rank, entry, prize["title"], prize["reward"]["kind"], prize["reward"]["value"])
        for (rank, entry, *_), prize in zip(places, [PRIZES[0], PRIZES[1], PRIZES[1]], strict=False)
    ]


async def test_settling_ten_times_at_once_settles_once(showcase: Any, api: Any) -> None:
    ends_at = clock.now() + timedelta(days=1)
    contest = await showcase.contest(ends_at=ends_at)
    await showcase.entry(contest)
    api.clock.set(ends_at)
    url = f"/v1/admin/contests/{contest}/settle"
    answers = await asyncio.gather(*(showcase.client.post(url, headers=api.admin()) for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert len({answer.text for answer in answers}) == 1
    assert len(await api.sql("SELECT 1 FROM result")) == 1


async def test_a_settled_contest_takes_no_vote_even_from_a_clock_behind(showcase: Any, api: Any) -> None:
    ends_at = clock.now() + timedelta(seconds=30)
    contest = await showcase.contest(ends_at=ends_at)
    entry = await showcase.entry(contest)
    ahead = clock.offset()
    api.clock.set(ends_at)
    await showcase.client.post(f"/v1/admin/contests/{contest}/settle", headers=api.admin())
    clock.set_offset(ahead)
    refused = await showcase.vote(entry)
    assert (refused.status_code, refused.json()["code"]) == (409, "contest_closed")


async def test_settlement_waits_for_the_votes_being_written(showcase: Any, api: Any) -> None:
    ends_at = clock.now() + timedelta(minutes=1)
    contest = await showcase.contest(ends_at=ends_at)
    entry = await showcase.entry(contest)
    async with api.rt.db.engine.connect() as connection:
        await connection.begin()
        (standing,) = await cast(connection, [Ballot(UUID(entry), new_id())])
        assert standing == Standing(1, 2, UUID(contest), 1, 1)
        api.clock.set(ends_at)
        url = f"/v1/admin/contests/{contest}/settle"
        settling = asyncio.create_task(showcase.client.post(url, headers=api.admin()))
        await asyncio.sleep(0.3)
        assert not settling.done()
        await connection.commit()
        assert [item["votes"] for item in (await settling).json()["items"]] == [1]


async def test_the_sandbox_starts_with_one_contest_any_account_may_vote_in(run: Any, tmp_path: Any) -> None:
    async with run(service, seed=True, data=tmp_path) as api:
        await seed(api.rt)
        (contest,) = (await api.client.get("/v1/contests?phase=open")).json()["items"]
        assert contest["id"] == str(CONTEST_ID)
        assert contest["accounts_before"] == contest["ends_at"]
        assert contest["moderation"] == "post"
