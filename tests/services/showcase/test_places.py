"""Places: a settled contest tells of the first ten works that anybody voted for, once."""

from datetime import timedelta
from typing import Any

from contracts.showcase import EntryPlaced
from kit.ids import new_id


async def test_a_settled_contest_tells_of_its_first_places_once(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    baker = new_id()
    first = await showcase.entry(contest, api.member(baker))
    await showcase.entry(contest)
    await showcase.vote(first)
    api.clock.advance(timedelta(days=8))
    await api.emitted()
    for _ in range(2):
        path = f"/v1/admin/contests/{contest}/settle"
        assert (await api.client.post(path, headers=api.admin())).status_code == 200
    [told] = [event for event in await api.emitted() if isinstance(event, EntryPlaced)]
    assert (str(told.entry_id), str(told.contest_id), told.member_id, told.rank) == (first, contest, baker, 1)
