"""Live lessons: the calendar, the state machine, plans that admins change."""

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.courses import LiveLessonCanceled
from kit import clock
from kit.due import next_due
from kit.ids import new_id
from services.courses import live_states
from tests.harness import Api
from tests.services.courses.live_world import ADMIN, PLAN, bought, move, plan, seat


async def test_the_sandbox_has_two_scheduled_lessons_on_coming_wednesdays(seeded: Api) -> None:
    items = (await seeded.client.get("/v1/live-lessons", params={"status": "scheduled"})).json()["items"]
    starts = [datetime.fromisoformat(item["starts_at"]) for item in items]
    assert [start.astimezone(clock.ZONE).strftime("%a %H:%M") for start in starts] == ["Wed 19:30"] * 2
    assert starts[1] - starts[0] == timedelta(weeks=1)
    assert timedelta(0) < starts[0] - clock.now() < timedelta(days=9)


async def test_a_live_lesson_is_shown_as_promised(api: Api) -> None:
    lesson_id = await plan(api)
    answer = await api.client.get(f"/v1/live-lessons/{lesson_id}")
    shown = answer.json()
    assert abs(datetime.fromisoformat(shown.pop("server_time")) - clock.now()) < timedelta(seconds=30)
    assert shown == {
        "id": lesson_id,
        "title": "可颂跟做",
        "description": "提前备好面团",
        "instructor": "周砚",
        "instructor_id": None,
        "starts_at": "2027-03-03T11:30:00Z",
        "ends_at": "2027-03-03T13:00:00Z",
        "zone": "Asia/Shanghai",
        "capacity": 2,
        "priority_seats": 0,
        "enrolled": 0,
        "status": "scheduled",
        "access": [{"kind": "membership"}, {"kind": "invites", "needed": 3}],
        "version": 2,
    }
    [item] = (await api.client.get("/v1/live-lessons")).json()["items"]
    assert item | {"server_time": 0} == shown | {"server_time": 0}


async def test_who_holds_a_lesson_is_sent_it_again_once_its_clock_is_behind(api: Api) -> None:
    lesson_id = await plan(api, capacity=9)
    held: dict[str, str] = {}
    for path in ("/v1/live-lessons", f"/v1/live-lessons/{lesson_id}", "/v1/live-lessons/next"):
        api.clock.set(clock.now().replace(microsecond=0) + timedelta(seconds=1))
        first = await api.client.get(path)
        held = {"If-None-Match": f'"x", {first.headers["etag"]}'}
        api.clock.advance(timedelta(seconds=5))
        again = await api.client.get(path, headers=held)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        # A page counts down by the clock in what its browser shows again.
        api.clock.advance(timedelta(seconds=6))
        later = await api.client.get(path, headers=held)
        assert (later.status_code, later.headers["cache-control"]) == (200, "no-cache")
        assert later.headers["etag"] != first.headers["etag"]
        held = {"If-None-Match": later.headers["etag"]}
        await seat(api, lesson_id, new_id())
        assert (await api.client.get(path, headers=held)).status_code == 200
        # Nor is any tag one of an answer to come, or of somebody's own list.
        ahead = later.headers["etag"][:-2] + "9" * 3 + '"'
        assert (await api.client.get(path, headers={"If-None-Match": ahead})).status_code == 200
    mine = await api.client.get("/v1/live-lessons/next", headers=api.member() | held)
    assert (mine.status_code, "etag" in mine.headers) == (200, False)


async def test_drafts_are_for_admins(api: Api) -> None:
    created = await api.client.post(ADMIN, json=PLAN, headers=api.admin())
    lesson_id = created.json()["id"]
    assert (created.json()["status"], created.headers["etag"]) == ("draft", '"1"')
    assert (await api.client.get("/v1/live-lessons")).json()["items"] == []
    assert (await api.client.get("/v1/live-lessons", params={"status": "draft"})).json()["items"] == []
    assert (await api.client.get(f"/v1/live-lessons/{lesson_id}")).status_code == 404
    assert (await seat(api, lesson_id, new_id())).status_code == 404
    assert len((await api.client.get(ADMIN, headers=api.admin())).json()["items"]) == 1


