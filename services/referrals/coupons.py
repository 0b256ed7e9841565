"""Coupons: what a member holds, with the tokens that checkout takes; their states follow what billing tells."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Response
from sqlalchemy import ColumnElement, case, literal, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import CouponRedeemed, CouponReleased, CouponReserved
from contracts.coupon import sign
from contracts.referrals import CouponRevoked
from kit import clock
from kit.app import RuntimeDep, router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.events import emit
from kit.http import json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.referrals.issue import claims_of
from services.referrals.models import Coupon, Model

routes = router(prefix="/v1/me/coupons", tags=["coupons"])

COLUMNS = (
    "id",
    "campaign_id",
    "member_id",
    "title",
    "kind",
    "value",
    "min_amount",
    "plan_codes",
    "issued_at",
    "ends_at",
)

Status = Literal["issued", "reserved", "redeemed", "expired", "revoked"]


class CouponOut(Out):
    """A coupon of the caller; `value` is percent or fen, no `plan_codes` means every plan."""

    id: UUID
    token: str
    title: str
    kind: Literal["percent", "amount"]
    value: int
    min_amount: int
    plan_codes: list[str]
    status: Status
    issued_at: Instant
    ends_at: Instant


def status_at(now: datetime) -> ColumnElement[str]:
    """A coupon's status at an instant, in SQL: an unspent coupon expires by the clock, not by a job."""
    return case(
        (col(Coupon.state) == "redeemed", "redeemed"),
        (col(Coupon.revoked_at).is_not(None), "revoked"),
        (col(Coupon.state) == "reserved", "reserved"),
        (col(Coupon.ends_at) <= now, "expired"),
        else_=literal("issued"),
    )


def coupon_out(coupon: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """What its owner sees of a coupon: an Issued, or a row with a `status`."""
    return {
        "id": coupon.id,
        "token": sign(claims_of(coupon), keys),
        "title": coupon.title,
        "kind": coupon.kind,
        "value": coupon.value,
        "min_amount": coupon.min_amount,
        "plan_codes": list(coupon.plan_codes),
        "status": coupon.status,
        "issued_at": coupon.issued_at,
        "ends_at": coupon.ends_at,
    }


@routes.get("", response_model=Page[CouponOut])
async def list_own_coupons(
    caller: MemberDep,
    session: SessionDep,
    rt: RuntimeDep,
    page: PageDep,
    status: Annotated[Status | None, Query(description="only coupons in this state")] = None,
) -> Response:
    """The caller's coupons, newest first; `token` is what checkout takes."""
    current = status_at(clock.now())
    table = Model.metadata.tables["coupon"].c
    found = select(
        *(table[name] for name in COLUMNS),
        current.label("status"),
    ).where(table.member_id == caller.id)
    if status is not None:
        found = found.where(current == status)
    rows, next_cursor = await keyset(session, found, page, (table.issued_at.desc(), table.id.desc()))
    keys = rt.settings.coupon_keys
    items = [coupon_out(row, keys) for row in rows]
    return json_response({"items": items, "next_cursor": next_cursor}, headers={"Cache-Control": "private, no-store"})


async def _follow(session: AsyncSession, event: CouponReserved | CouponReleased | CouponRedeemed, state: str) -> None:
    # Billing tells in its own order, which (at, id) restores: an older event never undoes a newer one.
    newer = or_(
        col(Coupon.state_event_id).is_(None),
        tuple_(col(Coupon.state_at), col(Coupon.state_event_id)) < tuple_(event.at, event.id),
    )
    await session.execute(
        update(Coupon)
        .where(col(Coupon.id) == event.coupon_id, newer)
        .values(state=state, state_at=event.at, state_event_id=event.id)
    )


async def on_coupon_reserved(session: AsyncSession, event: CouponReserved) -> None:
    """An open order holds it."""
    await _follow(session, event, "reserved")


async def on_coupon_released(session: AsyncSession, event: CouponReleased) -> None:
    """It may be spent again, while it lasts."""
    await _follow(session, event, "issued")


async def on_coupon_redeemed(session: AsyncSession, event: CouponRedeemed) -> None:
    """It was spent."""
    await _follow(session, event, "redeemed")


async def revoke(session: AsyncSession, campaign_id: UUID, coupon_id: UUID) -> bool:
    """Take an unspent coupon back and tell billing; False when it was spent or taken back already."""
    revoked = await session.execute(
        update(Coupon)
        .where(
            col(Coupon.id) == coupon_id,
            col(Coupon.campaign_id) == campaign_id,
            col(Coupon.revoked_at).is_(None),
            col(Coupon.state) != "redeemed",
        )
        .values(revoked_at=clock.now())
        .returning(col(Coupon.member_id))
    )
    member_id = revoked.scalar_one_or_none()
    if member_id is not None:
        await emit(session, CouponRevoked(coupon_id=coupon_id, member_id=member_id))
    return member_id is not None
