"""Attendance from heartbeats, and the replay afterwards."""

import asyncio
import csv
import io
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from contracts.members import MemberChanged, MemberErased, MemberMerged
from kit import clock
from kit.ids import new_id
from kit.text import instant
from tests.harness import Api
from tests.services.courses.live_world import ADMIN, bought, move, seat
from tests.services.courses.room_world import LIVE, ask, give_card, plan_at

FREE = [{"kind": "free"}]
MINUTE = timedelta(minutes=1)


async def live(api: Api, **fields: Any) -> tuple[str, datetime]:
    """A lesson of 90 minutes that ended this very minute, and its start."""
    lesson_id = await plan_at(api, MINUTE, "scheduled", "live", **({"access": FREE} | fields))
    start = datetime.fromisoformat((await api.client.get(f"{LIVE}/{lesson_id}")).json()["starts_at"])
    api.clock.set(start + 100 * MINUTE)
    return lesson_id, start


async def beat(api: Api, lesson_id: str, member_id: Any, since: datetime, until: datetime) -> httpx.Response:
    body = {"from": instant(since), "to": instant(until)}
    return await ask(api, "POST", f"{LIVE}/{lesson_id}/heartbeats", member_id, body)


async def sheet(api: Api, lesson_id: str) -> list[list[str]]:
    answer = await api.client.get(f"{ADMIN}/{lesson_id}/attendance.csv", headers=api.admin("courses:read"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    for_excel = await api.client.get(f"{ADMIN}/{lesson_id}/attendance.csv?bom=true", headers=api.admin())
    assert for_excel.content == b"\xef\xbb\xbf" + answer.content
    return list(csv.reader(io.StringIO(answer.text)))


async def test_each_second_counts_once_and_only_within_the_lesson(api: Api) -> None:
    lesson_id, start = await live(api)
    member_id = new_id()

    async def seconds(first: float, last: float) -> int:
        answer = await beat(api, lesson_id, member_id, start + first * MINUTE, start + last * MINUTE)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["attended_s"])

    assert await seconds(-10, 10) == 600
    assert await seconds(5, 15) == 900
    assert await seconds(5, 15) == 900
    assert await seconds(-10, -1) == 900
    assert await seconds(80, 100) == 1500
    assert await seconds(95, 99) == 1500
    assert await seconds(15, 15) == 1500
    await move(api, lesson_id, "ended")
    assert await seconds(30, 31) == 1560


async def test_present_begins_at_sixty_percent(api: Api) -> None:
    lesson_id, start = await live(api)
    member_id = new_id()
    first = (await beat(api, lesson_id, member_id, start, start + timedelta(seconds=3239))).json()
    assert first == {"attended_s": 3239, "present": False}
    second = (await beat(api, lesson_id, member_id, start, start + timedelta(seconds=3240))).json()
    assert second == {"attended_s": 3240, "present": True}


async def test_heartbeats_of_one_member_at_the_same_moment_lose_nothing(api: Api) -> None:
    lesson_id, start = await live(api)
    member_id = new_id()
    spans = [(start + minute * MINUTE, start + (minute + 2) * MINUTE) for minute in range(0, 40, 2)]
    await asyncio.gather(*(beat(api, lesson_id, member_id, *span) for span in spans))
    assert (await beat(api, lesson_id, member_id, start, start)).json()["attended_s"] == 2400


async def test_heartbeats_that_cannot_be_are_refused_and_nothing_is_kept(api: Api) -> None:
    lesson_id, start = await live(api)
    member_id, now = new_id(), clock.now()
    late = await beat(api, lesson_id, member_id, now, now + MINUTE)
    assert (late.status_code, late.json()["code"]) == (422, "heartbeat_in_future")
    assert (await beat(api, lesson_id, member_id, start + MINUTE, start)).status_code == 422
    path = f"{LIVE}/{lesson_id}/heartbeats"
    assert (await ask(api, "POST", path, member_id, {"from": 1, "to": 2})).status_code == 422
    assert (await api.client.post(path, json={})).status_code == 401
    members = await plan_at(api, MINUTE, "scheduled", "live", access=[{"kind": "membership"}])
    assert (await beat(api, members, member_id, start, start)).json()["code"] == "access_required"
    planned = await plan_at(api, MINUTE, access=FREE)
    assert (await beat(api, planned, member_id, start, start)).json()["code"] == "attendance_not_taken"
    assert await api.sql("SELECT * FROM attendance") == []


async def test_a_heartbeat_that_comes_after_the_card_ran_out_counts(api: Api) -> None:
    lesson_id, start = await live(api, access=[{"kind": "membership"}])
    member_id = new_id()
    await give_card(api, member_id)
    api.clock.advance(timedelta(days=40))
    assert (await beat(api, lesson_id, member_id, start, start + 5 * MINUTE)).json()["attended_s"] == 300
    after = start + timedelta(days=35)
    assert (await beat(api, lesson_id, member_id, start, after)).json()["code"] == "access_required"


async def test_the_sheet_names_everyone_enrolled_or_seen(api: Api) -> None:
    lesson_id, start = await live(api)
    seen, absent, merged = new_id(), new_id(), new_id()
    await seat(api, lesson_id, absent)
    await api.handle(MemberChanged(member_id=seen, nickname="=1+1", tier="beginner"))
    await beat(api, lesson_id, seen, start, start + 30 * MINUTE)
    await beat(api, lesson_id, merged, start + 20 * MINUTE, start + 60 * MINUTE)
    await api.handle(MemberMerged(kept_id=seen, merged_id=merged))
    assert await sheet(api, lesson_id) == [
        ["member_id", "nickname", "attended_s", "present"],
        [str(seen), "'=1+1", "3600", "true"],
        [str(absent), "", "0", "false"],
    ]
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("plans:read"), 403)):
        answer = await api.client.get(f"{ADMIN}/{lesson_id}/attendance.csv", headers=headers)
        assert answer.status_code == status
    assert (await api.client.get(f"{ADMIN}/{new_id()}/attendance.csv", headers=api.admin())).status_code == 404
    await api.handle(MemberErased(member_id=seen))
    assert [row[0] for row in (await sheet(api, lesson_id))[1:]] == [str(absent)]


