"""Claiming: members take a coupon of a campaign, by its place in the list or by its code, until none is left."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from kit import clock
from kit.app import Runtime, RuntimeDep, router, shortcut
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Problem, TooManyRequests, problems
from kit.group import GroupCommit
from kit.http import cacheable, json_response
from kit.idempotency import answers_in_group
from kit.limits import limit, limit_address
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, In, Instant, Out
from services.referrals.coupons import CouponOut, coupon_out
from services.referrals.issue import REFUSALS, AudienceMismatch, Issued, Want, issue
from services.referrals.models import Campaign, Model
from services.referrals.newcomers import waits_for

routes = router(prefix="/v1", tags=["coupons"])

WRITER: Final = "coupon claims"
Writer = GroupCommit[Want | Problem, Issued]
"""Writes what somebody wants, or that they were refused: a refusal that is known before is kept under its key, too."""
NO_CAMPAIGN: Final = UUID(int=0)
TRIES: Final = 5
TRY_SECONDS: Final = 5
"""Codes can be guessed, so a caller and an address each have this many tries in this many seconds."""


class CampaignOut(Out):
    """A campaign as members see it; `left` is how many coupons are still to be had."""

    id: UUID
    title: str
    kind: str
    value: int
    min_amount: int
    plan_codes: list[str]
    total: int
    left: int
    per_member: int
    starts_at: Instant
    ends_at: Instant | None
    valid_days: int | None
    audience: str


class CodeIn(In):
    """A campaign's code, as somebody typed it."""

    code: Annotated[CleanStr, Field(min_length=1, max_length=64)]


@routes.get("/coupon-campaigns", response_model=Page[CampaignOut])
async def list_campaigns(request: Request, session: SessionDep, page: PageDep) -> Response:
    """The campaigns that run now or start soon and need no code, the latest first."""
    table = Model.metadata.tables["campaign"].c
    found = select(
        *(table[name] for name in CampaignOut.model_fields if name != "left"),
        (table.total - table.claimed).label("left"),
    ).where(
        table.claimable,
        table.code.is_(None),
        table.deleted_at.is_(None),
        table.ends_at.is_(None) | (table.ends_at > clock.now()),
    )
    rows, next_cursor = await keyset(session, found, page, (table.starts_at.desc(), table.id.desc()))
    items = [dict(zip(row._fields, row, strict=True)) for row in rows]
    return cacheable(request, {"items": items, "next_cursor": next_cursor}, max_age_s=5)


@routes.post(
    "/coupon-campaigns/{campaign_id}/claims",
    status_code=201,
    response_model=CouponOut,
    responses=problems(*REFUSALS.values()),
)
@shortcut
@answers_in_group
async def claim_coupon(campaign_id: UUID, request: Request, caller: MemberDep, rt: RuntimeDep) -> Response:
    """Take a coupon of this campaign; exactly as many are given as it has."""
    return await take(campaign_id, caller.id, request, rt)


@routes.post(
    "/coupons/claim",
    status_code=201,
    response_model=CouponOut,
    responses=problems(*REFUSALS.values(), TooManyRequests),
)
@answers_in_group
async def claim_coupon_by_code(body: CodeIn, request: Request, caller: MemberDep, rt: RuntimeDep) -> Response:
    """Take a coupon by its campaign's code; capitals do not matter."""
    await limit(request, "coupon code", str(caller.id), times=TRIES, seconds=TRY_SECONDS)
    await limit_address(request, "coupon code", times=TRIES, seconds=TRY_SECONDS)
    wanted = select(col(Campaign.id)).where(col(Campaign.code) == body.code.upper(), col(Campaign.deleted_at).is_(None))
    async with rt.db.session() as session:
        await rt.db.connect(session)
        campaign_id = (await session.execute(wanted)).scalar_one_or_none()
    # A code that nobody knows is refused as a campaign that nobody knows, and the answer kept.
    return await take(campaign_id or NO_CAMPAIGN, caller.id, request, rt)


async def take(campaign_id: UUID, member_id: UUID, request: Request, rt: Runtime, *, source: str = "claim") -> Response:
    """Answer with a coupon of this campaign, for an endpoint that `answers_in_group`; only a claim needs an audience."""
    group: Writer = rt.state[WRITER]
    render = partial(_shown, rt)
    waits = waits_for(member_id)
    while True:
        wait = next(waits, None)
        want = Want(campaign_id=campaign_id, member_id=member_id, at=clock.now(), source=source)
        try:
            return (await group.answer(request, want, render, passing=() if wait is None else (AudienceMismatch,)))[1]
        except AudienceMismatch:
            # Their channel, or the label that they were just given, may not have been heard of here.
            if wait is None:
                raise
            await asyncio.sleep(wait)


async def refuse(refusal: Problem, request: Request, rt: Runtime) -> Response:
    """Raise this refusal, for an endpoint that `answers_in_group`; or answer what its key was answered meanwhile."""
    group: Writer = rt.state[WRITER]
    return (await group.answer(request, refusal, partial(_shown, rt)))[1]


def _shown(rt: Runtime, coupon: Issued) -> Response:
    return json_response(coupon_out(coupon, rt.settings.coupon_keys), 201, {"Cache-Control": "private, no-store"})


@asynccontextmanager
async def claims_writer(rt: Runtime) -> AsyncIterator[None]:
    """The one writer of this process' claims; a process that could not sign coupons does not start."""
    if not rt.settings.coupon_keys:
        raise RuntimeError("HEIKA_COUPON_KEY is not set: coupons could not be signed")
    rt.state[WRITER] = GroupCommit(rt.db, _write, name="coupon claims")
    yield


async def _write(connection: AsyncConnection, rows: Sequence[Want | Problem]) -> list[Issued | Problem]:
    wants = [row for row in rows if isinstance(row, Want)]
    issued = iter(await issue(connection, wants))
    return [row if isinstance(row, Problem) else next(issued) for row in rows]
