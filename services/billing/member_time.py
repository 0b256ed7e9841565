"""Membership time as members tells it: kept for quotes, so that a price page can say until when one would be in."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, exists, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.calendar import Piece, Span, pack
from contracts.members import MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from services.billing.code_models import CodeBatch, RedeemCode
from services.billing.models import MemberTime, Order, Refund

ON_ITS_WAY = timedelta(minutes=10)
"""How long the news of a payment may take to members and back."""
GRACE = timedelta(days=7)
"""How long after its end a membership that is being renewed lasts, and a renewal begins at that end."""


async def told_segments(session: AsyncSession, member_id: UUID) -> list[SegmentPicture]:
    """The member's segments as last told, in the order of time."""
    held = await session.get(MemberTime, member_id, populate_existing=True)
    segments = [SegmentPicture.model_validate(segment) for segment in held.segments] if held else []
    return sorted(segments, key=lambda segment: (segment.starts_at, segment.added_at))


async def segments_of(session: AsyncSession, member_id: UUID, *, awaited: UUID | None = None) -> list[SegmentPicture]:
    """The member's segments, with those of orders just paid and codes just redeemed that members has not told of yet.

    The order `awaited` counts however long ago it was paid.
    """
    segments = await told_segments(session, member_id)
    told = {segment.source_id for segment in segments}
    since = clock.now() - ON_ITS_WAY
    on_their_way = [
        *await session.execute(_paid(member_id, since, awaited)),
        *await session.execute(_redeemed(member_id, since)),
    ]
    for row in sorted(on_their_way, key=lambda row: row.added_at):
        if row.source_id not in told:
            span = span_of_purchase(segments, row.months, row.added_at)
            segments.append(
                SegmentPicture(
                    id=row.id,
                    source=row.source,
                    source_id=row.source_id,
                    plan_code=row.plan_code,
                    months=row.months,
                    days=0,
                    starts_at=span.starts_at,
                    ends_at=span.ends_at,
                    benefits=tuple(row.benefits),
                    added_at=row.added_at,
                )
            )
    return segments


async def was_given_back(session: AsyncSession, order_id: UUID) -> bool:
    """Whether an order's money went back, all of it or what its unused days were worth, and its time with it."""
    given_back = col(Order.status).in_(["partially_refunded", "refunded"])
    asked = select(col(Order.id)).where(col(Order.id) == order_id, given_back, _is_taken())
    return await session.scalar(asked) is not None


def _is_taken() -> ColumnElement[bool]:
    return exists().where(
        col(Refund.order_id) == col(Order.id), col(Refund.status) == "succeeded", col(Refund.removes_time)
    )


def _keeps_time() -> ColumnElement[bool]:
    """Whether an order's time is still there: a part of its money may have gone back, or all of it by an admin's kindness."""
    return col(Order.status).in_(["paid", "partially_refunded"]) | ((col(Order.status) == "refunded") & ~_is_taken())


def _paid(member_id: UUID, since: datetime, awaited: UUID | None) -> Select[*tuple[Any, ...]]:
    return select(
        col(Order.id),
        literal("order").label("source"),
        col(Order.id).label("source_id"),
        col(Order.plan_code),
        col(Order.months),
        col(Order.benefits),
        # A renewal paid in its grace begins at the old end.
        case(
            (col(Order.paid_at) < col(Order.renews_from) + GRACE, col(Order.renews_from)), else_=col(Order.paid_at)
        ).label("added_at"),
    ).where(
        col(Order.member_id) == member_id,
        col(Order.kind) == "membership",
        _keeps_time(),
        (col(Order.paid_at) > since) | (col(Order.id) == awaited),
    )


