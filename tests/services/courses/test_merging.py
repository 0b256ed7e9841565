"""Two accounts of one person: what they learned, bought, rated and reserved becomes one's."""

from typing import Any
from uuid import UUID

import httpx

from contracts.billing import OrderPaid
from contracts.members import MemberMerged
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.live_world import plan, seat
from tests.services.courses.world import add_course


async def watch(api: Api, lesson_id: str, member_id: UUID, *spans: list[int]) -> httpx.Response:
    body = {"position_s": spans[-1][1], "watched": spans}
    return await api.client.put(f"/v1/lessons/{lesson_id}/progress", json=body, headers=api.member(member_id))


async def rate(api: Api, lesson_id: str, member_id: UUID, score: int) -> Any:
    path = f"/v1/lessons/{lesson_id}/rating"
    return (await api.client.put(path, json={"score": score}, headers=api.member(member_id))).json()["rating"]


async def test_progress_completions_and_ratings_follow_and_count_once(api: Api) -> None:
    course = await add_course(api, 100, 100)
    first, second = (lesson["id"] for lesson in course["lessons"])
    kept, merged = new_id(), new_id()
    await watch(api, first, kept, [0, 30])
    await watch(api, first, merged, [20, 60])
    await watch(api, second, merged, [0, 100])
    await rate(api, first, kept, 1)
    await rate(api, first, merged, 5)
    await rate(api, second, merged, 4)
    assert (await rate(api, first, new_id(), 2))["count"] == 4
    merge = MemberMerged(kept_id=kept, merged_id=merged)
    await api.handle(merge, merge.model_copy(update={"id": new_id()}))

    items = (await api.client.get("/v1/me/learning", headers=api.member(kept))).json()["items"]
    found = {item["lesson_id"]: (item["percent"], item["completed"], item["position_s"]) for item in items}
    assert found == {first: (60, False, 60), second: (100, True, 100)}
    assert (await api.client.get("/v1/me/learning", headers=api.member(merged))).json()["items"] == []
    shown = (await api.client.get(f"/v1/courses/{course['id']}")).json()["rating"]
    assert shown["count"] == 3
    rows = await api.sql("SELECT score FROM rating ORDER BY score")
    assert [row.score for row in rows] == [2, 4, 5]
    [tally] = await api.sql("SELECT rating_sum, rating_count, rating_negative FROM course WHERE rating_count > 0")
    assert tuple(tally) == (11, 3, 1)
    assert await api.run_due() == 0


async def test_a_course_bought_by_either_is_the_persons_also_when_told_late(api: Api) -> None:
    course = await add_course(api, 100, access="paid", amount=1000, currency="CNY")
    lesson = course["lessons"][0]["id"]
    kept, merged = new_id(), new_id()
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    assert (await api.client.get(f"/v1/lessons/{lesson}", headers=api.member(kept))).status_code == 403
    amounts: dict[str, Any] = {"subtotal": 1000, "discount": 0, "total": 1000, "currency": "CNY"}
    await api.handle(
        OrderPaid(
            order_id=new_id(),
            number="1",
            member_id=merged,
            kind="course",
            course_id=course["id"],
            payment_method="card",
            paid_at=clock.now(),
            **amounts,
        )
    )
    assert (await api.client.get(f"/v1/lessons/{lesson}", headers=api.member(kept))).status_code == 200


async def test_one_person_keeps_one_seat_the_better_one(api: Api) -> None:
    lesson = await plan(api, capacity=2)
    kept, merged, other, next_one = (new_id() for _ in range(4))
    for member_id in (merged, other, kept, next_one):
        await seat(api, lesson, member_id)
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    held = {member: (await seat(api, lesson, member, "GET")).json() for member in (kept, other, next_one)}
    assert [held[member]["status"] for member in (kept, other, next_one)] == ["enrolled", "enrolled", "waitlisted"]
    assert held[next_one]["position"] == 1
    assert (await seat(api, lesson, merged, "GET")).status_code == 404

    full = await plan(api, capacity=2)
    for member_id in (kept, merged, next_one):
        # The old id's seat is written with a token that was still good.
        await seat(api, full, member_id)
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    assert (await seat(api, full, kept, "GET")).json()["status"] == "enrolled"
    assert (await seat(api, full, next_one, "GET")).json()["status"] == "enrolled"
    [counted] = await api.sql("SELECT enrolled, general FROM live_lesson WHERE id = :id", id=UUID(full))
    assert tuple(counted) == (2, 2)
