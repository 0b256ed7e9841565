"""Points: given once for each reason and reference, doubled for holders of `double_points`."""

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import and_, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import PointsChanged
from kit.app import router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.events import emit
from kit.ids import new_id
from kit.page import PageDep, keyset
from kit.shapes import Instant, Out
from services.members.ledger import GRACE
from services.members.ledger_models import MembershipVersion, Segment
from services.members.models import PointEntry

api = router(prefix="/v1/me/points", tags=["members"])


class PointOut(Out):
    """Points given or taken."""

    delta: int
    reason: str
    at: Instant


class PointsOut(Out):
    """The balance and what made it, newest first."""

    balance: int
    items: list[PointOut]
    next_cursor: str | None


async def balances(session: AsyncSession, *member_ids: UUID) -> dict[UUID, int]:
    """How many points each of these members has."""
    statement = (
        select(col(PointEntry.member_id), func.sum(col(PointEntry.delta)))
        .where(col(PointEntry.member_id).in_(member_ids))
        .group_by(col(PointEntry.member_id))
    )
    found = {member_id: int(balance) for member_id, balance in await session.execute(statement)}
    return {member_id: found.get(member_id, 0) for member_id in member_ids}


async def factor(session: AsyncSession, member_id: UUID, at: datetime) -> int:
    """2 for whoever holds `double_points` at this instant, be it in grace, 1 for anybody else."""
    grace_until = col(MembershipVersion.grace_until)
    statement = select(
        select(col(Segment.id))
        .outerjoin(MembershipVersion, col(MembershipVersion.member_id) == col(Segment.member_id))
        .where(
            col(Segment.member_id) == member_id,
            col(Segment.starts_at) <= at,
            or_(col(Segment.ends_at) > at, and_(grace_until > at, grace_until == col(Segment.ends_at) + GRACE)),
            col(Segment.benefits).contains(["double_points"]),
        )
        .exists()
    )
    return 2 if (await session.execute(statement)).scalar_one() else 1


# What was ever given or taken only grows, by each entry, and when two of them become one in a merge.
_STANDING: Final = text("""
SELECT member_id, sum(abs(delta))::bigint AS version, sum(delta)::bigint AS balance FROM point_entry
WHERE member_id = ANY(CAST(:ids AS uuid[])) GROUP BY member_id ORDER BY member_id
""")


async def tell_points(session: AsyncSession, *member_ids: UUID) -> None:
    """Tell how many points these members have, those who ever had any."""
    found = await session.execute(_STANDING, {"ids": list(member_ids)})
    await emit(session, *(PointsChanged(**row._asdict()) for row in found))


async def give_points(
    session: AsyncSession, member_id: UUID, delta: int, reason: str, reference: str, at: datetime
) -> bool:
    """Give points, once for this reason and reference; whether this was the first time. The caller holds the member."""
    values = {
        "id": new_id(),
        "member_id": member_id,
        "delta": delta,
        "reason": reason,
        "reference": reference,
        "at": at,
    }
    statement = insert(PointEntry).values(values).on_conflict_do_nothing().returning(col(PointEntry.id))
    if (await session.execute(statement)).one_or_none() is None:
        return False
    await tell_points(session, member_id)
    return True


@api.get("")
async def read_points(caller: MemberDep, session: SessionDep, page: PageDep) -> PointsOut:
    """The caller's points and where they came from."""
    statement = select(PointEntry).where(col(PointEntry.member_id) == caller.id)
    order = (col(PointEntry.at).desc(), col(PointEntry.id).desc())
    entries, next_cursor = await keyset(session, statement, page, order)
    balance = (await balances(session, caller.id))[caller.id]
    return PointsOut(
        balance=balance, items=[PointOut.model_validate(entry) for entry in entries], next_cursor=next_cursor
    )
