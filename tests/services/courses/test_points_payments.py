"""Points for a live lesson: asked for once, taken or refused by members, and given back with the lesson."""

import asyncio
from uuid import UUID

from contracts.courses import LiveLessonCanceled, PointsReturned, PointsWanted
from contracts.members import PointsAnswered, PointsChanged
from contracts.notices import CoursesNoticeWanted
from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.live_world import move
from tests.services.courses.room_world import LIVE, ask, plan_at
from tests.services.courses.test_ways import SOON, access


async def test_points_are_asked_for_once_and_open_the_lesson_when_taken(api: Api) -> None:
    lesson_id, member_id = await plan_at(api, SOON, access=[{"kind": "points", "needed": 100}]), new_id()
    path = f"{LIVE}/{lesson_id}/points-payment"
    await api.emitted()
    answers = await asyncio.gather(*(ask(api, "POST", path, member_id) for _ in range(5)))
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(202, "pending")}
    [wanted] = await api.emitted()
    assert isinstance(wanted, PointsWanted)
    assert (wanted.member_id, wanted.points, wanted.subject_id) == (member_id, 100, UUID(lesson_id))
    assert (await access(api, lesson_id, member_id))["granted"] is False
    newer = PointsChanged(member_id=member_id, version=60, balance=40)
    await api.handle(newer, newer, PointsChanged(member_id=member_id, version=50, balance=50))
    await api.handle(PointsAnswered(request_id=wanted.request_id, member_id=member_id, taken=False, balance=40))
    assert (await ask(api, "GET", path, member_id)).json()["status"] == "refused"
    assert (await access(api, lesson_id, member_id))["options"] == [
        {"kind": "points", "needed": 100, "have": 40, "amount": None}
    ]
    assert (await ask(api, "POST", path, member_id)).json()["status"] == "pending"
    [again] = await api.emitted()
    assert isinstance(again, PointsWanted)
    taken = PointsAnswered(request_id=again.request_id, member_id=member_id, taken=True, balance=7)
    await api.handle(taken, taken)
    assert (await access(api, lesson_id, member_id))["by"] == "points"
    assert (await ask(api, "POST", path, member_id)).json()["status"] == "paid"
    assert await api.emitted() == []
    assert (await ask(api, "GET", path, new_id())).status_code == 404


async def test_a_canceled_lesson_gives_points_back_also_those_still_being_taken(api: Api) -> None:
    lesson_id = await plan_at(api, SOON, access=[{"kind": "points", "needed": 100}])
    path = f"{LIVE}/{lesson_id}/points-payment"
    await api.emitted()
    for member_id in (paid := new_id(), slow := new_id()):
        await ask(api, "POST", path, member_id)
    first, second = [event for event in await api.emitted() if isinstance(event, PointsWanted)]
    await api.handle(PointsAnswered(request_id=first.request_id, member_id=paid, taken=True, balance=0))
    assert (await move(api, lesson_id, "canceled")).status_code == 200
    *notices, back, canceled = await api.emitted()
    assert [(type(event), event.member_id) for event in notices if isinstance(event, CoursesNoticeWanted)] == [
        (CoursesNoticeWanted, who) for who in sorted((paid, slow))
    ]
    assert isinstance(back, PointsReturned)
    assert (back.request_id, back.member_id, back.points) == (first.request_id, paid, 100)
    assert isinstance(canceled, LiveLessonCanceled)
    assert canceled.lesson_id == UUID(lesson_id)
    late = PointsAnswered(request_id=second.request_id, member_id=slow, taken=True, balance=0)
    await api.handle(late, late)
    [back] = await api.emitted()
    assert isinstance(back, PointsReturned)
    assert back.request_id == second.request_id
    refused = await ask(api, "POST", path, paid)
    assert (refused.status_code, refused.json()["code"]) == (409, "enrolment_closed")
    free = await plan_at(api, SOON, access=[{"kind": "free"}])
    refused = await ask(api, "POST", f"{LIVE}/{free}/points-payment", paid)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_for_points")


async def test_no_points_are_kept_for_a_lesson_that_is_canceled_while_they_are_paid(api: Api) -> None:
    payers = [new_id() for _ in range(8)]
    for _ in range(3):
        lesson_id = await plan_at(api, SOON, access=[{"kind": "points", "needed": 100}])
        path = f"{LIVE}/{lesson_id}/points-payment"
        await api.emitted()
        payments = [ask(api, "POST", path, who) for who in payers]
        answers = await asyncio.gather(*payments[:4], move(api, lesson_id, "canceled"), *payments[4:])
        assert {answer.status_code for answer in answers} <= {200, 202, 409}
        told = await api.emitted()
        wanted = [event for event in told if isinstance(event, PointsWanted)]
        for event in wanted:
            taken = PointsAnswered(request_id=event.request_id, member_id=event.member_id, taken=True, balance=0)
            await api.handle(taken)
        told += await api.emitted()
        back = [event.request_id for event in told if isinstance(event, PointsReturned)]
        assert sorted(back) == sorted(event.request_id for event in wanted)
