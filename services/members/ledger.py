"""The time ledger: orders, rewards and grants become segments, packed anew whenever a member's ledger changes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import OrderPaid, OrderRefunded
from contracts.calendar import Piece, pack
from contracts.members import MembershipChanged, SegmentPicture
from contracts.referrals import RewardGranted, RewardRevoked
from kit import clock
from kit.events import emit
from services.members.members import kept_of
from services.members.models import EarlyRevocation, MembershipVersion, PlanBenefits, Segment

BLACK_CARD = "black-card-1m"
BLACK_CARD_BENEFITS = (
    "member_lessons",
    "live_replay",
    "live_priority",
    "monthly_coupon",
    "double_points",
    "qa_priority",
)
BLACK_CARDS = (BLACK_CARD, "black-card-3m", "black-card-12m")


async def lock_ledger(session: AsyncSession, member_id: UUID) -> MembershipVersion:
    """This member's ledger, for this transaction alone; every change takes this lock before it looks."""
    await session.execute(insert(MembershipVersion).values(member_id=member_id, version=0).on_conflict_do_nothing())
    statement = select(MembershipVersion).where(col(MembershipVersion.member_id) == member_id).with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one()


async def _open_ledger(session: AsyncSession, member_id: UUID) -> MembershipVersion:
    """The ledger that this member's time is in, locked: their own, or that of whom they were merged into meanwhile."""
    ledger = await lock_ledger(session, member_id)
    kept_id = await kept_of(session, member_id)
    return ledger if kept_id == member_id else await lock_ledger(session, kept_id)


async def find_segment(session: AsyncSession, source: str, source_id: UUID) -> Segment | None:
    """The segment that came from this source, as the database has it now."""
    statement = select(Segment).where(col(Segment.source) == source, col(Segment.source_id) == source_id)
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()


async def add_segment(session: AsyncSession, segment: Segment) -> Segment:
    """Put a segment into its member's ledger; the same source again answers the one that is there and adds nothing."""
    ledger = await _open_ledger(session, segment.member_id)
    segment.member_id = ledger.member_id
    held = await find_segment(session, segment.source, segment.source_id)
    if held is not None:
        return held
    early = await session.get(EarlyRevocation, (segment.source, segment.source_id))
    if early is not None:
        segment.revoked_at = max(early.revoked_at, segment.added_at)
        await session.delete(early)
    session.add(segment)
    await repack(session, ledger)
    return segment


async def revoke_segment(
    session: AsyncSession, member_id: UUID, source: str, source_id: UUID, at: datetime
) -> Segment | None:
    """Take exactly this segment out from `at` on; one that is not there yet is remembered and arrives revoked."""
    ledger = await _open_ledger(session, member_id)
    segment = await find_segment(session, source, source_id)
    if segment is None:
        values = {"source": source, "source_id": source_id, "revoked_at": at}
        await session.execute(insert(EarlyRevocation).values(values).on_conflict_do_nothing())
        return None
    if segment.revoked_at is None:
        segment.revoked_at = max(at, segment.added_at)
        await repack(session, ledger)
    return segment


async def repack(session: AsyncSession, ledger: MembershipVersion) -> None:
    """Lay this member's segments out anew and tell the whole picture; the caller holds the ledger."""
    await session.flush()
    statement = select(Segment).where(col(Segment.member_id) == ledger.member_id)
    segments = (await session.execute(statement)).scalars().all()
    spans = pack((_piece(segment) for segment in segments), clock.ZONE)
    for segment in segments:
        segment.starts_at, segment.ends_at = spans[segment.id] or (None, None)
    ledger.version += 1
    await session.flush()
    await emit(session, _changed(ledger, segments))


def _piece(segment: Segment) -> Piece:
    return Piece(
        id=segment.id,
        added_at=segment.added_at,
        months=segment.months,
        days=segment.days,
        not_before=segment.not_before,
        revoked_at=segment.revoked_at,
    )


def _changed(ledger: MembershipVersion, segments: Sequence[Segment]) -> MembershipChanged:
    live = [segment for segment in segments if segment.revoked_at is None and segment.starts_at is not None]
    live.sort(key=lambda segment: (segment.starts_at, segment.id))
    pictures = [SegmentPicture.model_validate(segment, from_attributes=True) for segment in live]
    ends = [segment.ends_at for segment in segments if segment.ends_at is not None]
    return MembershipChanged(
        member_id=ledger.member_id,
        version=ledger.version,
        segments=tuple(pictures),
        access_until=max(ends, default=None),
    )


async def benefits_of(session: AsyncSession, plan_code: str) -> list[str] | None:
    """What a plan gives, as its latest paid order showed it; None for a plan nobody has told of."""
    seen = await session.get(PlanBenefits, plan_code)
    if seen is not None:
        return seen.benefits
    return list(BLACK_CARD_BENEFITS) if plan_code in BLACK_CARDS else None


async def on_order_paid(session: AsyncSession, event: OrderPaid) -> None:
    """A paid membership order is one segment from the moment of payment; a gift's time starts when it is redeemed."""
    if event.plan_code is None:
        return
    values: dict[str, Any] = {
        "plan_code": event.plan_code,
        "benefits": list(event.benefits),
        "seen_at": event.paid_at,
    }
    seen = insert(PlanBenefits).values(values)
    await session.execute(
        seen.on_conflict_do_update(
            index_elements=["plan_code"],
            set_={"benefits": seen.excluded.benefits, "seen_at": seen.excluded.seen_at},
            where=col(PlanBenefits.seen_at) < seen.excluded.seen_at,
        )
    )
    if event.kind != "membership":
        return
    await add_segment(
        session,
        Segment(
            member_id=event.member_id,
            source="order",
            source_id=event.order_id,
            plan_code=event.plan_code,
            months=event.months,
            benefits=list(event.benefits),
            added_at=event.paid_at,
        ),
    )


async def on_order_refunded(session: AsyncSession, event: OrderRefunded) -> None:
    """A full refund takes the order's segment with it, unless an admin left the time."""
    if event.full and event.removes_time:
        await revoke_segment(session, event.member_id, "order", event.order_id, event.refunded_at)


async def on_reward_granted(session: AsyncSession, event: RewardGranted) -> None:
    """Earned days are a segment with the benefits of the named plan."""
    plan_code = event.plan_code or BLACK_CARD
    await add_segment(
        session,
        Segment(
            member_id=event.member_id,
            source="reward",
            source_id=event.reward_id,
            plan_code=plan_code,
            days=event.days,
            benefits=await benefits_of(session, plan_code) or list(BLACK_CARD_BENEFITS),
            added_at=event.granted_at,
        ),
    )


async def on_reward_revoked(session: AsyncSession, event: RewardRevoked) -> None:
    """A reward whose cause was undone takes its segment with it; what was used of it stays used."""
    await revoke_segment(session, event.member_id, "reward", event.reward_id, event.revoked_at)
