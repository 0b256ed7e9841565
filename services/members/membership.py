"""Membership: what a member's time ledger says at this instant."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

from fastapi import Request, Response
from sqlalchemy import Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime, json_response, router, runtime_of, shortcut
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.gather import GroupRead
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.members.ledger import GRACE
from services.members.ledger_models import MembershipVersion, Segment

api = router(prefix="/v1/me/membership", tags=["membership"])

Status = Literal["none", "active", "grace", "expired"]
State = Literal["queued", "active", "consumed", "revoked"]
Source = Literal["order", "gift", "redeem_code", "comp", "reward"]


class MembershipOut(Out):
    """A membership at this instant; `starts_at` and `ends_at` are the unbroken run that is active or was the last."""

    status: Status
    plan_code: str | None
    starts_at: Instant | None
    ends_at: Instant | None
    days_left: int
    benefits: list[str]
    auto_renew: bool


class SegmentOut(Out):
    """One piece of the time ledger; a revoked one shows the part that was used, if any."""

    id: UUID
    source: Source
    source_id: UUID
    plan_code: str
    months: int
    days: int
    starts_at: Instant | None
    ends_at: Instant | None
    state: State


class Stretch(NamedTuple):
    """What a segment says about access."""

    plan_code: str
    starts_at: datetime
    ends_at: datetime
    benefits: list[str]


class Renewing(NamedTuple):
    """What a member's subscription adds to their segments."""

    renewing: bool = False
    grace_until: datetime | None = None


def judge(stretches: Sequence[Stretch], now: datetime, renewal: Renewing) -> MembershipOut:
    """The membership at `now`; `stretches` in the order of their starts, none overlapping."""
    run: list[Stretch] = []
    for stretch in stretches:
        if run and stretch.starts_at > run[-1].ends_at:
            if stretch.starts_at > now:
                break
            run = []
        run.append(stretch)
    if not run or run[0].starts_at > now:
        return MembershipOut(
            status="none",
            plan_code=None,
            starts_at=None,
            ends_at=None,
            days_left=0,
            benefits=[],
            auto_renew=renewal.renewing,
        )
    current = next((stretch for stretch in run if stretch.starts_at <= now < stretch.ends_at), None)
    ends_at = run[-1].ends_at
    status: Status = "active" if current else "expired"
    if current is None and renewal.grace_until == ends_at + GRACE and now < renewal.grace_until:
        # What was paid for last stays open while its renewal is being charged.
        status, current = "grace", run[-1]
    return MembershipOut(
        status=status,
        plan_code=(current or run[-1]).plan_code,
        starts_at=run[0].starts_at,
        ends_at=ends_at,
        # A day that has begun counts: somebody with an hour left has one day left, not none.
        days_left=max(0, -((now - ends_at) // timedelta(days=1))),
        benefits=current.benefits if current else [],
        auto_renew=renewal.renewing,
    )


# Built once: building it anew costs a read more than running it does.
_STRETCHES = (
    select(
        col(Segment.member_id),
        col(Segment.plan_code),
        col(Segment.starts_at),
        col(Segment.ends_at),
        col(Segment.benefits),
        col(MembershipVersion.renewing),
        col(MembershipVersion.grace_until),
    )
    .outerjoin(MembershipVersion, col(MembershipVersion.member_id) == col(Segment.member_id))
    .where(
        col(Segment.member_id) == any_(bindparam("member_ids", type_=ARRAY(Uuid))), col(Segment.starts_at).is_not(None)
    )
    .order_by(col(Segment.starts_at))
)


def _judged(member_ids: Sequence[UUID], rows: Iterable[Any]) -> dict[UUID, MembershipOut]:
    """The membership of each of these members now, of the rows of `_STRETCHES`."""
    stretches: dict[UUID, list[Stretch]] = {member_id: [] for member_id in member_ids}
    renewals: dict[UUID, Renewing] = {}
    for member_id, *stretch, renewing, grace_until in rows:
        stretches[member_id].append(Stretch._make(stretch))
        renewals[member_id] = Renewing(bool(renewing), grace_until)
    now = clock.now()
    return {member_id: judge(found, now, renewals.get(member_id, Renewing())) for member_id, found in stretches.items()}


async def memberships(session: AsyncSession, *member_ids: UUID) -> dict[UUID, MembershipOut]:
    """The membership of each of these members now, as this transaction sees it."""
    connection = await session.connection()
    return _judged(member_ids, await connection.execute(_STRETCHES, {"member_ids": member_ids}))


@asynccontextmanager
async def reader(rt: Runtime) -> AsyncIterator[None]:
    """Read memberships together for the life of the process: the read that every app makes at every start."""
    reading = rt.state["memberships"] = GroupRead(rt.db, _STRETCHES, _judged, name="memberships")
    try:
        yield
    finally:
        await reading.close()


def segment_out(segment: Segment, now: datetime) -> SegmentOut:
    """A segment as the world sees it at `now`."""
    state: State = "active"
    if segment.out_since is not None:
        state = "revoked"
    elif segment.starts_at is None or segment.starts_at > now:
        state = "queued"
    elif segment.ends_at is not None and segment.ends_at <= now:
        state = "consumed"
    return SegmentOut.model_validate(segment.model_dump() | {"state": state})


@api.get("", response_model=MembershipOut)
@shortcut
async def read_membership(caller: MemberDep, request: Request) -> Response:
    """Whether the caller is a member now, until when, and with what benefits."""
    return json_response(await runtime_of(request).state["memberships"].find(caller.id))


@api.get("/segments")
async def read_segments(caller: MemberDep, session: SessionDep, page: PageDep) -> Page[SegmentOut]:
    """The caller's time ledger in the order it was built."""
    statement = select(Segment).where(col(Segment.member_id) == caller.id)
    order = (col(Segment.added_at).asc(), col(Segment.id).asc())
    segments, next_cursor = await keyset(session, statement, page, order)
    now = clock.now()
    return Page(items=[segment_out(segment, now) for segment in segments], next_cursor=next_cursor)
