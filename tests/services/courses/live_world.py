"""What tests of live lessons build upon: a plan, and members who want a seat."""

from typing import Any
from uuid import UUID

import httpx

from contracts.billing import OrderPaid
from kit import clock
from kit.ids import new_id
from tests.harness import Api

ADMIN = "/v1/admin/live-lessons"
PLAN: dict[str, Any] = {
    "title": "可颂跟做",
    "description": "提前备好面团",
    "instructor": "周砚",
    "starts_at": "2027-03-03T19:30:00+08:00",
    "ends_at": "2027-03-03T21:00:00+08:00",
    "capacity": 2,
    "access": [{"kind": "membership"}, {"kind": "invites", "needed": 3}],
}


async def plan(api: Api, *path: str, **fields: Any) -> str:
    """A live lesson that went through these statuses."""
    created = await api.client.post(ADMIN, json=PLAN | fields, headers=api.admin())
    assert created.status_code == 201, created.text
    for status in path or ("scheduled",):
        assert (await move(api, created.json()["id"], status)).status_code == 200
    return str(created.json()["id"])


async def move(api: Api, lesson_id: str, to: str) -> httpx.Response:
    return await api.client.post(f"{ADMIN}/{lesson_id}/transitions", json={"to": to}, headers=api.admin())


async def seat(api: Api, lesson_id: str, member_id: UUID, method: str = "PUT") -> httpx.Response:
    return await api.client.request(method, f"/v1/live-lessons/{lesson_id}/enrolment", headers=api.member(member_id))


def bought(lesson_id: str, member_id: UUID) -> OrderPaid:
    """What billing tells when a member paid for a live lesson."""
    return OrderPaid(
        order_id=new_id(),
        number="1",
        member_id=member_id,
        kind="course",
        course_id=UUID(lesson_id),
        months=0,
        benefits=(),
        subtotal=990,
        discount=0,
        total=990,
        currency="CNY",
        payment_method="card",
        paid_at=clock.now(),
    )
