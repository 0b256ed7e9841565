"""The sandbox's world: 267 baking micro-lessons, imported as an admin would, and the next two live lessons."""

from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from services.courses.catalogue import import_rows
from services.courses.imports import read_rows
from services.courses.models import Course, LiveLesson

CATALOGUE = Path(__file__).with_name("catalogue.csv")
WEDNESDAY = 2
LIVE: tuple[dict[str, Any], ...] = (
    {
        "title": "直播答疑：为什么我的戚风总回缩",
        "description": "把你的失败照片发到问题区，老师现场对照蛋白霜、炉温和脱模时间逐一诊断，并重做一只六寸戚风。",
        "instructor": "林小满",
        "access": [{"kind": "free"}],
        "capacity": 500,
        "priority_seats": 50,
    },
    {
        "title": "跟做：家庭烤箱里的二十七层可颂",
        "description": "从裹油到整形全程跟做，提前一晚备好面团与片状黄油；黑卡会员免费，也可邀请三位新朋友一起听。",
        "instructor": "周砚",
        "access": [{"kind": "membership"}, {"kind": "invites", "needed": 3}],
        "capacity": 200,
        "priority_seats": 20,
    },
)


async def seed(runtime: Runtime) -> None:
    """Fill an empty world; one with any course, or live lesson, in it, even a deleted one, is left alone."""
    async with runtime.db.session() as session, session.begin():
        if (await session.execute(select(col(Course.id)).limit(1))).first() is None:
            await import_rows(session, read_rows(CATALOGUE.read_bytes()))
        if (await session.execute(select(col(LiveLesson.id)).limit(1))).first() is None:
            _plan_live_lessons(session)


def _plan_live_lessons(session: AsyncSession) -> None:
    """One a week, on Wednesday evenings from tomorrow on."""
    now, tomorrow = clock.now(), clock.today() + timedelta(days=1)
    first = tomorrow + timedelta(days=(WEDNESDAY - tomorrow.weekday()) % 7)
    for week, fields in enumerate(LIVE):
        starts_at = datetime.combine(first + timedelta(weeks=week), time(19, 30), clock.ZONE)
        planned: dict[str, Any] = {
            "starts_at": starts_at,
            "ends_at": starts_at + timedelta(minutes=90),
            "zone": clock.ZONE.key,
        }
        session.add(LiveLesson(**fields, **planned, status="scheduled", created_at=now, updated_at=now))
