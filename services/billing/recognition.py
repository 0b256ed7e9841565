"""Recognition: what was paid is earned day by day as its time is used, exact in fen, and money that goes back undoes it."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MembershipChanged
from kit import clock
from kit.app import Runtime
from kit.due import Due
from kit.ids import new_id
from services.billing import books
from services.billing.models import LedgerEntry, LedgerLine, MemberTime, Order
from services.billing.periods import DAY, day_end, day_of
from services.billing.recognition_models import RevenueSchedule
from services.billing.settings import Settings

LOST_FOR: Final = timedelta(days=3)
"""How long time that nobody has any more may come back, before what is left of its price is earned all the same."""
ROWS: Final = 50_000
INSTANT: Final = timedelta(microseconds=1)

# A course is earned when it cannot be taken back any more, a gift that nobody redeems when nobody can, and what a lost
# dispute left of a price when it is lost. Asked of each order that has no time yet, which are few: not of all there are.
_PLAN: Final = text("""
UPDATE revenue_schedule s
SET starts_at = o.over, ends_at = o.over, from_at = o.over, from_earned = s.earned, from_discount = s.discount_earned,
    next_on = greatest((o.over AT TIME ZONE :zone)::date, s.through_on + 1)
FROM revenue_schedule u CROSS JOIN LATERAL (
    SELECT paid_at + CASE kind WHEN 'course' THEN CAST(:course AS interval) ELSE CAST(:gift AS interval) END AS over
    FROM "order" WHERE id = u.order_id AND kind IN ('course', 'gift') AND status <> 'disputed'
    UNION ALL
    SELECT max(decided_at) FROM dispute
    WHERE order_id = u.order_id AND status = 'lost' AND decided_at IS NOT NULL HAVING count(*) > 0
) o
WHERE u.order_id = s.order_id AND u.starts_at IS NULL AND (u.earned < u.amount OR u.discount_earned < u.discount)
    AND s.starts_at IS NULL AND (s.earned < s.amount OR s.discount_earned < s.discount)
""")
_FIRST: Final = text(
    "SELECT min(next_on) FROM revenue_schedule WHERE next_on <= :last"
    " AND (CAST(:order_id AS uuid) IS NULL OR order_id = :order_id)"
)
# Whole parts of exact products: nothing is rounded twice, and the last day takes what is left.
_RECOGNISE: Final = text("""
WITH due AS MATERIALIZED (
    SELECT order_id, currency, amount, discount, earned, discount_earned, from_at, ends_at, from_earned, from_discount,
           next_on, least(:last, greatest(next_on, ((ends_at - interval '1 microsecond') AT TIME ZONE :zone)::date)) AS last_on
    FROM revenue_schedule
    WHERE next_on <= :last AND order_id IN (
        SELECT order_id FROM revenue_schedule
        WHERE next_on <= :last AND (CAST(:order_id AS uuid) IS NULL OR order_id = :order_id)
        ORDER BY next_on, order_id LIMIT :chunk
    )
    ORDER BY order_id FOR UPDATE
), reached AS (
    SELECT d.*, e.day, e.entry_id,
           CASE WHEN e.until_at >= ends_at THEN amount ELSE from_earned + div((amount - from_earned) * part, whole) END
               AS target,
           CASE WHEN e.until_at >= ends_at THEN discount
                ELSE from_discount + div((discount - from_discount) * part, whole) END AS discount_target
    FROM due d
    JOIN unnest(CAST(:days AS date[]), CAST(:until AS timestamptz[]), CAST(:entries AS uuid[])) AS e (day, until_at, entry_id)
        ON e.day BETWEEN d.next_on AND d.last_on
    CROSS JOIN LATERAL (
        SELECT greatest(extract(epoch FROM e.until_at) - extract(epoch FROM d.from_at), 0) AS part,
               extract(epoch FROM d.ends_at) - extract(epoch FROM d.from_at) AS whole
    ) share
), steps AS (
    SELECT order_id, currency, day, entry_id,
           target - lag(target, 1, earned) OVER each AS amount,
           discount_target - lag(discount_target, 1, discount_earned) OVER each AS discount
    FROM reached WINDOW each AS (PARTITION BY order_id ORDER BY day)
), written AS (
    INSERT INTO revenue_recognition (order_id, day, amount, discount, entry_id)
    SELECT order_id, day, amount, discount, entry_id FROM steps WHERE amount + discount > 0
), moved AS (
    UPDATE revenue_schedule s
    SET earned = r.target, discount_earned = r.discount_target, through_on = r.day,
        next_on = CASE WHEN r.target < r.amount OR r.discount_target < r.discount THEN r.day + 1 END
    FROM reached r WHERE r.order_id = s.order_id AND r.day = r.last_on
)
SELECT day, entry_id, currency, sum(amount)::bigint AS amount, sum(discount)::bigint AS discount,
       count(DISTINCT order_id) AS orders