async def test_a_replay_plays_for_whom_the_lesson_is_open(api: Api) -> None:
    lesson_id, _ = await live(api)
    path, member_id = f"{LIVE}/{lesson_id}/replay", new_id()
    early = await ask(api, "GET", path, member_id)
    assert (early.status_code, early.json()["code"]) == (409, "replay_not_ready")
    for status in ("ended", "replay_ready"):
        await move(api, lesson_id, status)
    assert (await api.client.get(path)).status_code == 401
    link = (await ask(api, "GET", path, member_id)).json()
    playing = "/v1/" + link["url"].split("/v1/", 1)[1]
    whole = await api.client.get(playing)
    part = await api.client.get(playing, headers={"Range": "bytes=4-9"})
    assert (whole.status_code, part.status_code, part.content) == (200, 206, whole.content[4:10])
    assert (await api.client.get(playing[:-2])).json()["code"] == "playback_link_invalid"
    as_lesson = playing.replace("live-lessons", "lessons")
    assert (await api.client.get(as_lesson)).json()["code"] == "playback_link_invalid"
    api.clock.set(datetime.fromisoformat(link["expires_at"]))
    assert (await api.client.get(playing)).json()["code"] == "playback_link_invalid"


@pytest.mark.parametrize(
    ("benefits", "status", "code"),
    [
        (("member_lessons", "live_replay"), 200, None),
        (("live_replay",), 200, None),
        (("member_lessons",), 403, "membership_required"),
        (("qa_priority",), 403, "access_required"),
    ],
)
async def test_of_black_cards_those_with_the_benefit_replay(
    api: Api, benefits: tuple[str, ...], status: int, code: str | None
) -> None:
    lesson_id = await plan_at(
        api, MINUTE, "scheduled", "live", "ended", "replay_ready", access=[{"kind": "membership"}]
    )
    member_id = new_id()
    await give_card(api, member_id, *benefits)
    answer = await ask(api, "GET", f"{LIVE}/{lesson_id}/replay", member_id)
    assert (answer.status_code, answer.json().get("code")) == (status, code)


async def test_a_card_without_the_benefit_does_not_close_another_way_to_the_replay(api: Api) -> None:
    path = ("scheduled", "live", "ended", "replay_ready")
    lesson_id = await plan_at(api, MINUTE, *path, access=[{"kind": "membership"}, {"kind": "purchase"}])
    member_id = new_id()
    await give_card(api, member_id, "member_lessons")
    replay = f"{LIVE}/{lesson_id}/replay"
    assert (await ask(api, "GET", replay, member_id)).json()["code"] == "membership_required"
    await api.handle(bought(lesson_id, member_id))
    assert (await ask(api, "GET", replay, member_id)).status_code == 200


async def test_an_admin_names_the_recording(api: Api) -> None:
    lesson_id = await plan_at(api, MINUTE, "scheduled", "live", "ended", "replay_ready", access=FREE)
    api.rt.settings.media.joinpath("evening.mp4").write_bytes(b"0123456789")
    changed = await api.client.patch(f"{ADMIN}/{lesson_id}", json={"media": "evening.mp4"}, headers=api.admin())
    assert changed.status_code == 200, changed.text
    link = (await ask(api, "GET", f"{LIVE}/{lesson_id}/replay", new_id())).json()
    assert (await api.client.get("/v1/" + link["url"].split("/v1/", 1)[1])).content == b"0123456789"
    wrong = await api.client.patch(f"{ADMIN}/{lesson_id}", json={"media": "../x"}, headers=api.admin())
    assert wrong.status_code == 422