async def test_the_calendar_is_filtered_by_status_and_time(api: Api) -> None:
    march = await plan(api)
    may = await plan(api, starts_at="2027-05-01T00:00:00+08:00", ends_at="2027-05-01T01:00:00+08:00")
    await move(api, may, "canceled")

    async def found(**params: str | list[str]) -> list[str]:
        answer = await api.client.get("/v1/live-lessons", params=params)
        return [item["id"] for item in answer.json()["items"]]

    assert await found() == [march, may]
    assert await found(status="canceled") == [may]
    assert await found(status=["live", "scheduled"]) == [march]
    assert await found(status=["scheduled", "canceled"]) == [march, may]
    assert await found(**{"from": "2027-03-03", "to": "2027-03-03"}) == [march]
    assert await found(**{"from": "2027-05-01"}) == [may]
    assert await found(to="2027-04-30") == [march]
    assert await found(**{"from": "2027-03-03T11:30:00Z", "to": "2027-04-30T16:00:00Z"}) == [march]
    assert await found(**{"from": "2027-03-03T19:30:00 08:00", "to": "2027-04-30T16:00:00Z"}) == [march]  # a bare plus
    assert await found(**{"from": "2027-03-03T11:30:01Z", "to": "2027-04-30T16:00:00.001Z"}) == [may]
    assert await found(coming="true") == [march]
    for wrong in (
        {"status": "x"},
        {"from": "x"},
        {"to": "2027-02-30"},
        {"from": "9999-12-31x"},
        {"coming": "x"},
        {"to": "9999-12-31"},
    ):
        assert (await api.client.get("/v1/live-lessons", params=wrong)).status_code == 422, wrong
    later = await plan(api, starts_at="2027-03-03T21:00:00+08:00", ends_at="2027-03-03T22:00:00+08:00")
    api.clock.set(datetime.fromisoformat("2027-03-03T21:10:00+08:00"))
    assert (await found(status="scheduled"), await found(coming="true")) == ([march, later], [later])
    await move(api, march, "live")
    assert await found(coming="true") == [march, later]


STATES = ("draft", "scheduled", "live", "paused", "ended", "replay_ready", "canceled")
LEGAL = {
    ("draft", "scheduled"), ("draft", "canceled"), ("scheduled", "live"), ("scheduled", "canceled"),
    ("live", "paused"), ("live", "ended"), ("paused", "live"), ("paused", "ended"), ("ended", "replay_ready"),
}  # fmt: skip


async def test_every_transition_is_legal_or_refused(api: Api) -> None:
    lesson_id = await plan(api)
    for held in STATES:
        for wanted in STATES:
            await api.sql("UPDATE live_lesson SET status = :held", held=held)
            answer = await move(api, lesson_id, wanted)
            if (held, wanted) in LEGAL:
                assert (answer.status_code, answer.json()["status"]) == (200, wanted)
            else:
                assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
                assert await api.sql("SELECT status FROM live_lesson") == [(held,)]
    assert (await move(api, lesson_id, "flying")).status_code == 422
    assert (await move(api, str(new_id()), "live")).status_code == 404


async def test_a_running_lesson_is_not_rescheduled(api: Api) -> None:
    lesson_id = await plan(api, "scheduled")
    address, later = f"{ADMIN}/{lesson_id}", {"ends_at": "2027-03-03T22:00:00+08:00"}
    assert (await api.client.patch(address, json=later, headers=api.admin())).status_code == 200
    await move(api, lesson_id, "live")
    refused = await api.client.patch(address, json={"starts_at": "2027-03-02T00:00:00Z"}, headers=api.admin())
    assert (refused.status_code, refused.json()["code"]) == (409, "lesson_running")
    assert (await api.client.patch(address, json={"title": "新名"}, headers=api.admin())).json()["title"] == "新名"


async def test_an_unattended_room_ends_half_an_hour_after_its_planned_end(api: Api) -> None:
    lesson_id, planned = await plan(api, "scheduled", "live"), await plan(api)
    assert await next_due(api.rt, (live_states.end_unattended,)) == datetime(2027, 3, 3, 13, 30, tzinfo=UTC)
    api.clock.set(datetime(2027, 3, 3, 13, 29, 50, tzinfo=UTC))
    assert await api.run_due() == 0
    api.clock.set(datetime(2027, 3, 3, 13, 30, 1, tzinfo=UTC))
    assert (await api.run_due(), await api.run_due()) == (1, 0)
    assert await next_due(api.rt, (live_states.end_unattended,)) is None
    assert (await api.client.get(f"/v1/live-lessons/{lesson_id}")).json()["status"] == "ended"
    assert (await api.client.get(f"/v1/live-lessons/{planned}")).json()["status"] == "scheduled"


