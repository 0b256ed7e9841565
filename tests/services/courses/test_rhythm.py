"""The live rhythm: calendars that calendar apps read, reminders once each, and what members want taught."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from icalendar import Calendar

from contracts.members import MemberErased, MemberMerged
from contracts.notices import CoursesNoticeWanted
from kit import clock
from kit.due import next_due
from kit.ids import new_id
from kit.text import instant
from services.courses.app import service
from services.courses.reminders import reminders
from tests.harness import Api, Run
from tests.services.courses.live_world import ADMIN, PLAN, move, plan, seat
from tests.services.courses.room_world import LIVE, ask, plan_at

REQUESTS = "/v1/lesson-requests"


async def events(api: Api, path: str) -> list[Any]:
    answer = await api.client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    return Calendar.from_ical(answer.content).walk("VEVENT")


async def test_a_calendar_app_reads_the_lessons_in_their_zone(api: Api) -> None:
    lesson_id = await plan(api)
    await api.client.post(ADMIN, json={"title": "草稿"}, headers=api.admin())
    canceled = await plan(
        api, "scheduled", "canceled", starts_at="2027-03-04T19:30:00+08:00", ends_at="2027-03-04T21:00:00+08:00"
    )
    found = await events(api, f"{LIVE}.ics")
    assert [str(event["uid"]) for event in found] == [f"{lesson_id}@heika", f"{canceled}@heika"]
    first = found[0]
    shanghai = ZoneInfo("Asia/Shanghai")
    assert first.decoded("dtstart") == datetime(2027, 3, 3, 19, 30, tzinfo=shanghai)
    assert first.decoded("dtend") == datetime(2027, 3, 3, 21, tzinfo=shanghai)
    assert first["dtstart"].params["TZID"] == "Asia/Shanghai"
    assert (str(first["summary"]), str(first["status"]), str(found[1]["status"])) == (
        "可颂跟做",
        "CONFIRMED",
        "CANCELLED",
    )
    zones = Calendar.from_ical((await api.client.get(f"{LIVE}.ics")).content).walk("VTIMEZONE")
    assert [str(zone["tzid"]) for zone in zones] == ["Asia/Shanghai"]


async def test_a_private_calendar_holds_what_its_owner_is_enrolled_in(api: Api) -> None:
    mine, full, _ = [await plan(api, capacity=1) for _ in range(3)]
    me = new_id()
    await seat(api, full, new_id())
    for lesson_id in (mine, full):
        await seat(api, lesson_id, me)
    path = "/v1/me/learning/calendar"
    assert (await api.client.post(path)).status_code == 401
    url = (await ask(api, "POST", path, me)).json()["url"]
    assert (await ask(api, "POST", path, me)).json()["url"] == url
    private = "/v1/" + url.split("/v1/", 1)[1]
    assert [str(event["uid"]) for event in await events(api, private)] == [f"{mine}@heika"]
    assert (await api.client.get(private)).headers["cache-control"] == "private, no-store"
    guessed = await api.client.get(f"{LIVE}.ics", params={"token": "guessed"})
    assert (guessed.status_code, guessed.json()["code"]) == (404, "calendar_unknown")
    other = new_id()
    await api.handle(MemberMerged(kept_id=other, merged_id=me))
    assert len(await events(api, private)) == 1
    assert (await ask(api, "DELETE", path, other)).status_code == 204
    assert (await api.client.get(private)).status_code == 404
    again = (await ask(api, "POST", path, other)).json()["url"]
    assert again != url
    await api.handle(MemberErased(member_id=other))
    assert (await api.client.get("/v1/" + again.split("/v1/", 1)[1])).status_code == 404


async def told(api: Api) -> list[tuple[str, UUID]]:
    return [(event.kind, event.member_id) for event in await api.emitted() if isinstance(event, CoursesNoticeWanted)]


async def test_reminders_go_out_once_each_a_day_and_a_quarter_before(api: Api) -> None:
    lesson_id = await plan_at(api, timedelta(days=2), capacity=1)
    seated, waiting = new_id(), new_id()
    for who in (seated, waiting):
        await seat(api, lesson_id, who)
    start = datetime.fromisoformat((await api.client.get(f"{LIVE}/{lesson_id}")).json()["starts_at"])
    assert await api.run_due() == 0
    assert await next_due(api.rt, api.rt.due) == start - timedelta(hours=24)
    api.clock.set(start - timedelta(hours=24))
    assert await api.run_due() == 1
    assert await told(api) == [("lesson_tomorrow", seated)]
    assert await api.run_due() == 0
    assert await next_due(api.rt, api.rt.due) == start - timedelta(minutes=15)
    api.clock.set(start - timedelta(minutes=15))
    assert await api.run_due() == 1
    assert await told(api) == [("lesson_soon", seated)]
    api.clock.set(start + timedelta(hours=9))
    assert await api.run_due() == 0
    assert await told(api) == []


async def test_a_moved_lesson_is_reminded_of_anew_and_a_canceled_one_never(api: Api) -> None:
    lesson_id, canceled = await plan_at(api, timedelta(hours=25)), await plan_at(api, timedelta(hours=25))
    who = new_id()
    for lesson in (lesson_id, canceled):
        await seat(api, lesson, who)
    await move(api, canceled, "canceled")
    api.clock.advance(timedelta(hours=2))
    await api.run_due()
    assert [kind for kind, _ in await told(api)] == ["lesson_canceled", "lesson_tomorrow"]
    later = clock.now() + timedelta(days=5)
    span = {"starts_at": instant(later), "ends_at": instant(later + timedelta(hours=1))}
    await api.client.patch(f"{ADMIN}/{lesson_id}", json=span, headers=api.admin())
    assert await api.run_due() == 0
    api.clock.advance(timedelta(days=4, minutes=1))
    assert await api.run_due() == 1
    assert [kind for kind, _ in await told(api)] == ["lesson_rescheduled", "lesson_tomorrow"]


async def test_a_reminder_whose_moment_was_over_when_the_time_was_set_is_left_out(api: Api) -> None:
    who, lesson_id = new_id(), await plan_at(api, timedelta(hours=20))
    await seat(api, lesson_id, who)
    assert await api.run_due() == 0
    sooner = clock.now() + timedelta(minutes=10)
    span = {"starts_at": instant(sooner), "ends_at": instant(sooner + timedelta(hours=1))}
    assert (await api.client.patch(f"{ADMIN}/{lesson_id}", json=span, headers=api.admin())).status_code == 200
    assert await api.run_due() == 0
    assert await told(api) == [("lesson_rescheduled", who)]


async def test_two_processes_and_one_that_comes_back_remind_once(api: Api, run: Run, tmp_path: Path) -> None:
    lesson_id, who = await plan_at(api, timedelta(hours=25)), new_id()
    await seat(api, lesson_id, who)
    api.clock.advance(timedelta(hours=2))
    same = {"data": tmp_path, "database_url": api.rt.settings.database_url}
    async with run(service, **same) as beside:
        done = await asyncio.gather(*(reminders.run(each.rt) for each in (api, beside, api, beside)))
        assert sum(done) == 1
    async with run(service, **same) as restarted:
        assert await restarted.run_due() == 0
    assert await told(api) == [("lesson_tomorrow", who)]


async def test_the_next_lesson_is_the_one_to_count_down_to(api: Api) -> None:
    path, me = f"{LIVE}/next", new_id()
    assert (await api.client.get(path)).json() == {"next": None, "mine": None}
    later, first = await plan_at(api, timedelta(days=2), capacity=1), await plan_at(api, timedelta(hours=1))
    await plan_at(api, timedelta(minutes=5), "scheduled", "canceled")
    await seat(api, later, me)

    async def ids(headers: dict[str, str]) -> tuple[str | None, str | None]:
        found = (await api.client.get(path, headers=headers)).json()
        return found["next"] and found["next"]["id"], found["mine"] and found["mine"]["id"]

    assert await ids({}) == (first, None)
    assert await ids(api.member(me)) == (first, later)
    await seat(api, later, waiting := new_id())
    assert await ids(api.member(waiting)) == (first, None)
    await move(api, first, "live")
    assert await ids({}) == (first, None)
    api.clock.advance(timedelta(hours=2, minutes=40))
    assert await ids({}) == (first, None)
    await move(api, first, "ended")
    assert await ids({}) == (later, None)
    assert (await api.client.get(path)).headers["cache-control"] == "no-cache"
    assert (await api.client.get(path, headers=api.member(me))).headers["cache-control"] == "private, no-store"


async def test_after_an_outage_only_the_reminder_that_still_helps_goes_out(api: Api) -> None:
    lesson_id = await plan_at(api, timedelta(days=3))
    await seat(api, lesson_id, new_id())
    api.clock.advance(timedelta(days=3, minutes=-10))
    assert await api.run_due() == 1
    assert [kind for kind, _ in await told(api)] == ["lesson_soon"]
    assert await api.run_due() == 0


async def test_members_vote_for_what_they_want_taught(api: Api) -> None:
    author, voter = new_id(), new_id()
    assert (await api.client.post(REQUESTS, json={"title": "吐司"})).status_code == 401
    assert (await ask(api, "POST", REQUESTS, author, {"title": ""})).status_code == 422
    first, second = [(await ask(api, "POST", REQUESTS, author, {"title": title})).json() for title in ("吐司", "月饼")]
    assert (first["votes"], first["voted"], first["live_lesson_id"]) == (1, True, None)
    path = f"{REQUESTS}/{second['id']}/vote"
    votes = await asyncio.gather(*(ask(api, "PUT", path, voter) for _ in range(4)), ask(api, "PUT", path, new_id()))
    assert {vote.status_code for vote in votes} == {200}
    assert (await ask(api, "PUT", f"{REQUESTS}/{new_id()}/vote", voter)).status_code == 404
    assert (await api.client.put(path)).status_code == 401

    async def listed(member_id: UUID | None = None) -> list[tuple[str, int, bool]]:
        headers, items, cursor = api.member(member_id) if member_id else {}, [], None
        while True:
            params = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
            page = (await api.client.get(REQUESTS, params=params, headers=headers)).json()
            items += page["items"]
            if (cursor := page["next_cursor"]) is None:
                return [(item["title"], item["votes"], item["voted"]) for item in items]

    assert await listed(voter) == [("月饼", 3, True), ("吐司", 1, False)]
    assert await listed() == [("月饼", 3, False), ("吐司", 1, False)]
    for _ in range(2):
        assert (await ask(api, "DELETE", path, voter)).json()["votes"] == 2
    await ask(api, "PUT", path, voter)
    await api.handle(MemberMerged(kept_id=author, merged_id=voter))
    assert await listed(author) == [("月饼", 2, True), ("吐司", 1, True)]
    await api.handle(MemberErased(member_id=author))
    assert await listed(author) == [("月饼", 2, False), ("吐司", 1, False)]


async def test_an_admin_turns_a_request_into_a_lesson(api: Api) -> None:
    author = new_id()
    request = (await ask(api, "POST", REQUESTS, author, {"title": "吐司"})).json()
    lesson_id = await plan(api)
    path, body = f"{ADMIN}/{lesson_id}/lesson-request", {"request_id": request["id"]}
    assert (await api.client.put(path, json=body, headers=api.admin("courses:read"))).status_code == 403
    assert (await api.client.put(path, json=body, headers=api.member())).status_code == 403
    await api.acted()
    for _ in range(2):
        answer = await api.client.put(path, json=body, headers=api.admin())
        assert (answer.status_code, answer.json()["live_lesson_id"]) == (200, lesson_id)
    assert [act.action for act in await api.acted()] == ["lesson_request.answered"]
    [notice] = [event for event in await api.emitted() if isinstance(event, CoursesNoticeWanted)][:1]
    assert (notice.member_id, notice.kind) == (author, "lesson_wanted")
    missing = await api.client.put(path, json={"request_id": str(new_id())}, headers=api.admin())
    assert (missing.status_code, missing.json()["code"]) == (404, "lesson_request_not_found")
    assert (
        await api.client.put(f"{ADMIN}/{new_id()}/lesson-request", json=body, headers=api.admin())
    ).status_code == 404


async def test_a_request_becomes_a_lesson_in_one_step_and_who_voted_is_told_when_it_is_scheduled(api: Api) -> None:
    author, voter = new_id(), new_id()
    request = (await ask(api, "POST", REQUESTS, author, {"title": "可颂"})).json()
    await ask(api, "PUT", f"{REQUESTS}/{request['id']}/vote", voter)
    body = PLAN | {"request_id": request["id"]}
    unknown = await api.client.post(ADMIN, json=body | {"request_id": str(new_id())}, headers=api.admin())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "lesson_request_not_found")
    assert await api.sql("SELECT 1 FROM live_lesson") == []
    created = await api.client.post(ADMIN, json=body, headers=api.admin())
    assert created.status_code == 201, created.text
    lesson_id = created.json()["id"]
    [item] = (await api.client.get(REQUESTS)).json()["items"]
    assert (item["live_lesson_id"], item["votes"]) == (lesson_id, 2)
    assert [act.action for act in await api.acted()] == ["live_lesson.created", "lesson_request.answered"]
    assert await told(api) == []
    await move(api, lesson_id, "scheduled")
    assert sorted(await told(api)) == sorted([("lesson_wanted", author), ("lesson_wanted", voter)])
    await move(api, lesson_id, "canceled")
    [item] = (await api.client.get(REQUESTS)).json()["items"]
    assert item["live_lesson_id"] is None
