"""Works: what members made from a lesson, as showcase tells it, for the lesson's page."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Index, Select, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, col

from contracts.courses import WorkFiled
from contracts.showcase import EntryChanged, EntryFeatured, EntryPlaced
from kit.db import instant
from kit.events import emit
from kit.shapes import Instant, Out
from services.courses.models import Course, Lesson, Model
from services.courses.room_models import Person

ON_A_PAGE: Final = 6


class LessonWork(Model, table=True):
    """A work made from a lesson; a row without a lesson is one of which only an honour was heard so far."""

    __tablename__ = "lesson_work"
    __table_args__ = (
        Index("lesson_work_lesson_idx", "lesson_id", "entry_id", postgresql_where=text("on_show")),
        Index("lesson_work_member_idx", "member_id"),
    )

    entry_id: UUID = Field(primary_key=True)
    lesson_id: UUID | None = None
    member_id: UUID | None = None
    contest_id: UUID | None = None
    title: str = ""
    thumbnail_url: str | None = None
    on_show: bool = False
    featured: bool = False
    rank: int | None = None
    changed_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))


class WorkAuthor(Out):
    """Who made a work."""

    id: UUID
    nickname: str


class LessonWorkOut(Out):
    """A work made from a lesson; `rank` is its place among the first ten of its contest."""

    entry_id: UUID
    contest_id: UUID
    title: str
    thumbnail_url: str | None
    member: WorkAuthor
    featured: bool
    rank: int | None
    shown_at: Instant


def works_of(lesson_id: UUID) -> Select[Any]:
    """The works on show that were made from a lesson."""
    nickname = func.coalesce(col(Person.nickname), "").label("nickname")
    return (
        select(*LessonWork.__table__.c, nickname)  # type: ignore[attr-defined]  # SQLModel hides it
        .outerjoin(Person, col(Person.member_id) == col(LessonWork.member_id))
        .where(col(LessonWork.lesson_id) == lesson_id, col(LessonWork.on_show))
    )


def shown(row: Any) -> dict[str, Any]:
    """A row of `works_of` as LessonWorkOut's fields."""
    names = ("entry_id", "contest_id", "title", "thumbnail_url", "featured", "rank")
    author = {"id": row.member_id, "nickname": row.nickname}
    return {name: getattr(row, name) for name in names} | {"member": author, "shown_at": row.changed_at}


async def best_works(session: AsyncSession, lesson_id: UUID) -> list[LessonWorkOut]:
    """What the lesson's page shows: featured works first, then by their places, then the latest."""
    order = (col(LessonWork.featured).desc(), col(LessonWork.rank).asc().nulls_last(), col(LessonWork.entry_id).desc())
    rows = (await session.execute(works_of(lesson_id).order_by(*order).limit(ON_A_PAGE))).all()
    return [LessonWorkOut.model_validate(shown(row)) for row in rows]


async def on_entry_changed(session: AsyncSession, event: EntryChanged) -> None:
    """Show the work, or show it no more; an older picture never replaces a newer one."""
    facts = event.model_dump(include={"lesson_id", "member_id", "contest_id", "title", "thumbnail_url", "on_show"})
    held: Any = col(LessonWork.changed_at)
    await _write(session, event.entry_id, facts | {"changed_at": event.at}, held.is_(None) | (held < event.at))
    if event.on_show:
        await _file(session, event)


async def _file(session: AsyncSession, event: EntryChanged) -> None:
    """Tell the category of a work; a lesson that was taken down since had one, too."""
    statement = select(col(Course.category)).join(Lesson, col(Lesson.course_id) == col(Course.id))
    category = (await session.execute(statement.where(col(Lesson.id) == event.lesson_id))).scalar_one_or_none()
    if category is not None:
        fact = event.model_dump(include={"entry_id", "member_id", "lesson_id"})
        await emit(session, WorkFiled(**fact, category=category))


async def on_entry_featured(session: AsyncSession, event: EntryFeatured) -> None:
    """A featured work stands first; that it once was stays to its credit."""
    await _write(session, event.entry_id, {"featured": True})


async def on_entry_placed(session: AsyncSession, event: EntryPlaced) -> None:
    """A work among the first ten of its contest says so."""
    await _write(session, event.entry_id, {"rank": event.rank})


async def _write(
    session: AsyncSession, entry_id: UUID, facts: dict[str, Any], where: ColumnElement[bool] | None = None
) -> None:
    row = insert(LessonWork).values({"title": "", "on_show": False, "featured": False, "entry_id": entry_id} | facts)
    await session.execute(row.on_conflict_do_update(index_elements=["entry_id"], set_=facts, where=where))
