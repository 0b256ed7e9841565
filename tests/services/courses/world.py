"""What these tests build upon: a course with lessons, a member with time."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from tests.harness import Api

COURSE = {
    "title": "戚风蛋糕",
    "description": "从分蛋到脱模",
    "category": "cake",
    "level": "beginner",
    "access": "free",
    "published": True,
}


async def add_course(api: Api, *durations: int, **fields: Any) -> dict[str, Any]:
    """A course with a lesson of each of these durations, as members see it."""
    created = await api.client.post("/v1/admin/courses", json=COURSE | fields, headers=api.admin())
    assert created.status_code == 201, created.text
    for number, duration in enumerate(durations or (100,), 1):
        await add_lesson(api, created.json()["id"], title=f"第 {number} 步", duration_s=duration)
    shown: dict[str, Any] = (
        await api.client.get(f"/v1/admin/courses/{created.json()['id']}", headers=api.admin())
    ).json()
    return shown


async def add_lesson(api: Api, course_id: str, **fields: Any) -> dict[str, Any]:
    """A lesson, as admins see it."""
    body = {"title": "打发蛋白", "description": "", "duration_s": 100} | fields
    added = await api.client.post(f"/v1/admin/courses/{course_id}/lessons", json=body, headers=api.admin())
    assert added.status_code == 201, added.text
    lesson: dict[str, Any] = added.json()
    return lesson


def segment(starts_at: datetime, days: float, *benefits: str) -> SegmentPicture:
    """A segment that gives these benefits, or lessons when none are named."""
    return SegmentPicture(
        id=new_id(),
        source="order",
        source_id=new_id(),
        plan_code="black-card-1m",
        months=1,
        days=0,
        starts_at=starts_at,
        ends_at=starts_at + timedelta(days=days),
        benefits=benefits or ("member_lessons", "live_priority"),
        added_at=starts_at,
    )


def membership(
    member_id: UUID, *segments: SegmentPicture, version: int = 1, grace_days: float = 0
) -> MembershipChanged:
    """A member's whole picture."""
    ends = max((item.ends_at for item in segments), default=clock.now())
    return MembershipChanged(
        member_id=member_id,
        version=version,
        segments=segments,
        access_until=ends + timedelta(days=grace_days) if segments else None,
    )
