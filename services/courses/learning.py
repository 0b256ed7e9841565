"""Learning: everything a member has begun, the latest first."""

from typing import Any
from uuid import UUID

from fastapi import Response
from sqlalchemy import Integer, cast, func, literal_column, select
from sqlmodel import col

from kit.app import json_response
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.courses.lessons import SECONDS
from services.courses.models import Completion, Course, Lesson, Progress

router = new_router(prefix="/v1/me/learning", tags=["lessons"])


class LearningItem(Out):
    """How far the caller came in one lesson; `at` is when they last watched it."""

    course_id: UUID
    course_title: str
    lesson_id: UUID
    lesson_title: str
    percent: int
    completed: bool
    position_s: int
    at: Instant


@router.get("", response_model=Page[LearningItem])
async def list_learning(caller: MemberDep, session: SessionDep, page: PageDep) -> Response:
    """The lessons the caller has begun, also those taken down since, the latest first."""
    seconds = literal_column(SECONDS.format(watched="progress.watched", duration="lesson.duration_s"), Integer)
    percent = cast(func.least(100, 100 * seconds / col(Lesson.duration_s)), Integer)
    columns: tuple[Any, ...] = (
        col(Lesson.course_id),
        col(Course.title).label("course_title"),
        col(Progress.lesson_id),
        col(Lesson.title).label("lesson_title"),
        percent.label("percent"),
        col(Completion.completed_at).is_not(None).label("completed"),
        col(Progress.position_s),
        col(Progress.updated_at),
    )
    statement = (
        select(*columns)
        .select_from(Progress)
        .join(Lesson, col(Lesson.id) == col(Progress.lesson_id))
        .join(Course, col(Course.id) == col(Lesson.course_id))
        .outerjoin(
            Completion,
            (col(Completion.lesson_id) == col(Progress.lesson_id))
            & (col(Completion.member_id) == col(Progress.member_id)),
        )
        .where(col(Progress.member_id) == caller.id)
    )
    order = (col(Progress.updated_at).desc(), col(Progress.lesson_id).desc())
    rows, next_cursor = await keyset(session, statement, page, order)
    items = []
    for row in rows:
        item = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
        items.append(item | {"at": item.pop("updated_at")})
    return json_response({"items": items, "next_cursor": next_cursor}, headers={"Cache-Control": "private, no-store"})