FROM steps GROUP BY day, entry_id, currency ORDER BY day, currency
""")
_COUNT: Final = text("SELECT count(*) FROM revenue_schedule WHERE next_on <= :last")


async def open_schedule(session: AsyncSession, order: Order) -> None:
    """Note, with its payment, that an order is to be earned; when is known as soon as members tells of its time."""
    row = {
        "order_id": order.id,
        "currency": order.currency,
        "amount": order.total,
        "discount": order.discount,
        "earned": 0,
        "discount_earned": 0,
        "from_earned": 0,
        "from_discount": 0,
    }
    await session.execute(upsert(RevenueSchedule).values(row).on_conflict_do_nothing())


async def give_back(
    session: AsyncSession, kind: str, source_id: UUID, order: Order, amount: int, *, credit: str, at: datetime
) -> bool:
    """Book money of an order that goes back: first what is not earned yet, then of what was earned; once, as `enter`.

    The caller holds the order's lock. When nothing is left to earn, the rest of the discount is not given either.
    """
    # Whole days that no job has come by for are earned first, so that lateness changes no figure.
    while await _recognise(session, clock.today() - DAY, order_id=order.id):
        pass
    schedule = await session.scalar(
        select(RevenueSchedule)
        .where(col(RevenueSchedule.order_id) == order.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    unearned = min(amount, schedule.amount - schedule.earned) if schedule else amount
    lines = {books.DEFERRED: unearned, books.REFUNDS: amount - unearned, credit: -amount}
    if not await books.enter(session, kind, source_id, lines, order.currency, order_id=order.id, at=at):
        return False
    if schedule:
        schedule.amount -= unearned
        if schedule.amount == schedule.earned:
            schedule.discount, schedule.next_on = schedule.discount_earned, None
        elif schedule.starts_at is not None and schedule.ends_at is not None:
            _lay(schedule, schedule.starts_at, schedule.ends_at, order.paid_at)
        await session.flush()
    return True


def _lay(schedule: RevenueSchedule, starts_at: datetime, ends_at: datetime, paid_at: datetime | None) -> None:
    """Spread what is left to earn over a span, from where recognition has come to; what was paused goes on from now.

    Nothing is earned before it was paid: a renewal paid within grace earns the days since the old end on its first day.
    """
    paused = schedule.starts_at is None and schedule.holder_id is not None
    reached = day_end(schedule.through_on) if schedule.through_on else starts_at
    schedule.starts_at, schedule.ends_at = starts_at, ends_at
    schedule.from_at = max(starts_at, reached, clock.now() if paused else reached)
    schedule.from_earned, schedule.from_discount = schedule.earned, schedule.discount_earned
    schedule.next_on = day_of(max(schedule.from_at, paid_at or schedule.from_at))


async def on_membership_changed(session: AsyncSession, event: MembershipChanged) -> None:
    """Earn orders in the time that members tells of; `member_time` has taken the picture in before, if it is the newest."""
    if (
        await session.scalar(select(col(MemberTime.version)).where(col(MemberTime.member_id) == event.member_id))
        != event.version
    ):
        return
    told = {segment.source_id: segment for segment in event.segments if segment.source in ("order", "gift")}
    found = await session.execute(
        select(RevenueSchedule, col(Order.status), col(Order.paid_at))
        .join(Order, col(Order.id) == col(RevenueSchedule.order_id))
        .where(col(RevenueSchedule.order_id).in_(list(told)) | (col(RevenueSchedule.holder_id) == event.member_id))
        .order_by(col(RevenueSchedule.order_id))
        .with_for_update(of=RevenueSchedule)
        .execution_options(populate_existing=True)
    )
    for schedule, status, paid_at in found.all():
        if schedule.earned == schedule.amount and schedule.discount_earned == schedule.discount:
            continue
        segment = told.get(schedule.order_id)
        if segment is not None:
            if (schedule.starts_at, schedule.ends_at) != (segment.starts_at, segment.ends_at):
                _lay(schedule, segment.starts_at, segment.ends_at, paid_at)
            schedule.holder_id = event.member_id
        elif status == "disputed":
            schedule.starts_at = schedule.ends_at = schedule.next_on = None
        else:
            _lose(schedule, paid_at)


def _lose(schedule: RevenueSchedule, paid_at: datetime | None) -> None:
    # A merge tells of the time under another id in a moment; a refund that took the time is booked before this is told.
    if schedule.starts_at != schedule.ends_at:
        over = clock.now() + LOST_FOR
        _lay(schedule, over, over, paid_at)


async def _recognise(session: AsyncSession, last: date, *, order_id: UUID | None = None) -> int:
    """Book what was earned on the days up to `last`, of one order or of as many as go in one statement; how many days."""
    first = (await session.execute(_FIRST, {"last": last, "order_id": order_id})).scalar_one()
    if first is None:
        return 0
    days = [first + DAY * step for step in range((last - first).days + 1)]
    values = {
        "last": last,
        "order_id": order_id,
        "zone": clock.ZONE.key,
        "chunk": max(1, ROWS // len(days)),
        "days": days,
        "until": [day_end(day) for day in days],
        "entries": [new_id() for _ in days],
    }
    rows = (await session.execute(_RECOGNISE, values)).all()
    await _enter(session, [row for row in rows if row.amount or row.discount], order_id)
    return len(rows)


async def _enter(session: AsyncSession, rows: Iterable[Row[Any]], order_id: UUID | None) -> None:
    """One entry a day for all the orders of a statement; its lines are in as many currencies as theirs are."""
    entries: dict[UUID, dict[str, Any]] = {}
    lines: defaultdict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        at = day_end(row.day) - INSTANT
        entries[row.entry_id] = {"id": row.entry_id, "kind": "recognition", "source_id": row.entry_id, "at": at}
        moved = {books.DEFERRED: row.amount, books.COUPONS: row.discount, books.REVENUE: -row.amount - row.discount}
        lines[row.entry_id] += books.sides(row.entry_id, moved, row.currency, len(lines[row.entry_id]))
    if entries:
        await session.execute(insert(LedgerEntry), [entry | {"order_id": order_id} for entry in entries.values()])
        await session.execute(insert(LedgerLine), list(chain.from_iterable(lines.values())))


async def recognise(rt: Runtime) -> int:
    """Book what the business days that are over have earned; how many orders had something to earn."""
    settings: Settings = rt.settings
    last = clock.today() - DAY
    done = 0
    while True:
        async with rt.db.session() as session, session.begin():
            if not done:
                windows = {
                    "course": timedelta(days=settings.refund_days),
                    "gift": timedelta(days=settings.gift_days),
                    "zone": clock.ZONE.key,
                }
                await session.execute(_PLAN, windows)
            due_now = (await session.execute(_COUNT, {"last": last})).scalar_one()
            if not due_now:
                return done
            await _recognise(session, last)
            left = (await session.execute(_COUNT, {"last": last})).scalar_one()
            done += due_now - left


due = Due("recognise revenue", recognise, every_s=20.0)
