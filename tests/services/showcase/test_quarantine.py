"""Quarantine: named rules take votes out and put them back; what counts is always what the rows say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from contracts.members import MemberErased, MemberMerged
from contracts.referrals import MemberInvited
from kit import clock
from kit.ids import new_id
from services.showcase.app import service
from services.showcase.vote_rules import BurstJudge
from tests.harness import Api

RULES = {
    "burst": {"per_minute": 2},
    "account_age": {"min_hours": 24},
    "invite_tree": {"max_share": 0.5},
    "address": {"per_prefix": 2},
    "device": {"per_device": 1},
}


@pytest.fixture
async def api(run: Callable[..., AbstractAsyncContextManager[Api]], tmp_path: Path) -> AsyncIterator[Api]:
    """The service behind a proxy, so that voters have addresses."""
    async with run(service, data=tmp_path, trusted_proxies=("127.0.0.0/8",)) as running:
        yield running


class Voters:
    """People with addresses and devices of their own, unless told otherwise."""

    def __init__(self, showcase: Any) -> None:
        self.showcase = showcase
        self.api = showcase.api
        self.numbers = count(1)

    async def vote(self, entry: str, voter: UUID | None = None, **headers: str) -> UUID:
        voter = voter or new_id()
        usual = {"X-Forwarded-For": f"198.51.{next(self.numbers)}.7"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.showcase.vote(entry, self.api.member(voter) | usual | named)
        assert answer.status_code == 201, answer.text
        return voter

    async def run(self, contest: str, rule: str, *, dry: bool = False, **params: Any) -> tuple[int, int, int]:
        body = {"rule": rule, "params": params or RULES[rule], "dry_run": dry}
        path = f"/v1/admin/contests/{contest}/quarantine"
        answer = await self.api.client.post(path, json=body, headers=self.api.admin())
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["rule"], found["dry_run"]) == (rule, dry)
        return found["matched"], found["votes"], found["entries"]

    async def totals(self, *entries: str) -> list[int]:
        read = [await self.api.client.get(f"/v1/entries/{entry}") for entry in entries]
        return [answer.json()["votes"] for answer in read]

    async def taken(self, entry: str) -> list[UUID]:
        rows = await self.api.sql(
            "SELECT member_id FROM vote WHERE entry_id = :entry AND quarantine IS NOT NULL ORDER BY member_id",
            entry=entry,
        )
        return [row.member_id for row in rows]


@pytest.fixture
def voters(showcase: Any) -> Voters:
    return Voters(showcase)


async def test_an_address_keeps_its_first_voters_and_a_second_run_finds_nothing(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest()
    first, second = await showcase.entry(contest), await showcase.entry(contest)
    together = [await voters.vote(first, X_Forwarded_For=f"203.0.113.{n}") for n in range(1, 6)]
    await voters.vote(first, X_Forwarded_For="203.0.114.9")
    same48 = [await voters.vote(second, X_Forwarded_For=f"2001:db8:7:{n}::1") for n in range(1, 4)]
    await voters.vote(second, X_Forwarded_For="2001:db8:8::1")
    assert await voters.run(contest, "address", dry=True) == (4, 4, 2)
    assert await voters.totals(first, second) == [6, 4], "a dry run changes nothing"
    assert [acted.action for acted in await voters.api.acted()] == ["contest.created"]
    assert await voters.run(contest, "address") == (4, 4, 2)
    assert await voters.totals(first, second) == [3, 3]
    assert await voters.taken(first) == sorted(together[2:])
    assert await voters.taken(second) == same48[2:]
    assert await voters.run(contest, "address") == (0, 0, 0)
    await showcase.recount()
    [acted] = [item for item in await voters.api.acted() if item.action == "contest.votes_quarantined"]
    assert acted.after == {"rule": "address", "params": {"per_prefix": 2}, "votes": 4, "entries": 2}
    rows = await voters.api.sql("SELECT address, device FROM vote WHERE address IS NOT NULL")
    assert {len(row.address) for row in rows} == {8}, "digests, no addresses"
    # The place of a kept vote that is taken back is the next voter's, not one of those already out.
    await showcase.client.delete(f"/v1/entries/{first}/votes", headers=voters.api.member(together[0]))
    await voters.vote(first, X_Forwarded_For="203.0.113.6")
    assert await voters.run(contest, "address") == (0, 0, 0)
    late = await voters.vote(first, X_Forwarded_For="203.0.113.7")
    assert await voters.run(contest, "address") == (1, 1, 1)
    assert await voters.taken(first) == sorted([*together[2:], late])
    assert await voters.totals(first) == [3]


async def test_a_device_is_the_one_of_the_registration_else_the_one_the_app_names(
    voters: Voters, showcase: Any
) -> None:
    contest = await showcase.contest()
    entry = await showcase.entry(contest)
    registered = [new_id() for _ in range(3)]
    for place, member in enumerate(registered):
        if place < 2:
            await showcase.registered(member, visitor_id="a phone")
        await voters.vote(entry, member, X_Visitor_Id=f"random {place}")
    named = [await voters.vote(entry, X_Visitor_Id="a tablet") for _ in range(2)]
    # The third registration is heard of only after the vote.
    await showcase.registered(registered[2], visitor_id="a phone")
    assert await voters.run(contest, "device") == (3, 3, 1)
    assert await voters.taken(entry) == sorted([*registered[1:], named[1]])
    # The same people vote again tomorrow: who was kept stays kept.
    voters.api.clock.advance(timedelta(days=1))
    for member in (registered[0], named[0]):
        await voters.vote(entry, member, X_Visitor_Id="a tablet")
    assert await voters.run(contest, "device") == (0, 0, 0)
    assert await voters.totals(entry) == [4]


async def test_young_accounts_are_judged_by_their_age_at_the_vote(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest()
    entry = await showcase.entry(contest)
    young, old = new_id(), new_id()
    await showcase.registered(old, registered_at=clock.now() - timedelta(hours=24))
    await showcase.registered(young, registered_at=clock.now() - timedelta(hours=23, minutes=59))
    for member in (young, old):
        await voters.vote(entry, member)
    unheard = await voters.vote(entry)
    voters.api.clock.advance(timedelta(days=2))
    assert await voters.run(contest, "account_age") == (2, 2, 1)
    assert await voters.taken(entry) == sorted([young, unheard])
    assert await voters.totals(entry) == [1]


async def test_an_invite_tree_is_all_whom_one_members_invitations_led_here(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest()
    entry = await showcase.entry(contest)
    root, child, grandchild, coded, coded2 = (new_id() for _ in range(5))
    # The grandchild is heard of before the child; both after their votes.
    tree = [await voters.vote(entry, member) for member in (root, child, grandchild)]
    await voters.api.handle(MemberInvited(member_id=grandchild, inviter_id=child, bound_at=clock.now()))
    await voters.api.handle(MemberInvited(member_id=child, inviter_id=root, bound_at=clock.now()))
    loop = MemberInvited(member_id=root, inviter_id=grandchild, bound_at=clock.now())
    await voters.api.handle(loop, loop)
    for member in (coded, coded2):
        await showcase.registered(member, invite_code="CODE")
        await voters.vote(entry, member)
    alone = await voters.vote(entry)
    # Six votes, three of a tree, two of another, one of nobody's.
    assert await voters.run(contest, "invite_tree", dry=True, max_share=0.4) == (1, 1, 1)
    assert await voters.run(contest, "invite_tree", max_share=0.2) == (3, 3, 1)
    assert await voters.taken(entry) == sorted([*tree[1:], coded2])
    voters.api.clock.advance(timedelta(days=1))
    await voters.vote(entry, alone)
    lone = await showcase.entry(contest)
    for _ in range(2):
        await voters.vote(lone, alone)
        voters.api.clock.advance(timedelta(days=1))
    assert await voters.run(contest, "invite_tree", max_share=0.01) == (0, 0, 0), "one person is no tree"
    await showcase.client.delete(f"/v1/entries/{entry}/votes", headers=voters.api.member(coded))
    await showcase.registered(late := new_id(), invite_code="CODE")
    await voters.vote(entry, late)
    assert await voters.run(contest, "invite_tree", max_share=0.2) == (0, 0, 0), "it has the place that came free"
    await showcase.recount()


async def test_a_burst_leaves_no_minute_with_more_than_its_limit(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest()
    fast, slow = await showcase.entry(contest), await showcase.entry(contest)
    crowd = [await voters.vote(fast) for _ in range(5)]
    for _ in range(3):
        await voters.vote(slow)
        voters.api.clock.advance(timedelta(seconds=40))
    assert await voters.run(contest, "burst", dry=True) == (3, 3, 1)
    assert await voters.run(contest, "burst") == (3, 3, 1)
    assert await voters.taken(fast) == sorted(crowd[2:])
    assert await voters.run(contest, "burst") == (0, 0, 0)
    assert await voters.totals(fast) == [2]
    # The stricter one takes more, the laxer one nothing back.
    assert await voters.run(contest, "burst", per_minute=1) == (2, 2, 2)
    assert await voters.run(contest, "burst", per_minute=100) == (0, 0, 0)
    await showcase.recount()


def test_kept_votes_of_a_burst_are_at_least_a_minute_per_limit_apart() -> None:
    start, entry = datetime(2026, 1, 1, tzinfo=UTC), new_id()
    judge = BurstJudge(3)
    kept = [at for at in range(0, 600, 7) if not judge.is_excess(entry, start + timedelta(seconds=at))]
    assert kept[:6] == [0, 7, 14, 63, 70, 77]
    assert all(later - earlier >= 60 for earlier, later in zip(kept, kept[3:], strict=False))
    assert not judge.is_excess(new_id(), start), "each work has minutes of its own"


async def test_rules_do_not_judge_what_another_took_and_each_is_lifted_alone(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest()
    entry = await showcase.entry(contest)
    for member in (young := [new_id() for _ in range(3)]):
        await voters.vote(entry, member, X_Forwarded_For="203.0.113.1")
    for _ in range(3):
        await showcase.registered(old := new_id(), registered_at=clock.now() - timedelta(days=9))
        await voters.vote(entry, old, X_Forwarded_For="203.0.113.1")
    assert await voters.run(contest, "account_age") == (3, 3, 1)
    assert await voters.run(contest, "address") == (1, 1, 1)
    assert await voters.totals(entry) == [2]
    path = f"/v1/admin/contests/{contest}/quarantine"
    lifted = [await voters.api.client.delete(f"{path}/account_age", headers=voters.api.admin()) for _ in range(2)]
    assert [answer.json()["votes"] for answer in lifted] == [3, 0]
    assert await voters.totals(entry) == [5]
    await showcase.recount()
    runs = (await voters.api.client.get(path, headers=voters.api.admin())).json()["items"]
    assert [(run["rule"], run["params"], run["votes"]) for run in runs] == [
        ("account_age", None, 3),
        ("address", {"per_prefix": 2}, 1),
        ("account_age", {"min_hours": 24}, 3),
    ]
    assert [acted.action for acted in await voters.api.acted()][-3:] == [
        "contest.votes_quarantined",
        "contest.votes_quarantined",
        "contest.votes_released",
    ]
    assert (await voters.taken(entry)) != sorted(young)


async def test_a_vote_taken_out_still_fills_its_day_and_may_be_taken_back(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest(votes_per_day=2)
    entry, other, third = [await showcase.entry(contest) for _ in range(3)]
    voter = await voters.vote(entry)
    await voters.vote(other, voter)
    await voters.run(contest, "account_age")
    assert (await showcase.vote(entry, voters.api.member(voter))).json()["code"] == "already_voted"
    assert (await showcase.vote(third, voters.api.member(voter))).json()["code"] == "vote_limit_reached"
    taken = await showcase.client.delete(f"/v1/entries/{entry}/votes", headers=voters.api.member(voter))
    assert (taken.status_code, taken.json()) == (200, {"entry_votes": 0, "votes_left_today": 1})
    await showcase.recount()
    # A merge carries what was taken out along as such.
    kept = new_id()
    await voters.api.handle(MemberMerged(kept_id=kept, merged_id=voter))
    assert await voters.taken(other) == [kept]
    assert await voters.totals(other) == [0]
    await showcase.recount()


async def test_votes_cast_while_a_rule_runs_are_counted_exactly(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest()
    entries = [await showcase.entry(contest) for _ in range(3)]
    for entry in entries:
        await asyncio.gather(*(voters.vote(entry, X_Forwarded_For="203.0.113.1") for _ in range(8)))
    await asyncio.gather(
        *(voters.vote(entry, X_Forwarded_For="203.0.113.1") for entry in entries for _ in range(10)),
        *(voters.run(contest, rule) for rule in ("address", "account_age", "address")),
    )
    await showcase.recount()
    assert len(await voters.api.sql("SELECT 1 FROM vote")) == 54


async def test_who_may_run_rules_and_what_is_no_rule(voters: Voters, showcase: Any) -> None:
    contest = await showcase.contest()
    path = f"/v1/admin/contests/{contest}/quarantine"
    client, api = voters.api.client, voters.api
    body = {"rule": "burst", "params": {"per_minute": 1}, "dry_run": True}
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("contests:read"), 403)):
        assert (await client.post(path, json=body, headers=headers)).status_code == status
        assert (await client.delete(f"{path}/burst", headers=headers)).status_code == status
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("plans:read"), 403)):
        assert (await client.get(path, headers=headers)).status_code == status
    wrong: list[dict[str, Any]] = [
        {"rule": "mood"},
        {"params": {}},
        {"params": {"per_minute": 0}},
        {"params": {"per_minute": True}},
        {"params": {"per_minute": 1, "more": 1}},
        {"rule": "address"},
        {"rule": "invite_tree", "params": {"max_share": 1.01}},
        {"rule": "invite_tree", "params": {"max_share": "0.5"}},
        {"rule": "account_age", "params": {"min_hours": 1.5}},
        {"dry_run": "yes"},
        {"more": 1},
    ]
    for change in wrong:
        assert (await client.post(path, json=body | change, headers=api.admin())).status_code == 422, change
    unknown = f"/v1/admin/contests/{new_id()}/quarantine"
    assert (await client.post(unknown, json=body, headers=api.admin())).json()["code"] == "contest_not_found"
    assert (await client.get(unknown, headers=api.admin())).json()["code"] == "contest_not_found"
    assert (await client.delete(f"{path}/mood", headers=api.admin())).status_code == 422
    # Only a dry run unless told otherwise.
    del body["dry_run"]
    assert (await client.post(path, json=body, headers=api.admin())).json()["dry_run"] is True


async def test_production_does_not_start_without_a_key_for_addresses(
    run: Callable[..., AbstractAsyncContextManager[Api]], tmp_path: Path
) -> None:
    for key in ("", "too short"):
        with pytest.raises(ValueError, match="SHOWCASE_KEY needs 32 characters"):
            async with run(service, data=tmp_path, env="production", showcase_key=key):
                pass
    async with run(service, data=tmp_path, env="production", showcase_key="k" * 32) as api:
        assert (await api.client.get("/v1/contests")).json()["items"] == []


async def test_who_leaves_takes_the_device_along_and_a_settled_contest_the_key_of_all_signals(
    voters: Voters, showcase: Any
) -> None:
    contest = await showcase.contest(ends_at=clock.now() + timedelta(days=1))
    entry = await showcase.entry(contest)
    member = new_id()
    await voters.api.handle(MemberErased(member_id=member))
    await showcase.registered(member, visitor_id="a phone")
    await showcase.registered(other := new_id(), visitor_id="a phone")
    await voters.vote(entry, other)
    other_contest = await showcase.entry(await showcase.contest())
    await voters.vote(other_contest, other)
    cards = {row.member_id: row.device for row in await voters.api.sql("SELECT member_id, device FROM member_card")}
    assert cards[member] is None
    assert cards[other] is not None
    devices = {row.device for row in await voters.api.sql("SELECT device FROM vote")}
    assert len(devices) == 2, "the same device in two contests has nothing in common"
    await voters.api.handle(MemberErased(member_id=other))
    voters.api.clock.advance(timedelta(days=1))
    await showcase.settle(contest)
    [row] = await voters.api.sql("SELECT signal_secret FROM contest WHERE id = :id", id=contest)
    assert row.signal_secret is None
    body = {"rule": "burst", "params": {"per_minute": 1}, "dry_run": False}
    path = f"/v1/admin/contests/{contest}/quarantine"
    refused = await voters.api.client.post(path, json=body, headers=voters.api.admin())
    assert (refused.status_code, refused.json()["code"]) == (409, "contest_settled")
    refused = await voters.api.client.delete(f"{path}/burst", headers=voters.api.admin())
    assert (refused.status_code, refused.json()["code"]) == (409, "contest_settled")
