"""Disputes as admins see them: whose money a bank wants back, how it stands, and what waits for a person."""

from typing import Annotated
from uuid import UUID

from fastapi import Query
from sqlalchemy import select
from sqlmodel import col

from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.billing.dispute_models import Dispute, DisputeStatus

router = new_router(prefix="/v1/admin/disputes", tags=["admin disputes"])

Reader = Annotated[Caller, admin_with("orders:read")]


class DisputeNotFound(NotFound):
    """There is no such dispute; look it up by its order."""

    zh = "没有这笔争议，请按订单查找。"


class AdminDisputeOut(Out):
    """A dispute; `note` says what a person must look at when it is parked, `fee` is what the provider asks for it."""

    id: UUID
    order_id: UUID | None
    provider_ref: str
    payment_ref: str | None
    status: DisputeStatus
    provider_status: str
    reason: str
    note: str
    amount: int
    currency: str
    fee: int
    fee_currency: str
    withdrawn: bool
    removes_time: bool
    created_at: Instant
    opened_at: Instant | None
    decided_at: Instant | None


@router.get("")
async def list_disputes(
    _: Reader,
    session: SessionDep,
    page: PageDep,
    status: Annotated[DisputeStatus | None, Query()] = None,
    order_id: Annotated[UUID | None, Query()] = None,
) -> Page[AdminDisputeOut]:
    """Disputes, the newest first; `parked` ones wait for a person."""
    query = select(Dispute)
    if status:
        query = query.where(col(Dispute.status) == status)
    if order_id:
        query = query.where(col(Dispute.order_id) == order_id)
    found, next_cursor = await keyset(session, query, page, (col(Dispute.created_at).desc(), col(Dispute.id).desc()))
    return Page(items=[AdminDisputeOut.model_validate(dispute) for dispute in found], next_cursor=next_cursor)


@router.get("/{dispute_id}", responses=problems(DisputeNotFound))
async def read_dispute(dispute_id: UUID, _: Reader, session: SessionDep) -> AdminDisputeOut:
    """One dispute."""
    dispute = await session.get(Dispute, dispute_id)
    if dispute is None:
        raise DisputeNotFound
    return AdminDisputeOut.model_validate(dispute)
