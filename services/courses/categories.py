"""Categories: the kinds of baking that courses are sorted by."""

from typing import Literal

from fastapi import Request, Response
from sqlalchemy import func, select
from sqlmodel import col

from kit.app import router as new_router
from kit.db import SessionDep
from kit.http import cacheable
from kit.page import Page, PageDep, sliced
from kit.shapes import Out
from services.courses.models import Course

router = new_router(prefix="/v1/categories", tags=["courses"])

Category = Literal["cake", "dessert", "bread", "drink", "chinese_pastry", "other"]
NAMES: dict[Category, tuple[str, str]] = {
    "cake": ("蛋糕", "Cakes"),
    "dessert": ("甜点", "Desserts"),
    "bread": ("面包", "Breads"),
    "drink": ("饮品", "Drinks"),
    "chinese_pastry": ("中点", "Chinese pastry"),
    "other": ("其他", "Other"),
}


class CategoryName(Out):
    """A name in both languages."""

    zh: str
    en: str


class CategoryOut(Out):
    """A category and how many courses it shows."""

    code: Category
    name: CategoryName
    courses: int


@router.get("", response_model=Page[CategoryOut])
async def list_categories(request: Request, session: SessionDep, page: PageDep) -> Response:
    """The categories in the order in which apps show them."""
    shown = select(col(Course.category), func.count().label("shown")).where(
        col(Course.published), col(Course.deleted_at).is_(None)
    )
    counts = {row.category: row.shown for row in await session.execute(shown.group_by(col(Course.category)))}
    items = [
        {"code": code, "name": {"zh": zh, "en": en}, "courses": counts.get(code, 0)} for code, (zh, en) in NAMES.items()
    ]
    shown_now, cursor = sliced(items, page, "code")
    return cacheable(request, {"items": shown_now, "next_cursor": cursor})
