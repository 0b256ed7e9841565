"""Subscriptions as admins see them: who renews, whose charge fails, and what waits for a person."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import Field
from sqlalchemy import select
from sqlmodel import col

from kit import audit
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Out, StrictIn
from services.billing import renewal_notices, renewals, subscribing
from services.billing.subscribing import SubscriptionBusy
from services.billing.subscription_models import AttemptStatus, RenewalAttempt, Subscription, SubscriptionStatus
from services.billing.subscriptions import give_up

router = new_router(prefix="/v1/admin/subscriptions", tags=["admin subscriptions"])

Reader = Annotated[Caller, admin_with("orders:read")]
Writer = Annotated[Caller, admin_with("orders:write")]


class SubscriptionNotFound(NotFound):
    """There is no such subscription; see the list of subscriptions."""

    zh = "没有这份自动续费，请查看自动续费列表。"


class SubscriptionRow(Out):
    """A subscription; `held_reason` says why it waits for a person, `renews_at` is the end of the member's time."""

    id: UUID
    member_id: UUID
    status: SubscriptionStatus
    plan_code: str
    card_brand: str | None
    card_last4: str | None
    renews_at: Instant
    order_id: UUID
    renewal_order_id: UUID | None
    announced_for: Instant | None
    announced_at: Instant | None
    held_at: Instant | None
    held_reason: str | None
    created_at: Instant
    ended_at: Instant | None
    end_reason: str | None


class AttemptOut(Out):
    """One charge of the card."""

    id: UUID
    order_id: UUID
    number: int
    amount: int
    currency: str
    status: AttemptStatus
    provider_ref: str | None
    failure: str | None
    created_at: Instant
    settled_at: Instant | None


class SubscriptionDetail(SubscriptionRow):
    """With everything that was tried, newest first."""

    attempts: list[AttemptOut]


class CancelIn(StrictIn):
    """Why; `at_once` gives up a renewal that is past due or waits for a person, too, and the grace with it."""

    reason: Annotated[CleanStr, Field(min_length=1, max_length=500)]
    at_once: Annotated[bool, Field(strict=True)] = False


async def any_subscription(subscription_id: UUID, session: SessionDep) -> Subscription:
    """A subscription, whoever's."""
    found = await session.get(Subscription, subscription_id)
    if found is None:
        raise SubscriptionNotFound
    return found


AnySubscription = Annotated[Subscription, Depends(any_subscription, scope="function")]


@router.get("")
async def list_subscriptions(
    _: Reader,
    session: SessionDep,
    page: PageDep,
    status: SubscriptionStatus | None = None,
    member_id: UUID | None = None,
    *,
    held: bool = False,
) -> Page[SubscriptionRow]:
    """Subscriptions, newest first; `held=true` are those that wait for a person."""
    query = select(Subscription)
    if status:
        query = query.where(col(Subscription.status) == status)
    if member_id:
        query = query.where(col(Subscription.member_id) == member_id)
    if held:
        query = query.where(col(Subscription.held_at).is_not(None), col(Subscription.status) != "none")
    order = (col(Subscription.created_at).desc(), col(Subscription.id).desc())
    found, next_cursor = await keyset(session, query, page, order)
    return Page(items=[SubscriptionRow.model_validate(row) for row in found], next_cursor=next_cursor)


@router.get("/{subscription_id}", responses=problems(SubscriptionNotFound))
async def read_subscription_as_admin(
    _: Reader, subscription: AnySubscription, session: SessionDep
) -> SubscriptionDetail:
    """One subscription and every charge that was tried for it."""
    attempts = await session.scalars(
        select(RenewalAttempt)
        .where(col(RenewalAttempt.subscription_id) == subscription.id)
        .order_by(col(RenewalAttempt.created_at).desc(), col(RenewalAttempt.number).desc())
    )
    row = SubscriptionRow.model_validate(subscription).model_dump()
    return SubscriptionDetail(**row, attempts=[AttemptOut.model_validate(attempt) for attempt in attempts])


@router.post("/{subscription_id}/cancel", responses=problems(SubscriptionNotFound, SubscriptionBusy))
async def cancel_subscription_as_admin(
    _: Writer, subscription: AnySubscription, body: CancelIn, session: SessionDep
) -> SubscriptionRow:
    """End a member's auto-renewal with their paid time, or at once; asking again changes nothing. They are told."""
    locked = await subscribing.lock(session, subscription.id)
    before: dict[str, str | datetime | None] = {"status": locked.status, "ended_at": locked.ended_at}
    if locked.status != "none" and body.at_once:
        await renewals.stop(session, locked, "admin")
    elif locked.status in ("active", "past_due"):
        await give_up(session, locked, "admin")
        await renewal_notices.stopped(session, locked, "admin")
    after = {"status": locked.status, "ended_at": locked.ended_at, "reason": body.reason}
    await audit.record(session, "subscription.canceled", locked.id, before=before, after=after)
    await session.flush()
    return SubscriptionRow.model_validate(locked)
