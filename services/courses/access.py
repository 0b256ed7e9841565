"""Access: who may watch a lesson at this instant, from what members and billing told."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import Range, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderDisputed, OrderPaid, OrderRefunded
from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.errors import Forbidden
from services.courses.models import Access, CourseAccess, Purchase


class MembershipRequired(Forbidden):
    """This lesson is for holders of the black card: buy or renew a membership to watch it."""

    zh = "这节课为黑卡会员专享，开通或续费会员后即可观看。"
    action = "buy_membership"


class PurchaseRequired(Forbidden):
    """This lesson belongs to a paid course: buy the course to watch it."""

    zh = "这节课属于付费课程，购买课程后即可观看。"
    action = "buy_course"


BOUGHT = (
    "EXISTS (SELECT FROM purchase WHERE purchase.member_id = {member_id} "
    "AND purchase.course_id = {course_id} AND paid_at IS NOT NULL AND refunded_at IS NULL AND NOT suspended)"
)
"""Whether a course is paid for by a member, as SQL."""
CALLER = "CAST(:member_id AS uuid)"
_HAS_BOUGHT = text("SELECT " + BOUGHT.format(member_id=CALLER, course_id=":course_id"))
BENEFITS = ("member_lessons", "live_priority", "live_replay", "qa_priority")
_MEMBER_UNTIL = text(
    "SELECT upper(span) FROM access, unnest(member_lessons) AS span WHERE member_id = :member_id AND span @> CAST(:now AS timestamptz)"
)


# Whoever deletes it meanwhile is waited for, or waits and sees that it is sold.
_HOLD = text("SELECT FROM course WHERE id = :course_id FOR UPDATE")
# Somebody stood at the cashier's when the course was deleted: it is theirs all the same, and for sale no more.
_BRING_BACK = text(
    "UPDATE course SET deleted_at = NULL, published = false, version = version + 1, updated_at = :now "
    "WHERE id = :course_id AND deleted_at IS NOT NULL AND EXISTS ("
    "SELECT FROM purchase WHERE course_id = :course_id AND paid_at IS NOT NULL AND refunded_at IS NULL)"
)


async def require_access(
    session: AsyncSession, access: CourseAccess, course_id: UUID, member_id: UUID | None
) -> datetime | None:
    """The instant until which this caller may watch the course, None for ever; else what they need is raised."""
    if access == "free":
        return None
    if access == "member":
        found = await session.execute(_MEMBER_UNTIL, {"member_id": member_id, "now": clock.now()})
        until: datetime | None = found.scalar_one_or_none()
        # A course that was sold by itself once stays open to whoever bought it then.
        if until is None and not await has_bought(session, member_id, course_id):
            raise MembershipRequired
        return until
    if not await has_bought(session, member_id, course_id):
        raise PurchaseRequired
    return None


async def has_bought(session: AsyncSession, member_id: UUID | None, course_id: UUID) -> bool:
    """Whether a paid course is open to this member."""
    if member_id is None:
        return False
    found = await session.execute(_HAS_BOUGHT, {"member_id": member_id, "course_id": course_id})
    return bool(found.scalar_one())


async def on_membership_changed(session: AsyncSession, event: MembershipChanged) -> None:
    """Keep when which benefit is open; an older picture than the one held is ignored."""
    picture = {"version": event.version} | {benefit: _open(event, benefit) for benefit in BENEFITS}
    statement = insert(Access).values({"member_id": event.member_id} | picture)
    newer = col(Access.version) < event.version
    await session.execute(statement.on_conflict_do_update(index_elements=["member_id"], set_=picture, where=newer))


def _open(event: MembershipChanged, benefit: str) -> list[Range[datetime]]:
    spans = [Range(item.starts_at, item.ends_at) for item in event.segments if benefit in item.benefits]
    last = max(event.segments, key=_end, default=None)
    # Within grace access goes on past the last segment, with that segment's benefits.
    if last and benefit in last.benefits and event.access_until and event.access_until > last.ends_at:
        spans.append(Range(last.ends_at, event.access_until))
    return spans


def _end(segment: SegmentPicture) -> datetime:
    return segment.ends_at


async def on_order_paid(session: AsyncSession, event: OrderPaid) -> None:
    """Keep who bought which course."""
    if event.course_id is None:
        return
    bought = {"member_id": event.member_id, "course_id": event.course_id, "paid_at": event.paid_at}
    await session.execute(_HOLD, {"course_id": event.course_id})
    statement = insert(Purchase).values(order_id=event.order_id, suspended=False, **bought)
    await session.execute(statement.on_conflict_do_update(index_elements=["order_id"], set_=bought))
    await session.execute(_BRING_BACK, {"course_id": event.course_id, "now": clock.now()})


async def on_order_refunded(session: AsyncSession, event: OrderRefunded) -> None:
    """Close a course whose price went back in full; heard before its payment, the refund waits for it."""
    if not (event.full and event.removes_time):
        return
    refund = {"refunded_at": event.refunded_at}
    statement = insert(Purchase).values(order_id=event.order_id, suspended=False, **refund)
    await session.execute(statement.on_conflict_do_update(index_elements=["order_id"], set_=refund))


async def on_order_disputed(session: AsyncSession, event: OrderDisputed) -> None:
    """Close a course while its payment is disputed and once it is lost; won, it opens again. The last word counts."""
    if event.kind != "course":
        return
    told = {"suspended": event.removes_time and event.outcome != "won", "dispute_told_at": event.at}
    statement = insert(Purchase).values(order_id=event.order_id, **told)
    held = col(Purchase.dispute_told_at)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["order_id"], set_=told, where=held.is_(None) | (held <= event.at)
        )
    )
