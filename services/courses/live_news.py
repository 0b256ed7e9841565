"""Live news: what everyone who follows a live lesson is told, in order, and the notices to those enrolled."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.notices import CoursesNoticeWanted
from kit import clock
from kit.events import emit
from kit.text import dump_json
from services.courses.models import LiveLesson

NewsKind = Literal["status", "question", "answer", "notice"]

# The room's row gives the numbers out, and holds back whoever tells next until this transaction is done: a higher number
# is never seen before a lower one, so whoever asks for what came after a number misses nothing.
_TELL: Final = text("""
WITH room AS (
    INSERT INTO live_room (lesson_id, told, close_wanted, attempts) VALUES (:lesson_id, 1, false, 0)
    ON CONFLICT (lesson_id) DO UPDATE SET told = live_room.told + 1 RETURNING told
)
INSERT INTO live_event (lesson_id, number, kind, body, at)
SELECT :lesson_id, told, :kind, CAST(:body AS jsonb), :now FROM room
""")


async def tell(session: AsyncSession, lesson_id: UUID, kind: NewsKind, body: dict[str, Any]) -> None:
    """Tell everyone who follows the lesson, once this transaction commits; call it last, it holds the room's row."""
    fact = orjson.loads(dump_json(body))
    row = {"lesson_id": lesson_id, "kind": kind, "body": orjson.dumps(fact).decode(), "now": clock.now()}
    await session.execute(_TELL, row)


async def tell_status(session: AsyncSession, lesson: LiveLesson) -> None:
    """Tell the status that the lesson has now."""
    await tell(session, lesson.id, "status", {"status": lesson.status})


_LISTED: Final = text("""
SELECT member_id FROM (
    SELECT member_id, place FROM enrolment WHERE lesson_id = :id
    UNION ALL SELECT member_id, NULL FROM points_payment WHERE lesson_id = :id AND status IN ('pending', 'paid')
    UNION ALL SELECT member_id, NULL FROM purchase
        WHERE course_id = :id AND paid_at IS NOT NULL AND refunded_at IS NULL AND member_id IS NOT NULL
) AS listed GROUP BY member_id ORDER BY min(place) NULLS LAST, member_id
""")

_NOTICES: Final = {
    "lesson_rescheduled": (
        "直播课《{title}》的时间改为 {zh_at}，你的报名和已付的费用仍然有效。",
        "The live lesson “{title}” now starts at {en_at}; your enrolment and what you paid stay good.",
    ),
    "lesson_canceled": (
        "直播课《{title}》（原定 {zh_at}）已取消。用积分或现金支付的会自动退回。",
        "The live lesson “{title}”, planned for {en_at}, is canceled. Points or money paid for it come back by themselves.",
    ),
    "lesson_tomorrow": (
        "你报名的直播课《{title}》将于 {zh_at} 开始。",
        "The live lesson “{title}”, in which you are enrolled, starts at {en_at}.",
    ),
    "lesson_soon": (
        "你报名的直播课《{title}》将于 {zh_at} 开始，大门已开，现在可以进入。",
        "The live lesson “{title}” starts at {en_at}; the doors are open, come in.",
    ),
    "lesson_seat": (
        "直播课《{title}》有了空位，你已从候补转为正式报名，开课时间 {zh_at}。",
        "A seat in the live lesson “{title}” became free and is yours; it starts at {en_at}.",
    ),
    "lesson_wanted": (
        "你想学的内容排上了直播课《{title}》，开课时间 {zh_at}，现在可以报名。",
        "What you wanted taught is a live lesson now: “{title}”, at {en_at}; you can enrol.",
    ),
}
"""Every kind of notice that courses wants, in Chinese and in English."""


async def notify(
    session: AsyncSession, lesson: LiveLesson, kind: str, occasion: str, member_ids: Sequence[UUID] | None = None
) -> int:
    """Have members told, everyone enrolled or who paid unless named; once for each kind and occasion. How many."""
    if member_ids is None:
        member_ids = (await session.execute(_LISTED, {"id": lesson.id})).scalars().all()
    wanted = notices(lesson, kind, occasion, member_ids)
    await emit(session, *wanted)
    return len(wanted)


class Noticed(Protocol):
    """What a notice says of a lesson."""

    id: UUID
    title: str
    starts_at: datetime
    zone: str


def notices(lesson: Noticed, kind: str, occasion: str, member_ids: Sequence[UUID]) -> list[CoursesNoticeWanted]:
    """What these members are to be told."""
    starts_at = lesson.starts_at.astimezone(ZoneInfo(lesson.zone))
    words = {
        "title": lesson.title,
        "zh_at": f"{starts_at.month} 月 {starts_at.day} 日 {starts_at:%H:%M}",
        "en_at": f"{starts_at:%Y-%m-%d %H:%M} ({lesson.zone})",
    }
    zh, en = _NOTICES[kind]
    now = clock.now()
    return [
        CoursesNoticeWanted(
            member_id=member_id,
            kind=kind,
            reference=f"{kind} {lesson.id} {occasion} {member_id}",
            body_zh=zh.format(**words),
            body_en=en.format(**words),
            wanted_at=now,
        )
        for member_id in member_ids
    ]
