"""Two accounts of one person: their works, votes and cards become one's, and no vote counts twice."""

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from contracts.members import MemberMerged
from kit import clock
from kit.ids import new_id


async def test_works_and_votes_follow_and_a_vote_of_both_counts_once(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    kept, merged = new_id(), new_id()
    both, alone = await showcase.entry(contest), await showcase.entry(contest)
    own = await showcase.entry(contest, api.member(merged))
    for entry, voter in ((both, kept), (both, merged), (alone, merged), (own, kept), (own, new_id())):
        assert (await showcase.vote(entry, api.member(voter))).status_code == 201
    merge = MemberMerged(kept_id=kept, merged_id=merged)
    await api.handle(merge, merge.model_copy(update={"id": new_id()}))

    votes = await api.sql("SELECT entry_id::text AS entry FROM vote WHERE member_id = :id", id=kept)
    # Nor does a vote for what is their own work now.
    assert sorted(row.entry for row in votes) == sorted([both, alone])
    assert await api.sql("SELECT 1 FROM vote WHERE member_id = :id", id=merged) == []
    totals = {str(row.entry_id): row.votes for row in await api.sql("SELECT entry_id, votes FROM tally")}
    assert totals == {both: 1, alone: 1, own: 1}
    await showcase.recount()
    entry = (await api.client.get(f"/v1/entries/{own}", headers=api.member(kept))).json()
    assert entry["member"]["id"] == str(kept)
    assert (await showcase.vote(own, api.member(kept))).json()["code"] == "own_entry"
    refused = await showcase.vote(both, api.member(kept))
    assert refused.json()["code"] == "already_voted"
    assert (await showcase.vote(await showcase.entry(contest), api.member(kept))).json()["votes_left_today"] == 0
    assert await api.run_due() == 0


async def test_both_together_have_one_persons_votes_a_day(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(votes_per_day=2)
    kept, merged = new_id(), new_id()
    entries = [await showcase.entry(contest) for _ in range(4)]
    for place, entry in enumerate(entries):
        await showcase.vote(entry, api.member((kept, merged)[place % 2]))
    api.clock.advance(timedelta(days=1))
    await showcase.vote(entries[3], api.member(merged))
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    totals = {str(row.entry_id): row.votes for row in await api.sql("SELECT entry_id, votes FROM tally")}
    # The first two of the first day, and the next day's.
    assert totals == dict(zip(entries, (1, 1, 0, 1), strict=True))
    await showcase.recount()


async def test_the_votes_of_a_settled_contest_stay_as_published(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    kept, merged = new_id(), new_id()
    entry = await showcase.entry(contest)
    for voter in (kept, merged):
        await showcase.vote(entry, api.member(voter))
    api.clock.advance(timedelta(days=8))
    path = f"/v1/admin/contests/{contest}/settle"
    results = (await api.client.post(path, headers=api.admin())).json()
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    assert (await api.client.post(path, headers=api.admin())).json() == results
    assert len(await api.sql("SELECT 1 FROM vote")) == 2
    await showcase.recount()


async def test_a_merge_waits_for_a_settlement_that_counts_a_vote_for_the_others_work(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    kept, merged = new_id(), new_id()
    await showcase.vote(await showcase.entry(contest, api.member(merged)), api.member(kept))
    async with api.rt.db.engine.begin() as settling:
        await settling.execute(text("UPDATE contest SET settled_at = now()"))
        merging = asyncio.create_task(api.handle(MemberMerged(kept_id=kept, merged_id=merged)))
        await asyncio.sleep(0.3)
        assert not merging.done()
    await merging
    assert len(await api.sql("SELECT 1 FROM vote WHERE member_id = :id", id=kept)) == 1


async def test_the_older_account_says_since_when_and_what_comes_late_follows(showcase: Any, api: Any) -> None:
    now = clock.now()
    kept, merged = new_id(), new_id()
    await showcase.registered(kept, "大米", registered_at=now, invite_code="LATER")
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    await showcase.registered(merged, "小麦", registered_at=now - timedelta(days=9), invite_code="FIRST")
    [card] = await api.sql("SELECT * FROM member_card")
    assert (card.member_id, card.nickname, card.invite_code) == (kept, "大米", "FIRST")
    assert card.registered_at == now - timedelta(days=9)
    # Written with a token that was still good.
    contest = await showcase.contest()
    await showcase.vote(await showcase.entry(contest), api.member(merged))
    api.clock.advance(timedelta(seconds=10))
    assert await api.run_due() == 1
    assert len(await api.sql("SELECT 1 FROM vote WHERE member_id = :id", id=kept)) == 1
    assert await api.run_due() == 0
    api.clock.advance(timedelta(days=2))
    assert await api.run_due() == 4
    assert await api.run_due() == 0
