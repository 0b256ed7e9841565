"""Course sales: what courses cost, as courses tells it, and that a member pays for each once."""

from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.courses import CourseChanged
from contracts.merging import kept_of
from kit import clock
from kit.errors import Conflict, NotFound
from services.billing.course_models import CanceledLesson, CourseHolding, CoursePrice
from services.billing.models import Order

# Of two orders for one course, which accounts that became one may have, the other keeps it when the first gives it up.
_PASS_ON = text("""
INSERT INTO course_holding (member_id, course_id, order_id, bought_at)
SELECT member_id, course_id, id, paid_at FROM "order"
WHERE member_id = :member_id AND course_id = :course_id AND id <> :order_id
AND status IN ('paid', 'partially_refunded', 'disputed')
ORDER BY paid_at LIMIT 1
ON CONFLICT DO NOTHING
""")


class CourseNotFound(NotFound):
    """There is no such course; it may have been taken down."""

    zh = "没有这门课程，它可能已经下架。"


class CourseNotOnSale(Conflict):
    """This course is not sold by itself; it is free, or comes with the black card."""

    zh = "这门课程不单独出售：它是免费课程，或随黑卡会员开放。"


class CourseAlreadyBought(Conflict):
    """You have bought this course already; open it and go on with its lessons."""

    zh = "你已经购买过这门课程，直接打开就能学习。"


async def price_of(session: AsyncSession, course_id: UUID) -> tuple[CoursePrice, int]:
    """A course on sale and its amount; CourseNotFound or CourseNotOnSale for any other."""
    course = await session.get(CoursePrice, course_id)
    if course is None or not course.published:
        raise CourseNotFound
    if course.access != "paid" or course.amount is None:
        raise CourseNotOnSale
    return course, course.amount


async def refuse_bought(session: AsyncSession, member_id: UUID, course_id: UUID) -> None:
    """Refuse a course that this member has paid for."""
    held = select(col(CourseHolding.order_id)).where(
        col(CourseHolding.member_id) == member_id, col(CourseHolding.course_id) == course_id
    )
    if await session.scalar(held) is not None:
        raise CourseAlreadyBought


async def is_canceled(session: AsyncSession, order: Order) -> bool:
    """Whether an order is for a live lesson that will not happen."""
    return order.course_id is not None and await session.get(CanceledLesson, order.course_id) is not None


async def take(session: AsyncSession, order: Order) -> bool:
    """Give an order's buyer its course; False when they have it through another order. True for other orders."""
    if order.course_id is None:
        return True
    # An order that waited when its account became part of another is still its own, and the course is the person's.
    member_id = await kept_of(session, order.member_id)
    holding = {"member_id": member_id, "course_id": order.course_id, "order_id": order.id}
    taken = await session.scalar(
        upsert(CourseHolding)
        .values(**holding, bought_at=clock.now())
        .on_conflict_do_nothing()
        .returning(col(CourseHolding.order_id))
    )
    return taken is not None


async def give_up(session: AsyncSession, order: Order) -> None:
    """Take an order's course from its buyer, unless another order of theirs paid for it, too."""
    if order.course_id is None:
        return
    await session.execute(delete(CourseHolding).where(col(CourseHolding.order_id) == order.id))
    ids = {"member_id": order.member_id, "course_id": order.course_id, "order_id": order.id}
    await session.execute(_PASS_ON, ids)


async def on_course_changed(session: AsyncSession, event: CourseChanged) -> None:
    """Keep the newest picture, in whatever order they come."""
    row = upsert(CoursePrice).values(event.model_dump(exclude={"id", "at"}))
    told = {name: row.excluded[name] for name in ("version", "title", "access", "amount", "currency", "published")}
    newer = col(CoursePrice.version) < row.excluded.version
    await session.execute(row.on_conflict_do_update(index_elements=["course_id"], set_=told, where=newer))
