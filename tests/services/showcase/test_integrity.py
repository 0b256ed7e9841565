"""Integrity: what is published of a settled contest, and the recount that proves it from the vote rows."""

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.members import MemberErased, MemberMerged
from contracts.showcase import EntryPlaced, PrizeWon
from kit import clock
from kit.ids import new_id
from services.showcase.contests import ContestNotFound
from services.showcase.models import Model
from services.showcase.recount import recount

MINUTE = timedelta(minutes=1)


async def test_the_report_says_what_was_counted_what_was_taken_out_and_what_decided(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(ends_at=clock.now() + timedelta(days=1))
    first, second, gone = [await showcase.entry(contest) for _ in range(3)]
    unready = await api.client.get(f"/v1/contests/{contest}/integrity")
    assert (unready.status_code, unready.json()["code"]) == (404, "results_not_ready")
    unknown = await api.client.get(f"/v1/contests/{new_id()}/integrity")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "contest_not_found")
    author, voter = new_id(), new_id()
    withdrawn = await showcase.entry(contest, api.member(author))
    for entry in (first, second, second, second, first, gone):
        api.clock.advance(MINUTE)
        await showcase.vote(entry)
    for entry in (first, withdrawn):
        await showcase.vote(entry, api.member(voter))
    assert (await api.client.delete(f"/v1/entries/{withdrawn}", headers=api.member(author))).status_code == 204
    body = {"rule": "burst", "params": {"per_minute": 1}, "dry_run": False}
    path = f"/v1/admin/contests/{contest}/quarantine"
    assert (await api.client.post(path, json=body, headers=api.admin())).json()["matched"] == 0
    body = {"rule": "address", "params": {"per_prefix": 2}, "dry_run": False}
    assert (await api.client.post(path, json=body, headers=api.admin())).json()["matched"] == 2
    api.clock.advance(timedelta(days=1))
    results = await showcase.settle(contest)
    assert results["removed"] == [{"rule": "address", "votes": 2}]
    assert [(item["entry_id"], item["votes"]) for item in results["items"]] == [(second, 2), (first, 2), (gone, 1)]
    # The first work's second vote came after the second's.
    assert [item["tie_break"] for item in results["items"]] == ["reached_at", "reached_at", None]
    answer = await api.client.get(f"/v1/contests/{contest}/integrity")
    report = answer.json()
    counts = {name: report[name] for name in ("votes", "voters", "counted", "removed")}
    assert counts == {"votes": 8, "voters": 7, "counted": 5, "removed": [{"rule": "address", "votes": 2}]}
    assert report["tie_chain"] == ["votes", "trees", "reached_at", "submitted_at", "entry_id"]
    assert [(tie["rank"], tie["tie_break"]) for tie in report["ties"]] == [(1, "reached_at"), (2, "reached_at")]
    [run] = report["runs"]
    assert (run["rule"], run["params"], run["votes"], run["entries"]) == ("address", {"per_prefix": 2}, 2, 2)
    assert (report["settled_at"], report["digest_algorithm"]) == (results["settled_at"], "sha-256")
    assert report["digest"] == (await recount(api.rt, UUID(contest))).digest
    same = await api.client.get(f"/v1/contests/{contest}/integrity", headers={"If-None-Match": answer.headers["etag"]})
    assert same.status_code == 304
    # Nothing that comes later changes what was published.
    await api.emitted()
    await api.acted()
    await api.handle(MemberErased(member_id=voter), MemberMerged(kept_id=author, merged_id=voter))
    api.clock.advance(timedelta(days=30))
    assert await showcase.settle(contest) == results
    assert (await api.client.get(f"/v1/contests/{contest}/integrity")).json() == report
    assert (await api.emitted(), await api.acted()) == ([], [])
    await showcase.recount()