def _redeemed(member_id: UUID, since: datetime) -> Select[*tuple[Any, ...]]:
    return (
        select(
            col(RedeemCode.segment_id).label("id"),
            case((col(RedeemCode.order_id).is_(None), "redeem_code"), else_="gift").label("source"),
            func.coalesce(col(RedeemCode.order_id), col(RedeemCode.id)).label("source_id"),
            func.coalesce(col(Order.plan_code), col(CodeBatch.plan_code)).label("plan_code"),
            func.coalesce(col(Order.months), col(CodeBatch.months)).label("months"),
            func.coalesce(col(Order.benefits), col(CodeBatch.benefits)).label("benefits"),
            col(RedeemCode.redeemed_at).label("added_at"),
        )
        .outerjoin(Order, col(RedeemCode.order_id) == col(Order.id))
        .outerjoin(CodeBatch, col(RedeemCode.batch_id) == col(CodeBatch.id))
        .where(
            col(RedeemCode.member_id) == member_id,
            col(RedeemCode.redeemed_at) > since,
            col(RedeemCode.order_id).is_(None) | _keeps_time(),
        )
    )


def span_of_purchase(segments: Sequence[SegmentPicture], months: int, now: datetime) -> Span:
    """Where a purchase of so many months would lie if it were paid now."""
    purchase = Piece(id=new_id(), added_at=now, months=months)
    span = pack([*_line(segments, now), purchase], clock.ZONE)[purchase.id]
    if span is None:
        raise AssertionError("a live piece has a span")
    return span


def span_without(segments: Sequence[SegmentPicture], source_id: UUID, now: datetime) -> Span | None:
    """All the time that is left if what this source gave were taken out now; None when nothing is."""
    taken = {segment.id for segment in segments if segment.source_id == source_id}
    pieces = [replace(piece, revoked_at=now) if piece.id in taken else piece for piece in _line(segments, now)]
    spans = pack(pieces, clock.ZONE).values()
    left = [span for span in spans if span is not None and span.ends_at > now]
    return Span(min(span.starts_at for span in left), max(span.ends_at for span in left)) if left else None


def _line(segments: Sequence[SegmentPicture], now: datetime) -> list[Piece]:
    """Pieces that pack into the told spans, so that what comes next can be packed behind them.

    A run of months has one anchor, so all of the run must be there. What a refund once cut short does not pack into its
    span again; it and what was before it are left out, as it leaves no anchor either. Where nothing packs, because what
    is left was made longer by a dispute that was won, the rest of it is an extra.
    """
    for lengthen in (False, True):
        for first in range(len(segments)):
            queue = segments[first:]
            pieces = [
                # Added in their order and before now, however far in the future the last of them starts.
                Piece(
                    id=segment.id,
                    added_at=min(segment.starts_at, now - timedelta(microseconds=len(queue) - place)),
                    months=segment.months,
                    days=segment.days,
                )
                for place, segment in enumerate(queue)
            ]
            if _packs(pieces, queue, lengthen=lengthen):
                return pieces
    return []


def _packs(pieces: list[Piece], told: Sequence[SegmentPicture], *, lengthen: bool) -> bool:
    """Whether these pieces pack into the told spans; `lengthen` gives those that end too early the rest, in place."""
    while True:
        spans = pack(pieces, clock.ZONE)
        for place, segment in enumerate(told):
            span = spans[segment.id]
            if span == (segment.starts_at, segment.ends_at):
                continue
            if not lengthen or span is None or span.starts_at != segment.starts_at or span.ends_at > segment.ends_at:
                return False
            pieces[place] = replace(pieces[place], extra=pieces[place].extra + segment.ends_at - span.ends_at)
            break
        else:
            return True


async def on_membership_changed(session: AsyncSession, event: MembershipChanged) -> None:
    """Keep the newest picture, in whatever order they come."""
    row = upsert(MemberTime).values(
        member_id=event.member_id,
        version=event.version,
        segments=[segment.model_dump(mode="json") for segment in event.segments],
    )
    await session.execute(
        row.on_conflict_do_update(
            index_elements=["member_id"],
            set_={"version": row.excluded.version, "segments": row.excluded.segments},
            where=col(MemberTime.version) < row.excluded.version,
        )
    )
