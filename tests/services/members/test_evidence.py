"""What members did elsewhere: points, evidence, the first tier; and the export of all that is held."""

import asyncio
from typing import Any
from uuid import UUID

from contracts.courses import LessonCompleted
from contracts.members import MemberChanged, PointsChanged
from contracts.showcase import EntryApproved
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import PHONE, a_member
from tests.services.members.test_membership import paid


def finished(member_id: UUID, **more: Any) -> LessonCompleted:
    fields: dict[str, Any] = {"lesson_id": new_id(), "course_id": new_id(), "completed_at": clock.now()}
    return LessonCompleted(member_id=member_id, **(fields | more))


def approved(member_id: UUID) -> EntryApproved:
    return EntryApproved(entry_id=new_id(), contest_id=new_id(), member_id=member_id, approved_at=clock.now())


async def seen(api: Api, member_id: UUID) -> tuple[str, dict[str, int], int]:
    body = (await api.client.get(f"/v1/admin/members/{member_id}", headers=api.admin())).json()
    return body["tier"], body["evidence"], body["points"]


async def test_the_first_finished_lesson_makes_a_beginner(api: Api) -> None:
    member_id, _ = await a_member(api)
    lesson = finished(member_id)
    await api.handle(lesson, lesson, lesson.model_copy(update={"id": new_id()}))
    assert await seen(api, member_id) == ("beginner", {"lesson_finished": 1}, 5)
    [points, told] = await api.emitted()
    assert isinstance(points, PointsChanged)
    assert (points.member_id, points.version, points.balance) == (member_id, 5, 5)
    assert isinstance(told, MemberChanged)
    assert told.tier == "beginner"


async def test_works_and_lessons_at_once_are_all_counted(api: Api) -> None:
    member_id, _ = await a_member(api)
    events = [finished(member_id) for _ in range(6)] + [approved(member_id) for _ in range(3)]
    await asyncio.gather(*(api.handle(event) for event in events))
    assert await seen(api, member_id) == ("beginner", {"lesson_finished": 6, "work_approved": 3}, 60)
    told = await api.emitted()
    assert [type(event) for event in told if not isinstance(event, PointsChanged)] == [MemberChanged]
    balances = [event.balance for event in told if isinstance(event, PointsChanged)]
    assert (balances, len(balances), balances[-1]) == (sorted(balances), 9, 60)


async def test_the_black_card_doubles_them(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.handle(paid(member_id), finished(member_id), approved(member_id))
    assert (await seen(api, member_id))[2] == 30


async def test_nothing_lowers_a_tier(api: Api) -> None:
    member_id, _ = await a_member(api)
    path = f"/v1/admin/members/{member_id}"
    await api.client.patch(path, json={"tier": "instructor"}, headers=api.admin())
    await api.handle(finished(member_id))
    assert (await seen(api, member_id))[0] == "instructor"


async def test_what_an_erased_member_did_is_left_alone(api: Api) -> None:
    member_id, headers = await a_member(api)
    await api.client.delete("/v1/me", headers=headers)
    await api.emitted()
    await api.handle(finished(member_id), finished(new_id()))
    assert await api.emitted() == []
    assert await api.sql("SELECT 1 FROM point_entry") == []


async def test_the_export_holds_everything(api: Api) -> None:
    member_id, headers = await a_member(api)
    await api.client.post("/v1/me/check-ins", headers=headers)
    await api.handle(paid(member_id), finished(member_id))
    answer = await api.client.get("/internal/export", headers=headers)
    assert answer.headers["cache-control"] == "private, no-store"
    body = answer.json()
    assert body["phone"] == PHONE
    assert body["profile"]["id"] == str(member_id)
    assert body["membership"]["status"] == "active"
    assert body["exported_at"].endswith("Z")
    counts = {name: len(body[name]) for name in ("segments", "check_ins", "points", "sessions")}
    assert counts == {"segments": 1, "check_ins": 1, "points": 2, "sessions": 1}
    assert [deed["kind"] for deed in body["deeds"]] == ["lesson_finished"]
    assert [(change["after"], change["cause"]) for change in body["tier_changes"]] == [("beginner", "evidence")]
    assert (body["role_changes"], body["note"]) == ([], "")
    assert (await api.client.get("/internal/export", headers=api.member())).status_code == 404
