"""Spending: points that another service asks for are taken once, and only if there are enough."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.courses import PointsReturned, PointsWanted
from contracts.members import PointsAnswered
from kit.events import emit
from services.members.models import PointEntry
from services.members.points import balances, give_points
from services.members.profile import lock_kept

SPENT = "live_lesson"
RETURNED = "live_lesson_returned"


async def on_points_wanted(session: AsyncSession, event: PointsWanted) -> None:
    """Take the points if there are so many, and say so; who left, or is frozen, has none."""
    # Whoever takes a member's points holds their row: two requests never spend the same ones.
    member = await lock_kept(session, event.member_id)
    balance = (await balances(session, member.id))[member.id] if member is not None else 0
    taken = member is not None and not member.frozen and balance >= event.points
    if taken and member is not None:
        reference = str(event.request_id)
        await give_points(session, member.id, -event.points, SPENT, reference, event.wanted_at)
        balance -= event.points
    answer = PointsAnswered(request_id=event.request_id, member_id=event.member_id, taken=taken, balance=balance)
    await emit(session, answer)


async def on_points_returned(session: AsyncSession, event: PointsReturned) -> None:
    """Give back what was taken for this request, once, to whoever it was taken from."""
    reference = str(event.request_id)
    member = await lock_kept(session, event.member_id)
    if member is None:
        return
    spent = select(PointEntry).where(
        col(PointEntry.member_id) == member.id, col(PointEntry.reason) == SPENT, col(PointEntry.reference) == reference
    )
    entry = (await session.execute(spent)).scalar_one_or_none()
    if entry is not None:
        await give_points(session, member.id, -entry.delta, RETURNED, reference, event.returned_at)
