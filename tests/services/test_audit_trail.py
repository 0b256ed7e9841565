"""The audit trail: what admins do in every service is told with it, and members keeps it all."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from kit import clock
from kit.app import Service
from kit.ids import new_id
from kit.text import instant
from services.billing.app import service as billing
from services.courses.app import service as courses
from services.members.app import service as members
from services.referrals.app import service as referrals
from services.showcase.app import service as showcase
from tests.harness import Api, Run

PLAN = {"code": "silver-1m", "name": "银卡月卡", "months": 1, "amount": 990}
COURSE = {"title": "戚风", "category": "cake", "level": "beginner", "access": "free"}
LIVE = {"title": "直播", "instructor": "林老师", "capacity": 10, "access": [{"kind": "free"}]}


async def call(api: Api, admin: dict[str, str], method: str, path: str, json: Any = None) -> Any:
    answer = await api.client.request(method, f"/v1/admin/{path}", json=json, headers=admin)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def span() -> dict[str, str]:
    start = clock.now() + timedelta(days=1)
    return {"starts_at": instant(start), "ends_at": instant(start + timedelta(hours=2))}


async def in_billing(api: Api, admin: dict[str, str]) -> None:
    await call(api, admin, "POST", "plans", PLAN)
    await call(api, admin, "PATCH", "plans/silver-1m", {"amount": 1090})
    await call(api, admin, "PATCH", "plans/silver-1m", {"amount": 1090})


async def in_courses(api: Api, admin: dict[str, str]) -> None:
    course = await call(api, admin, "POST", "courses", COURSE)
    await call(api, admin, "PATCH", f"courses/{course['id']}", {"title": "古早蛋糕"})
    lesson = await call(api, admin, "POST", f"courses/{course['id']}/lessons", {"title": "一", "duration_s": 60})
    await call(api, admin, "PATCH", f"lessons/{lesson['id']}", {"duration_s": 90})
    await call(api, admin, "DELETE", f"lessons/{lesson['id']}")
    live = await call(api, admin, "POST", "live-lessons", LIVE | span())
    await call(api, admin, "PATCH", f"live-lessons/{live['id']}", {"capacity": 20})
    await call(api, admin, "POST", f"live-lessons/{live['id']}/transitions", {"to": "scheduled"})
    await call(api, admin, "DELETE", f"live-lessons/{live['id']}")
    await call(api, admin, "DELETE", f"courses/{course['id']}")


async def in_referrals(api: Api, admin: dict[str, str]) -> None:
    await call(api, admin, "POST", "channels", {"code": "fair", "name": "展会"})
    await call(api, admin, "PATCH", "channels/fair", {"name": "春季展会"})
    await call(api, admin, "DELETE", "channels/fair")


async def in_showcase(api: Api, admin: dict[str, str]) -> None:
    contest = await call(api, admin, "POST", "contests", {"title": "月饼大赛"} | span())
    await call(api, admin, "PATCH", f"contests/{contest['id']}", {"votes_per_day": 5})
    await call(api, admin, "DELETE", f"contests/{contest['id']}")


PLACES: list[tuple[Service, Any, list[tuple[str, Any, Any]]]] = [
    (billing, in_billing, [("plan.created", None, None), ("plan.changed", {"amount": 990}, {"amount": 1090})]),
    (
        courses,
        in_courses,
        [
            ("course.created", None, None),
            ("course.changed", {"title": "戚风"}, {"title": "古早蛋糕"}),
            ("lesson.created", None, None),
            ("lesson.changed", {"duration_s": 60}, {"duration_s": 90}),
            ("lesson.deleted", None, None),
            ("live_lesson.created", None, None),
            ("live_lesson.changed", {"capacity": 10}, {"capacity": 20}),
            ("live_lesson.moved", {"status": "draft"}, {"status": "scheduled"}),
            ("live_lesson.deleted", None, None),
            ("course.deleted", None, None),
        ],
    ),
    (
        referrals,
        in_referrals,
        [
            ("channel.created", None, {"name": "展会"}),
            ("channel.changed", {"name": "展会"}, {"name": "春季展会"}),
            ("channel.retired", {"name": "春季展会"}, None),
        ],
    ),
    (
        showcase,
        in_showcase,
        [
            ("contest.created", None, None),
            ("contest.changed", {"votes_per_day": 3}, {"votes_per_day": 5}),
            ("contest.deleted", None, None),
        ],
    ),
]


@pytest.mark.parametrize(("service", "act", "expected"), PLACES, ids=lambda item: getattr(item, "name", None))
async def test_every_act_is_told_once_with_what_it_changed(
    run: Run, service: Service, act: Any, expected: list[tuple[str, Any, Any]]
) -> None:
    admin_id = new_id()
    keys = {"coupon_keys": "a key of sixteen or more characters"} if service is referrals else {}
    async with run(service, **keys) as api:
        await act(api, api.admin(admin_id=admin_id))
        acts = await api.acted()
    assert {item.actor_id for item in acts} == {admin_id}
    assert [item.action for item in acts] == [action for action, _, _ in expected]
    for item, (_, before, after) in zip(acts, expected, strict=True):
        assert before is None or item.before == before
        assert after is None or item.after == after
    async with run(members) as api:
        await api.handle(*acts, *acts)
        kept = await call(api, api.admin("audit:read"), "GET", f"audit?actor={admin_id}&limit=50")
    assert [(item["action"], item["before"], item["after"]) for item in reversed(kept["items"])] == [
        (item.action, item.before, item.after) for item in acts
    ]
    assert {UUID(item["id"]) for item in kept["items"]} == {item.id for item in acts}


async def test_a_refused_act_is_not_told(run: Run) -> None:
    async with run(billing) as api:
        await call(api, api.admin(), "POST", "plans", PLAN)
        assert len(await api.acted()) == 1
        assert (await api.client.post("/v1/admin/plans", json=PLAN, headers=api.admin())).status_code == 409
        stale = api.admin() | {"If-Match": '"9"'}
        assert (await api.client.patch("/v1/admin/plans/silver-1m", json={}, headers=stale)).status_code == 412
        assert await api.acted() == []
