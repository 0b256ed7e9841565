"""Plans: what members can buy, at the price in force."""

from typing import Any, Final

from fastapi import Request, Response
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.http import cacheable
from kit.page import Page, PageDep, keyset
from kit.shapes import Out
from services.billing.models import Plan, PlanVersion

router = new_router(prefix="/v1/plans", tags=["plans"])


class PlanNotFound(NotFound):
    """There is no such plan; see the list of plans."""

    zh = "没有这个套餐，请查看套餐列表。"


class PlanOut(Out):
    """A plan at its price in force; `version` names that price."""

    code: str
    name: str
    months: int
    amount: int
    currency: str
    original_amount: int | None
    benefits: list[str]
    active: bool
    version: int


BY_PRICE: Final = (col(PlanVersion.amount), col(Plan.code))


def priced() -> Select[*tuple[Any, ...]]:
    """Every plan with its price in force, as columns."""
    return select(
        col(Plan.code),
        col(Plan.name),
        col(Plan.months),
        col(PlanVersion.amount),
        col(PlanVersion.currency),
        col(PlanVersion.original_amount),
        col(Plan.benefits),
        col(Plan.active),
        col(Plan.version),
    ).join(
        PlanVersion,
        (col(PlanVersion.plan_code) == col(Plan.code)) & (col(PlanVersion.version) == col(Plan.version)),
    )


async def priced_plan(session: AsyncSession, code: str) -> Row[Any]:
    """One plan's columns; PlanNotFound."""
    row: Row[Any] | None = (await session.execute(priced().where(col(Plan.code) == code))).one_or_none()
    if row is None:
        raise PlanNotFound
    return row


@router.get("", response_model=Page[PlanOut])
async def list_plans(request: Request, session: SessionDep, page: PageDep) -> Response:
    """The plans on sale, cheapest first."""
    rows, cursor = await keyset(session, priced().where(col(Plan.active)), page, BY_PRICE)
    items = [dict(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    return cacheable(request, {"items": items, "next_cursor": cursor}, max_age_s=10)


@router.get("/{code}", response_model=PlanOut, responses=problems(PlanNotFound))
async def read_plan(code: str, request: Request, session: SessionDep) -> Response:
    """One plan, also one that is no longer sold (`active` false)."""
    row = await priced_plan(session, code)
    return cacheable(request, dict(row._mapping), max_age_s=10)  # noqa: SLF001 - as above
