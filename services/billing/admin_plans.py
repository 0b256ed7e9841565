"""Plans as admins edit them: a new amount is a new version, and orders keep theirs."""

from typing import Annotated, Any, Literal, Self

from fastapi import Request, Response
from pydantic import Field, model_validator
from sqlalchemy import insert, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import PlanChanged
from kit import audit, clock
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, StaleVersion, Unprocessable, problems
from kit.events import emit
from kit.http import require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, StrictIn
from kit.wording import Wrong
from services.billing.models import Plan, PlanVersion
from services.billing.plans import BY_PRICE, PlanNotFound, PlanOut, priced, priced_plan

router = new_router(prefix="/v1/admin/plans", tags=["admin plans"])

Reader = Annotated[Caller, admin_with("plans:read")]
Editor = Annotated[Caller, admin_with("plans:write")]

Code = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Price = Annotated[int, Field(strict=True, ge=1, le=99_999_999)]
Months = Annotated[int, Field(strict=True, ge=1, le=120)]
Currency = Literal["CNY", "HKD", "USD"]
Benefit = Literal["member_lessons", "live_replay", "live_priority", "monthly_coupon", "double_points", "qa_priority"]
Name = Annotated[CleanStr, Field(min_length=1, max_length=60)]


class PlanExists(Conflict):
    """A plan with this code exists already; change that one or choose another code."""

    zh = "已有相同代码的套餐，请修改它或换一个代码。"


class OriginalAmountTooLow(Unprocessable):
    """The original amount is what a discount is shown against: it must not be below the amount."""

    zh = "原价用于展示折扣，不能低于现价。"
    loc = ("body", "original_amount")


class PlanIn(StrictIn):
    """A new plan."""

    code: Code
    name: Name
    months: Months
    amount: Price
    currency: Currency = "CNY"
    original_amount: Price | None = None
    benefits: Annotated[list[Benefit], Field(max_length=20)] = Field(default_factory=list)
    active: Annotated[bool, Field(strict=True)] = True

    @model_validator(mode="after")
    def _is_a_discount(self) -> Self:
        if self.original_amount is not None and self.original_amount < self.amount:
            raise Wrong("original_amount must not be below amount", "原价 original_amount 不能低于现价 amount")
        return self


class PlanPatch(StrictIn):
    """What to change; what is left out stays."""

    name: Name | None = None
    months: Months | None = None
    amount: Price | None = None
    currency: Currency | None = None
    original_amount: Price | None = None
    benefits: Annotated[list[Benefit], Field(max_length=20)] | None = None
    active: Annotated[bool, Field(strict=True)] | None = None


async def _answer(session: AsyncSession, code: str, response: Response, revision: int) -> PlanOut:
    response.headers["ETag"] = version_tag(revision)
    return PlanOut.model_validate(await priced_plan(session, code))


@router.get("")
async def list_all_plans(_: Reader, session: SessionDep, page: PageDep) -> Page[PlanOut]:
    """All plans, sold or not."""
    rows, cursor = await keyset(session, priced(), page, BY_PRICE)
    return Page[PlanOut](items=[PlanOut.model_validate(row) for row in rows], next_cursor=cursor)


@router.get("/{code}", responses=problems(PlanNotFound))
async def read_plan_to_edit(code: str, _: Reader, session: SessionDep, response: Response) -> PlanOut:
    """One plan, with the ETag that a change names in If-Match."""
    plan = await session.get(Plan, code)
    if plan is None:
        raise PlanNotFound
    return await _answer(session, code, response, plan.revision)


@router.post("", status_code=201, responses=problems(PlanExists))
async def create_plan(body: PlanIn, _: Editor, session: SessionDep, response: Response) -> PlanOut:
    """Put a new plan on sale."""
    if not await add_plan(session, body):
        raise PlanExists
    await audit.record(session, "plan.created", body.code, after=body.model_dump())
    return await _answer(session, body.code, response, 1)


async def add_plan(session: AsyncSession, body: PlanIn) -> bool:
    """Write a plan and its first price; False when the code is taken."""
    now = clock.now()
    row = body.model_dump(exclude={"amount", "currency", "original_amount"})
    row |= {"version": 1, "revision": 1, "created_at": now, "updated_at": now}
    if await session.scalar(upsert(Plan).values(row).on_conflict_do_nothing().returning(col(Plan.code))) is None:
        return False
    await _add_version(session, body.code, 1, body.amount, body.original_amount, body.currency)
    await _tell(session, row)
    return True


async def _tell(session: AsyncSession, plan: dict[str, Any]) -> None:
    told = {name: plan[name] for name in ("revision", "name", "months", "benefits", "active")}
    await emit(session, PlanChanged(plan_code=plan["code"], **told))


async def _add_version(
    session: AsyncSession, code: str, version: int, amount: int, original_amount: int | None, currency: str
) -> None:
    await session.execute(
        insert(PlanVersion).values(
            plan_code=code,
            version=version,
            amount=amount,
            original_amount=original_amount,
            currency=currency,
            created_at=clock.now(),
        )
    )


@router.patch("/{code}", responses=problems(PlanNotFound, StaleVersion, OriginalAmountTooLow))
async def change_plan(
    code: str, body: PlanPatch, _: Editor, session: SessionDep, request: Request, response: Response
) -> PlanOut:
    """Change a plan; a new price is a new version, and open orders keep the one they were quoted."""
    plan = await session.get(Plan, code, with_for_update=True)
    if plan is None:
        raise PlanNotFound
    require_version(request, plan.revision)
    held = await priced_plan(session, code)
    wanted = body.model_dump(exclude_unset=True)
    nullable = {"original_amount"}
    wanted = {name: value for name, value in wanted.items() if value is not None or name in nullable}
    price = {name: wanted.pop(name, getattr(held, name)) for name in ("amount", "original_amount", "currency")}
    if price["original_amount"] is not None and price["original_amount"] < price["amount"]:
        raise OriginalAmountTooLow
    if price != {name: getattr(held, name) for name in price}:
        wanted["version"] = plan.version + 1
        await _add_version(
            session, code, plan.version + 1, price["amount"], price["original_amount"], price["currency"]
        )
    before = {name: getattr(held, name, getattr(plan, name, None)) for name in (*wanted, *price)}
    await audit.record(session, "plan.changed", code, before=before, after=wanted | price)
    revision = plan.revision + 1
    await _tell(session, plan.model_dump() | wanted | {"revision": revision})
    await session.execute(
        update(Plan).where(col(Plan.code) == code).values(**wanted, revision=revision, updated_at=clock.now())
    )
    return await _answer(session, code, response, revision)
