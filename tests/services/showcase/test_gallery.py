"""The gallery's random order: a viewer's own all day, in which new works come earlier."""

from datetime import date, timedelta
from statistics import fmean
from typing import Any

from kit import clock
from kit.ids import new_id
from kit.page import encode_cursor

WORKS = 40


async def order_of(showcase: Any, contest: str, limit: int = 100, *, headers: dict[str, str]) -> list[str]:
    ids: list[str] = []
    params: dict[str, Any] = {"sort": "random", "limit": limit}
    while True:
        answer = await showcase.client.get(f"/v1/contests/{contest}/entries", params=params, headers=headers)
        assert answer.status_code == 200
        ids += [item["id"] for item in answer.json()["items"]]
        if answer.json()["next_cursor"] is None:
            return ids
        params["cursor"] = answer.json()["next_cursor"]


async def test_a_new_work_comes_earlier_and_the_order_is_stable_for_each_viewer(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(ends_at=clock.now() + timedelta(days=30))
    now = clock.now()
    entries = [new_id() for _ in range(WORKS)]
    for place, entry in enumerate(entries):
        await api.sql(
            "INSERT INTO entry (id, contest_id, member_id, title, story, status, submitted_at, approved_at) "
            "VALUES (:id, :contest, :member, 't', '', 'approved', :at, :at)",
            id=entry,
            contest=contest,
            member=new_id(),
            at=now if place < WORKS // 4 else now - timedelta(days=4),
        )
    new, old = ({str(entry) for entry in some} for some in (entries[: WORKS // 4], entries[WORKS // 4 :]))
    orders = {}
    for viewer in range(40):
        order = orders[viewer] = await order_of(showcase, contest, headers={"X-Visitor-Id": f"phone {viewer}"})
        assert set(order) == new | old
    assert len({tuple(order) for order in orders.values()}) == 40
    places = [{entry: place for place, entry in enumerate(order)} for order in orders.values()]
    assert fmean(place[entry] for place in places for entry in new) < WORKS * 0.42
    assert fmean(place[entry] for place in places for entry in old) > WORKS * 0.48
    # The same in pages, and for a member on any device.
    assert await order_of(showcase, contest, 7, headers={"X-Visitor-Id": "phone 3"}) == orders[3]
    member = api.member()
    first = await order_of(showcase, contest, headers=member)
    assert await order_of(showcase, contest, 11, headers=member | {"X-Visitor-Id": "phone 3"}) == first
    # Three days later nothing is new: everything is where its one draw puts it.
    api.clock.advance(timedelta(days=3))
    later = await order_of(showcase, contest, headers={"X-Visitor-Id": "phone 3"})
    assert [entry for entry in later if entry in old] == [entry for entry in orders[3] if entry in old]


async def test_a_cursor_of_no_day_is_refused(showcase: Any) -> None:
    contest = await showcase.contest()
    for values in (["x", date(1, 1, 1), 5], ["x", "soon", 5], ["x", 5], ["x", date(2026, 1, 1), 2**63]):
        params = {"sort": "random", "cursor": encode_cursor(values)}
        refused = await showcase.client.get(f"/v1/contests/{contest}/entries", params=params)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_cursor")
    headers = {"X-Visitor-Id": "x" * 201}
    assert (
        await showcase.client.get(f"/v1/contests/{contest}/entries?sort=random", headers=headers)
    ).status_code == 200
