"""Payers: each person's own means of payment, and what their bank will say to charges they are not asked about."""

import secrets
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import router as new_router
from kit.db import SessionDep
from kit.shapes import Out, StrictIn
from services.billing.sandbox.models import SandboxPayer, SandboxSession

router = new_router(prefix="/v1/sandbox/payers/{member_id}", tags=["sandbox"])

Answer = Literal["succeed", "fail", "require_action"]
MAX_ANSWERS = 1000


class PayerIn(StrictIn):
    """What the bank will say to the next charges of a kept card, in this order; after them every one succeeds.

    `fail` declines the card, `require_action` asks for the payer's confirmation. Payments at the cashier are not meant.
    """

    next_charges: Annotated[list[Answer], Field(max_length=MAX_ANSWERS)]


class PayerOut(Out):
    """The answers still to come."""

    member_id: UUID
    next_charges: list[str]


@router.put("")
async def put_payer(member_id: UUID, wanted: PayerIn, session: SessionDep) -> PayerOut:
    """Choose what the member's bank will say to the next renewals, in place of what was chosen before."""
    payer = await payer_of(session, str(member_id), lock=True)
    payer.next_charges = list(wanted.next_charges)
    await session.flush()
    return PayerOut(member_id=member_id, next_charges=payer.next_charges)


@router.get("")
async def read_payer(member_id: UUID, session: SessionDep) -> PayerOut:
    """What the member's bank will say to the next renewals; nothing chosen means that they succeed."""
    payer = await session.get(SandboxPayer, str(member_id))
    return PayerOut(member_id=member_id, next_charges=payer.next_charges if payer else [])


async def payer_of(session: AsyncSession, key: str, *, lock: bool = False) -> SandboxPayer:
    """The payer with this id, made at their first payment."""
    added = insert(SandboxPayer).values(id=key, fingerprint=secrets.token_hex(8), next_charges=[])
    await session.execute(added.on_conflict_do_nothing())
    return await session.get_one(SandboxPayer, key, with_for_update=lock or None, populate_existing=lock)


def payer_id(visit: SandboxSession) -> str:
    """Whose means of payment it is; who names no member is a stranger each time."""
    return visit.labels.get("member_id") or visit.customer_id or visit.id


async def next_answer(session: AsyncSession, keys: list[str]) -> str:
    """Use up the bank's next answer to the first of these payers who has one, in the caller's transaction."""
    row: Any = SandboxPayer
    known = await session.scalars(
        select(row)
        .where(col(SandboxPayer.id).in_(keys))
        .order_by(row.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    payers = {payer.id: payer for payer in known}
    for key in keys:
        if key in payers and payers[key].next_charges:
            answer, *payers[key].next_charges = payers[key].next_charges
            await session.flush()
            return str(answer)
    return "succeed"
