"""Votes: exact under any number of voters at once, and refused for the reasons the API names."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

from kit import clock
from kit.db import Database
from kit.group import GroupCommit
from kit.ids import new_id
from services.showcase.ballots import AlreadyVoted, Ballot, Standing, VoteLimitReached, cast


async def test_a_vote_answers_the_total_and_what_is_left_today(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    first, second = await showcase.entry(contest), await showcase.entry(contest)
    voter = api.member()
    answer = await showcase.vote(first, voter)
    assert (answer.status_code, answer.json()) == (201, {"entry_votes": 1, "votes_left_today": 2})
    answer = await showcase.vote(second, voter)
    assert (answer.status_code, answer.json()) == (201, {"entry_votes": 1, "votes_left_today": 1})
    answer = await showcase.vote(first)
    assert answer.json() == {"entry_votes": 2, "votes_left_today": 2}
    await showcase.recount()


async def test_a_member_votes_once_a_day_for_a_work_and_again_the_next_day(showcase: Any, api: Any) -> None:
    entry = await showcase.entry(await showcase.contest())
    voter_id = new_id()
    assert (await showcase.vote(entry, api.member(voter_id))).status_code == 201
    refused = await showcase.vote(entry, api.member(voter_id))
    assert (refused.status_code, refused.json()["code"]) == (409, "already_voted")
    api.clock.advance(timedelta(days=1))
    assert (await showcase.vote(entry, api.member(voter_id))).json() == {"entry_votes": 2, "votes_left_today": 2}
    await showcase.recount()


async def test_the_day_turns_at_midnight_of_the_business_zone(showcase: Any, api: Any) -> None:
    entry = await showcase.entry(await showcase.contest())
    voter_id = new_id()
    midnight = (clock.now().astimezone(clock.ZONE) + timedelta(days=1)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    api.clock.set(midnight - timedelta(seconds=5))
    assert (await showcase.vote(entry, api.member(voter_id))).status_code == 201
    assert (await showcase.vote(entry, api.member(voter_id))).json()["code"] == "already_voted"
    api.clock.set(midnight)
    assert (await showcase.vote(entry, api.member(voter_id))).status_code == 201


async def test_sixty_four_members_at_once_make_exactly_sixty_four_votes(showcase: Any, api: Any) -> None:
    entry = await showcase.entry(await showcase.contest())
    answers = await asyncio.gather(*(showcase.vote(entry) for _ in range(64)))
    assert [answer.status_code for answer in answers] == [201] * 64
    assert max(answer.json()["entry_votes"] for answer in answers) == 64
    assert len(await api.sql("SELECT 1 FROM vote")) == 64
    await showcase.recount()


async def test_twenty_votes_at_once_of_one_member_with_three_a_day_are_exactly_three(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(votes_per_day=3)
    entries = [await showcase.entry(contest) for _ in range(20)]
    voter = api.member()
    answers = await asyncio.gather(*(showcase.vote(entry, voter) for entry in entries))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 17
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"vote_limit_reached"}
    assert sorted(row.slot for row in await api.sql("SELECT slot FROM vote")) == [1, 2, 3]
    await showcase.recount()


async def test_two_processes_hold_the_limits_together(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(votes_per_day=2)
    entries = [UUID(await showcase.entry(contest)) for _ in range(4)]
    voters = [new_id() for _ in range(25)]
    databases = [Database(api.rt.settings.database_url, name=f"process {n}", pool_size=2) for n in range(2)]
    # One writes a batch after the other, each in a transaction with whatever is kept beside it; the other as votes do.
    ways: list[dict[str, Any]] = [{}, {"at_once": 2, "commits_itself": True}]
    groups = [
        GroupCommit(database, cast, name="test", max_batch=7, **way)
        for database, way in zip(databases, ways, strict=True)
    ]
    ballots = [Ballot(entry, voter) for voter in voters for entry in entries]
    orders = [random.Random(n).sample(ballots, len(ballots)) for n in range(2)]
    try:
        answers = await asyncio.gather(
            *(
                group.submit(ballot)
                for pair in zip(*orders, strict=True)
                for group, ballot in zip(groups, pair, strict=True)
            ),
            return_exceptions=True,
        )
    finally:
        for database in databases:
            await database.close()
    counts = Counter(type(answer) for answer in answers)
    assert counts[Standing] == 50
    assert counts.keys() <= {Standing, AlreadyVoted, VoteLimitReached}
    slots = await api.sql("SELECT member_id, array_agg(slot ORDER BY slot) AS slots FROM vote GROUP BY member_id")
    assert [row.slots for row in slots] == [[1, 2]] * 25
    await showcase.recount()


async def test_votes_with_keys_and_without_share_commits_and_a_retry_gets_its_first_answer(
    showcase: Any, api: Any
) -> None:
    entry = await showcase.entry(await showcase.contest())
    path = f"/v1/entries/{entry}/votes"
    keyed = [api.member() | {"Idempotency-Key": "a tap"} for _ in range(20)]
    crowd = keyed + [api.member() for _ in range(20)] + keyed
    answers = await asyncio.gather(*(api.client.post(path, headers=headers) for headers in crowd))
    codes = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
    # The second of two equal taps is told to wait for the first, or its answer.
    assert codes[201, None] >= 40
    assert codes.keys() <= {(201, None), (409, "idempotency_in_flight")}
    again = await asyncio.gather(*(api.client.post(path, headers=headers) for headers in keyed))
    assert [answer.json() for answer in again] == [answer.json() for answer in answers[:20]]
    assert {answer.headers["idempotency-replayed"] for answer in again} == {"true"}
    assert len(await api.sql("SELECT 1 FROM vote")) == 40
    await showcase.recount()


async def test_the_same_vote_twenty_times_at_once_counts_once(showcase: Any, api: Any) -> None:
    entry = await showcase.entry(await showcase.contest())
    voter = api.member()
    answers = await asyncio.gather(*(showcase.vote(entry, voter) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_voted"}
    await showcase.recount()


async def test_the_same_vote_at_once_beyond_the_limit_is_refused_for_the_limit(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(votes_per_day=1)
    first, second = await showcase.entry(contest), await showcase.entry(contest)
    voter = api.member()
    assert (await showcase.vote(first, voter)).status_code == 201
    answers = await asyncio.gather(*(showcase.vote(second, voter) for _ in range(20)))
    assert {answer.json()["code"] for answer in answers} == {"vote_limit_reached"}
    await showcase.recount()


async def test_votes_and_take_backs_in_any_order_keep_tally_and_rows_equal(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    entries = [await showcase.entry(contest) for _ in range(3)]
    voters = [api.member() for _ in range(8)]

    async def waver(voter: dict[str, str], turn: int) -> None:
        for step in range(6):
            entry = entries[(turn + step) % 3]
            voted, taken = await asyncio.gather(
                showcase.vote(entry, voter), showcase.client.delete(f"/v1/entries/{entry}/votes", headers=voter)
            )
            assert voted.status_code in (201, 409)
            assert taken.status_code in (200, 404)

    await asyncio.gather(*(waver(voter, turn) for turn, voter in enumerate(voters)))
    await showcase.recount()
    slots = await api.sql("SELECT member_id, count(*) AS n FROM vote GROUP BY member_id HAVING count(*) > 3")
    assert slots == []


async def test_a_vote_taken_back_may_be_cast_again_the_same_day(showcase: Any, api: Any) -> None:
    entry = await showcase.entry(await showcase.contest(votes_per_day=1))
    voter = api.member()
    await showcase.vote(entry, voter)
    taken = await showcase.client.delete(f"/v1/entries/{entry}/votes", headers=voter)
    assert (taken.status_code, taken.json()) == (200, {"entry_votes": 0, "votes_left_today": 1})
    again = await showcase.client.delete(f"/v1/entries/{entry}/votes", headers=voter)
    assert (again.status_code, again.json()["code"]) == (404, "vote_not_found")
    assert (await showcase.vote(entry, voter)).json() == {"entry_votes": 1, "votes_left_today": 0}
    await showcase.recount()


async def test_a_slot_freed_by_a_take_back_is_used_again(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(votes_per_day=2)
    entries = [await showcase.entry(contest) for _ in range(3)]
    voter = api.member()
    await showcase.vote(entries[0], voter)
    await showcase.vote(entries[1], voter)
    assert (await showcase.vote(entries[2], voter)).json()["code"] == "vote_limit_reached"
    await showcase.client.delete(f"/v1/entries/{entries[0]}/votes", headers=voter)
    assert (await showcase.vote(entries[2], voter)).status_code == 201
    assert (await showcase.vote(entries[0], voter)).json()["code"] == "vote_limit_reached"
    await showcase.recount()


async def test_the_end_closes_votes_and_take_backs_to_the_instant(showcase: Any, api: Any) -> None:
    ends_at = clock.now() + timedelta(days=1)
    entry = await showcase.entry(await showcase.contest(ends_at=ends_at))
    voter_id = new_id()
    api.clock.set(ends_at - timedelta(seconds=5))
    assert (await showcase.vote(entry, api.member(voter_id))).status_code == 201
    api.clock.set(ends_at)
    late = await showcase.vote(entry)
    assert (late.status_code, late.json()["code"]) == (409, "contest_closed")
    taken = await showcase.client.delete(f"/v1/entries/{entry}/votes", headers=api.member(voter_id))
    assert (taken.status_code, taken.json()["code"]) == (409, "contest_closed")
    assert len(await api.sql("SELECT 1 FROM vote")) == 1


async def test_nobody_votes_for_their_own_work(showcase: Any, api: Any, author: Any) -> None:
    entry = await showcase.entry(await showcase.contest(), api.member(author))
    refused = await showcase.vote(entry, api.member(author))
    assert (refused.status_code, refused.json()["code"]) == (403, "own_entry")
    assert await api.sql("SELECT 1 FROM vote") == []


async def test_only_accounts_older_than_the_contest_asks_may_vote(showcase: Any, api: Any) -> None:
    before = clock.now() - timedelta(days=10)
    entry = await showcase.entry(await showcase.contest(accounts_before=before))
    old, new = new_id(), new_id()
    await showcase.registered(old, registered_at=before - timedelta(seconds=1))
    await showcase.registered(new, registered_at=before)
    assert (await showcase.vote(entry, api.member(old))).status_code == 201
    refused = await showcase.vote(entry, api.member(new))
    assert (refused.status_code, refused.json()["code"]) == (403, "account_too_new")
    # Nothing has been heard of this one: their id was made just now.
    assert (await showcase.vote(entry)).json()["code"] == "account_too_new"


async def test_a_member_whose_registration_was_not_heard_of_votes_by_the_age_of_their_id(
    showcase: Any, api: Any
) -> None:
    stranger = new_id()
    api.clock.advance(timedelta(seconds=2))
    entry = await showcase.entry(await showcase.contest(accounts_before=clock.now() + timedelta(seconds=1)))
    api.clock.advance(timedelta(hours=1))
    refused = await showcase.vote(entry, api.member(stranger))
    assert refused.json()["code"] == "account_too_new", "the offset of the sandbox's clock counts as lived before"


async def test_an_unknown_or_hidden_work_takes_no_votes(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(moderation="pre")
    pending = await showcase.entry(contest)
    for entry in (pending, new_id()):
        refused = await showcase.vote(entry)
        assert (refused.status_code, refused.json()["code"]) == (404, "entry_not_found")
    assert (await showcase.client.post(f"/v1/entries/{pending}/votes")).status_code == 401
    assert (await showcase.client.post(f"/v1/entries/{pending}/votes", headers=api.admin())).status_code == 403


async def test_hidden_totals_are_null_until_the_contest_is_settled(showcase: Any, api: Any) -> None:
    ends_at = clock.now() + timedelta(days=1)
    contest = await showcase.contest(hide_totals=True, ends_at=ends_at)
    maker = new_id()
    entry = await showcase.entry(contest, api.member(maker))
    assert (await showcase.vote(entry)).json() == {"entry_votes": None, "votes_left_today": 2}
    board = f"/v1/contests/{contest}/leaderboard"
    assert (await showcase.client.get(board)).json()["items"][0]["votes"] is None
    assert (await showcase.client.get(f"/v1/entries/{entry}")).json()["votes"] is None
    assert (await api.client.get("/internal/export", headers=api.member(maker))).json()["tally"] == []
    api.clock.set(ends_at)
    assert (await showcase.client.post(f"/v1/admin/contests/{contest}/settle", headers=api.admin())).status_code == 200
    assert (await showcase.client.get(board)).json()["items"][0]["votes"] == 1
    assert (await showcase.client.get(f"/v1/entries/{entry}")).json()["votes"] == 1
    assert (await api.client.get("/internal/export", headers=api.member(maker))).json()["tally"][0]["votes"] == 1


async def test_the_leaderboard_ranks_one_two_two_four(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    entries = [await showcase.entry(contest) for _ in range(4)]
    for entry, votes in zip(entries, (1, 2, 2, 3), strict=True):
        for _ in range(votes):
            assert (await showcase.vote(entry)).status_code == 201
    answer = await showcase.client.get(f"/v1/contests/{contest}/leaderboard")
    assert [(item["rank"], item["votes"]) for item in answer.json()["items"]] == [(1, 3), (2, 2), (2, 2), (4, 1)]
    assert answer.json()["items"][0]["entry_id"] == entries[3]
    short = await showcase.client.get(f"/v1/contests/{contest}/leaderboard?limit=1")
    assert [item["entry_id"] for item in short.json()["items"]] == [entries[3]]
    same = await showcase.client.get(
        f"/v1/contests/{contest}/leaderboard", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (same.status_code, same.content) == (304, b"")


async def test_the_same_idempotency_key_votes_once_and_answers_alike(showcase: Any, api: Any) -> None:
    entry = await showcase.entry(await showcase.contest())
    headers = api.member() | {"Idempotency-Key": "once"}
    first = await showcase.client.post(f"/v1/entries/{entry}/votes", headers=headers)
    second = await showcase.client.post(f"/v1/entries/{entry}/votes", headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["idempotency-replayed"] == "true"
    assert first.json() == second.json() == {"entry_votes": 1, "votes_left_today": 2}
    await showcase.recount()
