"""The sandbox's world: 267 baking micro-lessons, imported as an admin would, who teaches them, and two live lessons."""

from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from services.courses.catalogue import import_rows
from services.courses.catalogue_models import Instructor, Series, SeriesCourse
from services.courses.imports import read_rows
from services.courses.models import Course, LiveLesson

CATALOGUE = Path(__file__).with_name("catalogue.csv")
WEDNESDAY = 2
TEACHERS = (
    ("林小满", "蛋糕与甜点", "在社区里答过三千张失败的戚风照片，相信每次回缩都有原因。", ("cake", "dessert")),
    ("周砚", "面包与酵种", "养了九年的同一罐酵种，每周六开炉。", ("bread",)),
)
FIRST_SERIES = ("零基础第一个月", "按顺序学完这几门免费课，家里的烤箱就不再陌生。")
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
            await _give_teachers(session)
        if (await session.execute(select(col(LiveLesson.id)).limit(1))).first() is None:
            _plan_live_lessons(session)


async def _give_teachers(session: AsyncSession) -> None:
    """Cakes and desserts are one's, breads another's; the first courses of each kind are a series for beginners."""
    now = clock.now()
    for name, title, bio, categories in TEACHERS:
        teacher = Instructor(name=name, title=title, bio=bio, verified_at=now, created_at=now, updated_at=now)
        session.add(teacher)
        await session.flush()
        theirs = update(Course).where(col(Course.category).in_(categories)).values(instructor_id=teacher.id)
        await session.execute(theirs.execution_options(synchronize_session=False))
    beginners = select(col(Course.id)).where(col(Course.level) == "beginner", col(Course.access) == "free")
    courses = (await session.execute(beginners.order_by(col(Course.id)).limit(3))).scalars().all()
    title, description = FIRST_SERIES
    series = Series(title=title, description=description, published=True, created_at=now, updated_at=now)
    session.add(series)
    await session.flush()
    for position, course_id in enumerate(courses, 1):
        session.add(SeriesCourse(series_id=series.id, course_id=course_id, position=position))


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
