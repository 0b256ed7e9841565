"""Items: what an order is for, a plan or a course, at its price in force."""

from dataclasses import dataclass
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from kit.errors import Conflict, Unprocessable
from kit.shapes import CleanStr, StrictIn
from kit.wording import Wrong
from services.billing.course_sales import CourseAlreadyBought, CourseNotFound, CourseNotOnSale, price_of, refuse_bought
from services.billing.plans import PlanNotFound, priced_plan

PlanCode = Annotated[CleanStr, Field(min_length=1, max_length=64)]


class CourseForOneself(Unprocessable):
    """A course is bought once and for yourself; order it without gift and auto_renew."""

    zh = "课程为一次性购买，仅限本人学习，请去掉赠送和自动续费选项。"


class PlanNotOnSale(Conflict):
    """This plan is not sold any more; choose another one."""

    zh = "这个套餐已下架，请选择其他套餐。"


@dataclass(frozen=True)
class Item:
    """Something at its price, in minor units: of a plan or of a course, never both."""

    title: str
    amount: int
    currency: str
    plan_code: str | None = None
    plan_version: int | None = None
    months: int = 0
    benefits: tuple[str, ...] = ()
    course_id: UUID | None = None


class ItemIn(StrictIn):
    """What is bought: a plan by its code, for oneself or as a gift, or a course by its id."""

    plan_code: PlanCode | None = None
    course_id: UUID | None = None
    gift: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.plan_code is None) == (self.course_id is None):
            raise Wrong(
                "name what is bought: either plan_code or course_id", "请指明购买的商品：plan_code 与 course_id 二选一"
            )
        return self


REFUSALS = (PlanNotFound, PlanNotOnSale, CourseForOneself, CourseNotFound, CourseNotOnSale, CourseAlreadyBought)


async def item_of(session: AsyncSession, wanted: ItemIn, member_id: UUID) -> Item:
    """What this member would get; one of `REFUSALS` when it cannot be had."""
    if wanted.course_id is not None:
        if wanted.gift:
            raise CourseForOneself
        course, amount = await price_of(session, wanted.course_id)
        await refuse_bought(session, member_id, wanted.course_id)
        return Item(course.title, amount, course.currency, course_id=wanted.course_id)
    plan = await priced_plan(session, wanted.plan_code or "")
    if not plan.active:
        raise PlanNotOnSale
    return Item(
        f"{plan.name}（礼品 gift）" if wanted.gift else plan.name,
        plan.amount,
        plan.currency,
        plan_code=plan.code,
        plan_version=plan.version,
        months=plan.months,
        benefits=tuple(plan.benefits),
    )