async def test_a_row_changed_behind_our_back_is_found(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(ends_at=clock.now() + timedelta(days=1))
    first, second = await showcase.entry(contest), await showcase.entry(contest)
    for entry in (first, first, second):
        await showcase.vote(entry)
    assert (await recount(api.rt, UUID(contest))).settled is False
    api.clock.advance(timedelta(days=1))
    await showcase.settle(contest)
    changes = {
        "UPDATE vote SET entry_id = :second WHERE member_id = (SELECT min(member_id::text)::uuid FROM vote)": 4,
        "UPDATE result SET rank = 3 - rank + 10 WHERE entry_id = :second": 1,
        "UPDATE settlement SET counted = 4 WHERE :second IS NOT NULL": 1,
        "UPDATE vote SET cast_at = cast_at + interval '1 microsecond' WHERE entry_id = :second": 2,
        "UPDATE vote SET quarantine = 'burst' WHERE entry_id = :second": 5,
    }
    for change, least in changes.items():
        async with api.rt.db.session() as session:
            differences = await _differences_after(api, session, contest, change, second)
        assert len(differences) >= least, (change, differences)
    await showcase.recount()
    with pytest.raises(ContestNotFound):
        await recount(api.rt, new_id())


async def _differences_after(api: Any, session: Any, contest: str, change: str, entry: str) -> list[str]:
    held = await api.sql("SELECT * FROM vote")
    kept = {table: await api.sql(f"SELECT * FROM {table}") for table in ("result", "settlement")}  # noqa: S608
    await api.sql(change.replace(":second", f"'{entry}'"))
    found = (await recount(api.rt, UUID(contest))).differences
    await api.sql("DELETE FROM vote")
    for table, rows in ({"vote": held} | kept).items():
        for row in rows:
            await _put_back(session, table, row)
    await session.commit()
    return list(found)


async def _put_back(session: Any, table: str, row: Any) -> None:
    columns = Model.metadata.tables[table]
    key = {column.name for column in columns.primary_key}
    if table == "vote":
        await session.execute(columns.insert().values(**row._asdict()))
        return
    values = {name: value for name, value in row._asdict().items() if name not in key}
    where = [columns.c[name] == getattr(row, name) for name in key]
    await session.execute(columns.update().where(*where).values(**values))


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_votes_are_ranked_by_the_declared_chain(showcase: Any, api: Any, seed: int) -> None:
    dice = random.Random(seed)
    now = clock.now()
    prizes = [
        {"from": 1, "to": 2, "title": "一", "reward": {"kind": "points", "value": 9}},
        {"from": 4, "to": 30, "title": "二", "reward": {"kind": "coupon", "value": "SPRING"}},
    ]
    contest = await showcase.contest(ends_at=now + timedelta(days=3), prizes=prizes)
    entries = [new_id() for _ in range(24)]
    for entry in entries:
        await api.sql(
            "INSERT INTO entry (id, contest_id, member_id, title, story, status, submitted_at) "
            "VALUES (:id, :contest, :member, 't', '', :status, :at)",
            id=entry,
            contest=contest,
            member=new_id(),
            status=dice.choice(["approved"] * 5 + ["rejected"]),
            at=now + dice.randrange(2) * MINUTE,
        )
        await api.sql("INSERT INTO tally (entry_id, votes) VALUES (:id, 0)", id=entry)
    for number in range(160):
        await api.sql(
            "INSERT INTO vote (entry_id, member_id, day, contest_id, slot, cast_at, account_hours, tree, quarantine) "
            "VALUES (:entry, :member, :day, :contest, 1, :at, 0, :tree, :rule)",
            entry=dice.choice(entries[:20]),
            member=new_id(),
            day=(now + timedelta(days=dice.randrange(2))).date(),
            contest=contest,
            at=now + dice.randrange(3) * MINUTE,
            tree=bytes([dice.randrange(4)]) * 8,
            rule=dice.choice([None, None, None, "device"]) if number % 2 else None,
        )
    await api.sql(
        "UPDATE tally SET votes = (SELECT count(*) FROM vote v WHERE v.entry_id = tally.entry_id AND quarantine IS NULL)"
    )
    api.clock.advance(timedelta(days=3))
    items = (await showcase.settle(contest))["items"]
    chain = [
        (-item["votes"], -item["trees"], item["reached_at"] or "", item["submitted_at"], item["entry_id"])
        for item in items
    ]
    assert chain == sorted(chain)
    assert len({item[0] for item in chain}) < len(chain), "there are ties to decide"
    await showcase.recount()
    told = await api.emitted()
    assert [event.rank for event in told if isinstance(event, EntryPlaced)] == list(range(1, 11))
    won = [(event.rank, event.reward, event.value) for event in told if isinstance(event, PrizeWon)]
    assert won == [
        (1, "points", 9),
        (2, "points", 9),
        *((rank, "coupon", "SPRING") for rank in range(4, len(items) + 1)),
    ]
