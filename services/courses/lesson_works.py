"""Lesson works: a lesson's page shows what members made from it."""

from fastapi import Response
from sqlmodel import col

from kit.app import json_response
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import problems
from kit.page import Page, PageDep, keyset
from services.courses.lessons import LessonNotFound, ShownLesson
from services.courses.works import LessonWork, LessonWorkOut, shown, works_of

router = new_router(prefix="/v1/lessons/{lesson_id}/works", tags=["lessons"])


@router.get("", response_model=Page[LessonWorkOut], responses=problems(LessonNotFound))
async def list_lesson_works(lesson: ShownLesson, session: SessionDep, page: PageDep) -> Response:
    """Works that members made from a lesson and put on show, the latest first; for everybody."""
    rows, next_cursor = await keyset(session, works_of(lesson.id), page, (col(LessonWork.entry_id).desc(),))
    # A course that is not on sale any more is shown to its buyers only.
    private = {"Cache-Control": "private, no-store"}
    return json_response({"items": [shown(row) for row in rows], "next_cursor": next_cursor}, headers=private)
