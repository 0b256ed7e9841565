"""Enrolments: seats that are never oversold, and a queue that keeps its order."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from contracts.members import MemberErased
from contracts.notices import CoursesNoticeWanted
from kit import clock
from kit.ids import new_id
from services.courses.app import service
from services.courses.seats import Wish
from tests.harness import Api, Run
from tests.services.courses.live_world import ADMIN, PLAN, plan, seat
from tests.services.courses.world import membership, segment


async def promoted(api: Api) -> list[UUID]:
    """Who was told of a seat since the last call, and nobody was told anything else."""
    told = [event for event in await api.emitted() if isinstance(event, CoursesNoticeWanted)]
    assert {event.kind for event in told} <= {"lesson_seat"}
    return [event.member_id for event in told]


async def test_seats_are_never_oversold_and_the_rest_queue_in_order(api: Api, run: Run, tmp_path: Path) -> None:
    lesson_id = await plan(api, capacity=10)
    async with run(service, data=tmp_path, database_url=api.rt.settings.database_url) as other_process:
        both = (api, other_process) * 20
        answers = await asyncio.gather(*(seat(process, lesson_id, new_id()) for process in both))
    states = [answer.json() for answer in answers]
    assert states.count({"status": "enrolled", "position": None}) == 10
    assert sorted(state["position"] for state in states if state["status"] == "waitlisted") == list(range(1, 31))
    assert await api.sql(
        "SELECT enrolled, general, (SELECT count(*) FROM enrolment WHERE status = 'enrolled') FROM live_lesson"
    ) == [(10, 10, 10)]
    assert (await api.client.get(f"/v1/live-lessons/{lesson_id}")).json()["enrolled"] == 10


async def test_asking_again_changes_nothing(api: Api) -> None:
    lesson_id, member_id = await plan(api), new_id()
    answers = await asyncio.gather(*(seat(api, lesson_id, member_id) for _ in range(8)))
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "enrolled")}
    assert await api.sql("SELECT enrolled FROM live_lesson") == [(1,)]


async def test_a_freed_seat_goes_to_the_first_in_the_queue(api: Api) -> None:
    lesson_id, members = await plan(api), [new_id() for _ in range(5)]
    for member_id in members:
        await seat(api, lesson_id, member_id)
    assert (await seat(api, lesson_id, members[4], "GET")).json() == {"status": "waitlisted", "position": 3}
    assert (await seat(api, lesson_id, members[3], "DELETE")).status_code == 204
    assert (await seat(api, lesson_id, members[4], "GET")).json()["position"] == 2
    assert (await seat(api, lesson_id, members[0], "DELETE")).status_code == 204
    assert (await seat(api, lesson_id, members[2], "GET")).json() == {"status": "enrolled", "position": None}
    assert (await seat(api, lesson_id, members[4], "GET")).json() == {"status": "waitlisted", "position": 1}
    assert await promoted(api) == [members[2]]
    gone = await seat(api, lesson_id, members[0], "GET")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_enrolled")
    assert (await seat(api, lesson_id, members[0], "DELETE")).status_code == 204
    assert (await seat(api, lesson_id, members[0])).json() == {"status": "waitlisted", "position": 2}
    await api.handle(MemberErased(member_id=members[1]))
    assert (await seat(api, lesson_id, members[4], "GET")).json()["status"] == "enrolled"
    assert await api.sql("SELECT enrolled, general FROM live_lesson") == [(2, 2)]


async def test_leaving_and_coming_at_once_keeps_the_count(api: Api) -> None:
    lesson_id, members = await plan(api, capacity=3), [new_id() for _ in range(12)]
    await asyncio.gather(*(seat(api, lesson_id, member_id) for member_id in members))
    await asyncio.gather(
        *(seat(api, lesson_id, member_id, "DELETE") for member_id in members[:6]),
        *(seat(api, lesson_id, new_id()) for _ in range(6)),
    )
    assert await api.sql(
        "SELECT enrolled, general, (SELECT count(*) FROM enrolment WHERE status = 'enrolled'), "
        "(SELECT count(*) FROM enrolment) FROM live_lesson"
    ) == [(3, 3, 3, 12)]


async def test_who_comes_and_goes_in_one_commit_is_served_in_turn(api: Api) -> None:
    lesson_id, other_id = UUID(await plan(api, capacity=1)), UUID(await plan(api, capacity=1))
    seated, waiting, late, back = (new_id() for _ in range(4))
    for member_id in (seated, waiting):
        await seat(api, str(lesson_id), member_id)
    wishes = [
        Wish(lesson_id, late), Wish(lesson_id, seated, leaves=True), Wish(lesson_id, back), Wish(new_id(), back),
        Wish(lesson_id, waiting, leaves=True), Wish(lesson_id, seated), Wish(lesson_id, late), Wish(other_id, late),
        Wish(new_id(), back, leaves=True), Wish(lesson_id, new_id(), leaves=True),
    ]  # fmt: skip
    written = await asyncio.gather(
        *(api.rt.state["enrolments"].submit(wish) for wish in wishes), return_exceptions=True
    )
    # The seat goes from the one who leaves to the one who waited, and from that one to the next, who asked meanwhile.
    assert [answer and (getattr(answer, "status", 0), getattr(answer, "position", 0)) for answer in written] == [
        ("waitlisted", 2), None, ("waitlisted", 2), (404, 0),
        None, ("waitlisted", 2), ("enrolled", None), ("enrolled", None),
        (404, 0), None,
    ]  # fmt: skip
    assert await promoted(api) == [waiting, late]
    assert await api.sql("SELECT enrolled, general FROM live_lesson") == [(1, 1), (1, 1)]


async def test_reserved_seats_are_for_holders_of_priority(api: Api) -> None:
    lesson_id = await plan(api, capacity=3, priority_seats=1)
    cards, others = [new_id() for _ in range(3)], [new_id() for _ in range(4)]
    for member_id in cards:
        await api.handle(membership(member_id, segment(clock.now(), 30)))
    took = [(await seat(api, lesson_id, member_id)).json() for member_id in others[:3]]
    assert [answer["status"] for answer in took] == ["enrolled", "enrolled", "waitlisted"]
    assert (await seat(api, lesson_id, cards[0])).json()["status"] == "enrolled"
    assert (await seat(api, lesson_id, cards[1])).json() == {"status": "waitlisted", "position": 2}
    await seat(api, lesson_id, cards[0], "DELETE")
    assert (await seat(api, lesson_id, others[2], "GET")).json()["status"] == "waitlisted"
    assert (await seat(api, lesson_id, cards[1], "GET")).json()["status"] == "enrolled"
    await seat(api, lesson_id, others[0], "DELETE")
    assert (await seat(api, lesson_id, others[2], "GET")).json()["status"] == "enrolled"
    assert await api.sql("SELECT enrolled, general FROM live_lesson") == [(3, 2)]


async def test_who_waits_and_buys_the_card_gets_a_reserved_seat_and_one_whose_card_ended_does_not(api: Api) -> None:
    lesson_id, buyer, lapsed, first = await plan(api, capacity=3, priority_seats=2), new_id(), new_id(), new_id()
    await api.handle(membership(lapsed, segment(clock.now(), 30)))
    for member_id in (new_id(), first, buyer):
        await seat(api, lesson_id, member_id)
    assert (await seat(api, lesson_id, buyer, "GET")).json() == {"status": "waitlisted", "position": 2}
    card = membership(buyer, segment(clock.now(), 30))
    await api.handle(card, card)
    assert (await seat(api, lesson_id, buyer, "GET")).json()["status"] == "enrolled"
    assert await promoted(api) == [buyer]
    await seat(api, lesson_id, holder := new_id())
    assert (await seat(api, lesson_id, lapsed)).json() == {"status": "enrolled", "position": None}
    await seat(api, lesson_id, lapsed, "DELETE")
    # Nobody who waits has the benefit, so the seat stays free until somebody with it comes.
    await api.handle(membership(lapsed, version=2))
    assert await promoted(api) == []
    assert (await seat(api, lesson_id, lapsed)).json() == {"status": "waitlisted", "position": 3}
    assert (await seat(api, lesson_id, holder, "GET")).json() == {"status": "waitlisted", "position": 2}
    await api.handle(membership(holder, segment(clock.now(), 30)))
    assert await promoted(api) == [holder]
    assert await api.sql("SELECT enrolled, general FROM live_lesson") == [(3, 1)]


async def test_a_promotion_that_is_killed_in_the_middle_leaves_everything_as_it_was(api: Api) -> None:
    lesson_id, members = await plan(api), [new_id() for _ in range(4)]
    for member_id in members:
        await seat(api, lesson_id, member_id)
    before = await api.sql("SELECT member_id, status, place FROM enrolment ORDER BY place")
    async with api.rt.db.session() as other:
        # The first of the queue cannot be moved up, while the seat is given back already.
        held = "SELECT FROM enrolment WHERE member_id = :id FOR UPDATE"
        await other.execute(text(held), {"id": members[2]})
        leaving = asyncio.create_task(seat(api, lesson_id, members[0], "DELETE"))
        waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not (waiting := await api.sql(waits)):  # noqa: ASYNC110 - PostgreSQL tells nobody that somebody waits
            await asyncio.sleep(0.01)
        await api.sql("SELECT pg_terminate_backend(:pid)", pid=waiting[0].pid)
        answer = await leaving
        await other.rollback()
    assert answer.status_code == 503
    assert await api.sql("SELECT member_id, status, place FROM enrolment ORDER BY place") == before
    assert await promoted(api) == []
    assert (await seat(api, lesson_id, members[0], "DELETE")).status_code == 204
    assert await promoted(api) == [members[2]]
    assert await api.sql("SELECT enrolled, general FROM live_lesson") == [(2, 2)]


async def test_a_lesson_without_capacity_has_room_for_all(api: Api) -> None:
    lesson_id = await plan(api, capacity=None)
    answers = await asyncio.gather(*(seat(api, lesson_id, new_id()) for _ in range(20)))
    assert {answer.json()["status"] for answer in answers} == {"enrolled"}


async def test_more_seats_move_the_queue_up_and_fewer_than_taken_are_refused(api: Api) -> None:
    lesson_id, members = await plan(api), [new_id() for _ in range(5)]
    for member_id in members:
        await seat(api, lesson_id, member_id)
    address = f"{ADMIN}/{lesson_id}"
    wider = await api.client.patch(address, json={"capacity": 4}, headers=api.admin())
    assert (wider.status_code, wider.json()["enrolled"]) == (200, 4)
    assert (await seat(api, lesson_id, members[4], "GET")).json() == {"status": "waitlisted", "position": 1}
    narrower = await api.client.patch(address, json={"capacity": 3}, headers=api.admin())
    assert (narrower.status_code, narrower.json()["code"]) == (409, "seats_taken")
    unbounded = await api.client.patch(address, json={"capacity": None}, headers=api.admin())
    assert (unbounded.json()["capacity"], unbounded.json()["enrolled"]) == (None, 5)


async def test_enrolment_closes_with_the_lesson(api: Api) -> None:
    for path, status in (
        (("scheduled", "live"), 200), (("scheduled", "live", "paused"), 200),
        (("scheduled", "live", "ended"), 409), (("canceled",), 409),
    ):  # fmt: skip
        answer = await seat(api, await plan(api, *path), new_id())
        assert answer.status_code == status
        assert status == 200 or answer.json()["code"] == "enrolment_closed"
    left, first, waiting = await plan(api, capacity=1), new_id(), new_id()
    assert [(await seat(api, left, who)).json()["status"] for who in (first, waiting)] == ["enrolled", "waitlisted"]
    api.clock.set(datetime.fromisoformat(PLAN["ends_at"]) + timedelta(minutes=30))
    closed = await seat(api, left, new_id())
    assert (closed.status_code, closed.json()["code"]) == (409, "enrolment_closed")
    assert (await seat(api, left, first)).json()["status"] == "enrolled"
    assert (await seat(api, left, first, "DELETE")).status_code == 204
    assert (await seat(api, left, waiting, "GET")).json()["status"] == "waitlisted"
    assert await promoted(api) == []
    assert (await seat(api, str(new_id()), new_id())).json()["code"] == "live_lesson_not_found"
    assert (await api.client.put(f"/v1/live-lessons/{new_id()}/enrolment")).status_code == 401
