"""The time ledger: segments under one lock a member, packed anew and told whenever the member's ledger changes."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.calendar import Piece, made_up, pack
from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.events import emit
from services.members.disputes import pauses_of
from services.members.ledger_models import EarlyRevocation, MembershipVersion, Renewal, Segment
from services.members.members import kept_of

GRACE = timedelta(days=7)
"""How long access stays after the last paid instant while a subscription is being charged."""


async def lock_ledger(session: AsyncSession, member_id: UUID) -> MembershipVersion:
    """This member's ledger, for this transaction alone; every change takes this lock before it looks."""
    await session.execute(insert(MembershipVersion).values(member_id=member_id, version=0).on_conflict_do_nothing())
    statement = select(MembershipVersion).where(col(MembershipVersion.member_id) == member_id).with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one()


async def open_ledger(session: AsyncSession, member_id: UUID) -> MembershipVersion:
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
    ledger = await open_ledger(session, segment.member_id)
    segment.member_id = ledger.member_id
    held = await find_segment(session, segment.source, segment.source_id)
    if held is not None:
        return held
    early = await session.get(EarlyRevocation, (segment.source, segment.source_id))
    if early is not None:
        segment.revoked_at = max(early.revoked_at, segment.added_at)
        await session.delete(early)
    segment.pauses = await pauses_of(session, segment.source, segment.source_id)
    session.add(segment)
    await repack(session, ledger)
    return segment


async def revoke_segment(
    session: AsyncSession, member_id: UUID, source: str, source_id: UUID, at: datetime
) -> Segment | None:
    """Take exactly this segment out from `at` on; one that is not there yet is remembered and arrives revoked."""
    ledger = await open_ledger(session, member_id)
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
    pieces = [_piece(segment) for segment in segments]
    spans = pack(pieces, clock.ZONE)
    for segment in segments:
        segment.starts_at, segment.ends_at = spans[segment.id] or (None, None)
    ledger.renewing = await is_renewing(session, ledger.member_id)
    ledger.grace_until = _grace_until(segments) if ledger.renewing else None
    ledger.version += 1
    await session.flush()
    await emit(session, _changed(ledger, segments, made_up(pieces, clock.ZONE)))


async def is_renewing(session: AsyncSession, member_id: UUID) -> bool:
    """Whether a subscription of this member will be charged again."""
    renewing = exists().where(col(Renewal.member_id) == member_id, col(Renewal.renewing))
    return bool((await session.execute(select(renewing))).scalar_one())


def _piece(segment: Segment) -> Piece:
    over = [
        (datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in segment.pauses if start and end
    ]
    return Piece(
        id=segment.id,
        added_at=segment.added_at,
        months=segment.months,
        days=segment.days,
        not_before=segment.not_before,
        revoked_at=segment.out_since,
        pauses=tuple(over),
    )


def _grace_until(segments: Sequence[Segment]) -> datetime | None:
    """The end of the access that a renewal under way leaves; none after time that was taken away."""
    held = [segment for segment in segments if segment.ends_at is not None]
    last = max(held, key=lambda segment: (segment.ends_at, segment.id), default=None)
    return last.ends_at + GRACE if last and last.ends_at and last.out_since is None else None


def _changed(
    ledger: MembershipVersion, segments: Sequence[Segment], idle: Mapping[UUID, timedelta]
) -> MembershipChanged:
    live = [segment for segment in segments if segment.out_since is None and segment.starts_at is not None]
    live.sort(key=lambda segment: (segment.starts_at, segment.id))
    pictures = [
        SegmentPicture.model_validate(segment, from_attributes=True).model_copy(
            update={"idle_s": int(idle.get(segment.id, timedelta(0)).total_seconds())}
        )
        for segment in live
    ]
    ends = [segment.ends_at for segment in segments if segment.ends_at is not None]
    return MembershipChanged(
        member_id=ledger.member_id,
        version=ledger.version,
        segments=tuple(pictures),
        access_until=ledger.grace_until or max(ends, default=None),
    )
