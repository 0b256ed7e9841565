"""Points that another service asks for: taken once, never more than there are, given back once."""

import asyncio
from uuid import UUID

from contracts.courses import PointsReturned, PointsWanted
from contracts.members import PointsAnswered, PointsChanged
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import a_member


def wanted(member_id: UUID, points: int = 30) -> PointsWanted:
    facts = {"member_id": member_id, "points": points, "purpose": "live_lesson", "subject_id": new_id()}
    return PointsWanted.model_validate(facts | {"request_id": new_id(), "wanted_at": clock.now()})


async def give(api: Api, member_id: UUID, points: int) -> None:
    await api.sql(
        "INSERT INTO point_entry (id, member_id, delta, reason, reference, at) "
        "VALUES (:id, :member, :delta, 'check_in', :reference, :now)",
        id=new_id(),
        member=member_id,
        delta=points,
        reference=str(new_id()),
        now=clock.now(),
    )


async def deltas(api: Api, member_id: UUID) -> list[tuple[int, str]]:
    rows = await api.sql("SELECT delta, reason FROM point_entry WHERE member_id = :id ORDER BY id", id=member_id)
    return [(row.delta, row.reason) for row in rows]


async def told(api: Api) -> list[tuple[int, int]]:
    return [(event.version, event.balance) for event in await api.emitted() if isinstance(event, PointsChanged)]


async def answers(api: Api) -> list[tuple[bool, int]]:
    return [(event.taken, event.balance) for event in await api.emitted() if isinstance(event, PointsAnswered)]


async def test_points_are_taken_once_while_there_are_enough(api: Api) -> None:
    member_id, _ = await a_member(api)
    await give(api, member_id, 70)
    first = wanted(member_id)
    await api.handle(first, first)
    assert await answers(api) == [(True, 40)]
    await asyncio.gather(*(api.handle(wanted(member_id)) for _ in range(3)))
    assert sorted(await answers(api)) == [(False, 10), (False, 10), (True, 10)]
    assert await deltas(api, member_id) == [(70, "check_in"), (-30, "live_lesson"), (-30, "live_lesson")]


async def test_what_is_given_back_is_given_back_once_and_only_if_it_was_taken(api: Api) -> None:
    member_id, _ = await a_member(api)
    await give(api, member_id, 30)
    request = wanted(member_id)
    await api.handle(request)
    assert await told(api) == [(60, 0)]
    for request_id in (request.request_id, request.request_id, new_id()):
        back = PointsReturned(request_id=request_id, member_id=member_id, points=30, returned_at=clock.now())
        await api.handle(back, back)
    assert await deltas(api, member_id) == [
        (30, "check_in"), (-30, "live_lesson"), (30, "live_lesson_returned"),
    ]  # fmt: skip
    assert await told(api) == [(90, 30)]


async def test_nobody_has_no_points(api: Api) -> None:
    await api.handle(wanted(new_id()))
    assert await answers(api) == [(False, 0)]
