"""Make-ups: a day without a check-in is bought back with points, once a month, and the streak is whole again."""

from datetime import date, timedelta
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, Unprocessable, problems
from kit.shapes import Day, In
from services.members.check_ins import STREAKS, AlreadyCheckedIn, CheckInOut
from services.members.members import MemberNotFound
from services.members.models import CheckIn
from services.members.points import balances, give_points
from services.members.profile import lock_member

api = router(prefix="/v1/me/check-ins/make-ups", tags=["members"])

PRICE = 20
REACH = timedelta(days=31)


class DayNotOpen(Unprocessable):
    """This day cannot be made up: it must be one of the last 31 days, before today and since you registered."""

    zh = "这一天不能补签：只能补最近 31 天内、今天之前、且在注册之后的日子。"
    loc = ("body", "day")


class MakeUpUsed(Conflict):
    """You have made up a day this month already; next month brings another chance."""

    zh = "这个月已经补签过一次，下个月可以再补。"


class NotEnoughPoints(Conflict):
    """Making up a day costs {price} points; check in and learn to earn them."""

    zh = "补签需要 {price} 积分，签到和学习可以获得积分。"


class MakeUpIn(In):
    """The day to make up, in the business zone."""

    day: Day


REFUSALS = (AlreadyCheckedIn, MakeUpUsed, NotEnoughPoints, DayNotOpen, MemberNotFound)


@api.post("", status_code=201, responses=problems(*REFUSALS))
async def make_up_check_in(body: MakeUpIn, caller: MemberDep, session: SessionDep) -> CheckInOut:
    """Buy a missed day back for 20 points, once a month; it joins the streak and earns nothing itself."""
    # Held until the end: two purchases at once never spend the same points.
    member = await lock_member(session, caller.id)
    if member is None:
        raise MemberNotFound
    now = clock.now()
    today = now.astimezone(clock.ZONE).date()
    registered_on = member.created_at.astimezone(clock.ZONE).date()
    if not max(registered_on, today - REACH) <= body.day < today:
        raise DayNotOpen
    row = {"member_id": caller.id, "day": body.day, "streak": 1, "points": 0, "at": now}
    written = insert(CheckIn).values(row).on_conflict_do_nothing().returning(col(CheckIn.day))
    if (await session.execute(written)).one_or_none() is None:
        raise AlreadyCheckedIn
    if (await balances(session, caller.id))[caller.id] < PRICE:
        raise NotEnoughPoints(price=PRICE)
    if not await give_points(session, caller.id, -PRICE, "make_up", f"{today:%Y-%m}", now):
        raise MakeUpUsed
    await session.execute(STREAKS, {"member": caller.id})
    return await _shown(session, caller.id, body.day)


async def _shown(session: AsyncSession, member_id: UUID, day: date) -> CheckInOut:
    made = await session.get(CheckIn, (member_id, day), populate_existing=True)
    return CheckInOut.model_validate(made)