async def test_stale_changes_and_lessons_in_use_are_refused(api: Api) -> None:
    lesson_id, admin = await plan(api), api.admin()
    address = f"{ADMIN}/{lesson_id}"
    stale = admin | {"If-Match": '"1"'}
    assert (await api.client.patch(address, json={"title": "x"}, headers=stale)).status_code == 412
    assert (await api.client.delete(address, headers=stale)).status_code == 412
    await seat(api, lesson_id, new_id())
    in_use = await api.client.delete(address, headers=admin)
    assert (in_use.status_code, in_use.json()["code"]) == (409, "lesson_in_use")
    await seat(api, lesson_id, only := new_id(), "DELETE")
    # Whoever only waits, or has paid without a seat, is not forgotten either.
    ways = [{"kind": "points", "needed": 5}, {"kind": "free"}]
    waited = await plan(api, capacity=1, priority_seats=1, access=ways)
    await seat(api, waited, only)
    paid = await plan(api, access=ways)
    await api.client.post(f"/v1/live-lessons/{paid}/points-payment", headers=api.member(only))
    sold = await plan(api)
    await api.handle(bought(sold, only))
    for held in (waited, paid, sold):
        assert (await api.client.delete(f"{ADMIN}/{held}", headers=admin)).json()["code"] == "lesson_in_use"
        await move(api, held, "canceled")
        assert (await api.client.delete(f"{ADMIN}/{held}", headers=admin)).status_code == 204
    await api.emitted()
    unwanted = await plan(api)
    for gone in (unwanted, waited):
        await api.client.delete(f"{ADMIN}/{gone}", headers=admin)
    # Who pays for it at this moment gets the money back.
    [told] = await api.emitted()
    assert isinstance(told, LiveLessonCanceled)
    assert str(told.lesson_id) == unwanted
    await move(api, lesson_id, "canceled")
    assert (await api.client.delete(address, headers=admin | {"If-Match": '"3"'})).status_code == 204
    assert (await api.client.get(f"/v1/live-lessons/{lesson_id}")).status_code == 404


WRONG: list[dict[str, Any]] = [
    {"access": []},
    {"access": [{"kind": "invites", "needed": 3}]},
    {"access": [{"kind": "free"}, {"kind": "invites"}]},
    {"access": [{"kind": "free", "needed": 3}]},
    {"access": [{"kind": "sharing"}]},
    {"access": "free"},
    {"capacity": 0},
    {"capacity": 1.5},
    {"capacity": 2**40},
    {"priority_seats": 3},
    {"priority_seats": -1},
    {"ends_at": "2027-03-03T19:30:00+08:00"},
    {"starts_at": "2027-03-03T19:30:00"},
    {"starts_at": 0},
    {"starts_at": None},
    {"instructor": None},
    {"instructor_id": "x"},
    {"title": ""},
    {"status": "live"},
]


async def test_impossible_plans_are_refused_on_create_and_change(api: Api) -> None:
    lesson_id, admin = await plan(api), api.admin()
    for fields in WRONG:
        created = await api.client.post(ADMIN, json=PLAN | fields, headers=admin)
        changed = await api.client.patch(f"{ADMIN}/{lesson_id}", json=fields, headers=admin)
        assert (created.status_code, changed.status_code) == (422, 422), fields
    assert (await api.client.get(f"{ADMIN}/{lesson_id}", headers=admin)).json()["version"] == 2
    by_member = await api.client.post(
        ADMIN, json=PLAN | {"instructor": None, "instructor_id": str(new_id())}, headers=admin
    )
    assert by_member.status_code == 201


async def test_every_admin_call_decides_who_may_make_it(api: Api) -> None:
    address = f"{ADMIN}/{new_id()}"
    for method, path in (
        ("GET", ADMIN), ("GET", address), ("POST", ADMIN), ("PATCH", address), ("DELETE", address),
        ("POST", f"{address}/transitions"),
    ):  # fmt: skip
        needed, other = ("courses:read", "courses:write") if method == "GET" else ("courses:write", "courses:read")
        answers = [
            (await api.client.request(method, path, headers=headers)).status_code
            for headers in ({}, api.member(), api.admin(other), api.admin(needed))
        ]
        assert answers[:3] == [401, 403, 403], (method, path)
        assert answers[3] in (200, 404, 422)
