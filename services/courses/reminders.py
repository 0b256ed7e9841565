"""Reminders: everyone with a seat is told a day before a live lesson and when its doors open, once each."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Due, Runtime
from kit.text import instant
from services.courses.live_news import notify
from services.courses.models import LiveLesson
from services.courses.rhythm_models import LiveReminder

BEFORE: Final = {"lesson_tomorrow": timedelta(hours=24), "lesson_soon": timedelta(minutes=15)}

_SEATED: Final = text("SELECT member_id FROM enrolment WHERE lesson_id = :id AND status = 'enrolled' ORDER BY place")
# A reminder whose moment passed long before the next one is due, as after an outage, gives way to that one.
_DUE: Final = text("""
SELECT id FROM live_lesson WHERE status = 'scheduled' AND deleted_at IS NULL
AND starts_at > :now AND starts_at > :now + CAST(:next AS interval) AND starts_at <= :now + CAST(:before AS interval)
AND NOT EXISTS (SELECT FROM live_reminder WHERE lesson_id = live_lesson.id AND kind = :kind
    AND live_reminder.starts_at = live_lesson.starts_at)
ORDER BY starts_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_NEXT: Final = text("""
SELECT min(starts_at - CAST(:before AS interval)) FROM live_lesson
WHERE status = 'scheduled' AND deleted_at IS NULL AND starts_at - CAST(:before AS interval) > :now
""")


async def pass_over(session: AsyncSession, lesson: LiveLesson) -> None:
    """Leave out the reminders whose moment is over when a lesson gets this time: whoever has a seat is told of it now."""
    now = clock.now()
    for kind, before in BEFORE.items():
        if lesson.starts_at - before <= now:
            row = insert(LiveReminder).values(lesson_id=lesson.id, kind=kind, starts_at=lesson.starts_at)
            await session.execute(row.on_conflict_do_nothing())


async def _remind(runtime: Runtime) -> int:
    """Tell each lesson's people once; the note that they were told commits together with what they are told."""
    done = 0
    for kind, before in BEFORE.items():
        later = BEFORE["lesson_soon"] if kind == "lesson_tomorrow" else timedelta(0)
        while True:
            now = clock.now()
            async with runtime.db.session() as session, session.begin():
                values = {"now": now, "before": before, "next": later, "kind": kind}
                lesson_id = (await session.execute(_DUE, values)).scalar_one_or_none()
                if lesson_id is None:
                    break
                lesson = (await session.execute(select(LiveLesson).where(col(LiveLesson.id) == lesson_id))).scalar_one()
                row = insert(LiveReminder).values(lesson_id=lesson.id, kind=kind, starts_at=lesson.starts_at)
                noted = await session.execute(row.on_conflict_do_nothing().returning(col(LiveReminder.kind)))
                if noted.one_or_none() is None:
                    # Another process told them after this one had looked, and before it had the lesson.
                    continue
                seated = (await session.execute(_SEATED, {"id": lesson.id})).scalars().all()
                await notify(session, lesson, kind, instant(lesson.starts_at), seated)
                done += 1
    return done


async def _next(runtime: Runtime) -> datetime | None:
    now = clock.now()
    async with runtime.db.session() as session:
        found = [await session.scalar(_NEXT, {"now": now, "before": before}) for before in BEFORE.values()]
    return min((moment for moment in found if moment is not None), default=None)


# Of a lesson that comes soon tomorrow's reminder may be missing for good; the job knows.
_WAITS: Final = " UNION ALL ".join(
    f"SELECT FROM live_lesson WHERE status = 'scheduled' AND deleted_at IS NULL AND starts_at > $1 "  # noqa: S608
    f"AND starts_at <= $1 + interval '{before.total_seconds()} seconds' AND NOT EXISTS (SELECT FROM live_reminder "
    f"WHERE lesson_id = live_lesson.id AND kind = '{kind}' AND live_reminder.starts_at = live_lesson.starts_at)"
    for kind, before in BEFORE.items()
)
reminders = Due("remind of live lessons", _remind, next_at=_next, waits=_WAITS)
