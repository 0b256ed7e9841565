"""Disputes: a payer's bank asks for the money back, and decides; on demand here, as banks do elsewhere."""

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from stripe.params import DisputeListParams, DisputeRetrieveParams

from kit import clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.shapes import Out, StrictIn
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.dispute_shapes import dispute_json
from services.billing.sandbox.events import tell
from services.billing.sandbox.models import SandboxCharge, SandboxDispute, SandboxIntent
from services.billing.sandbox.objects import find, page
from services.billing.sandbox.shapes import Json
from services.billing.sandbox.wire import new_key

router = new_router(prefix="/v1/sandbox/disputes", tags=["sandbox"])

FEE = 1500
"""What a dispute costs the house, whoever wins it, in minor units."""


class PaymentNotFound(NotFound):
    """Nothing was paid for this order here; pay it first."""

    zh = "这笔订单在沙盒渠道没有付款记录，请先支付。"


class NothingToDispute(Conflict):
    """All the money of this order went back already; there is nothing a bank could ask for."""

    zh = "这笔订单的款项已全部退回，没有可争议的金额。"


class AlreadyDisputed(Conflict):
    """This payment is disputed already; decide the dispute by the outcome won or lost."""

    zh = "这笔付款已有争议，请用 won 或 lost 给出结果。"


class DisputeDecided(Conflict):
    """The bank has decided this dispute already, and does not change its mind."""

    zh = "银行已对这笔争议作出裁定，不会再改变。"


class DisputeIn(StrictIn):
    """What a bank does: `opened` asks for the money, `won` gives it back to the house, `lost` keeps it.

    `won` and `lost` decide the open dispute; where there is none, they open it first.
    """

    order_id: UUID
    outcome: Literal["opened", "won", "lost"]


class DisputeOut(Out):
    """The dispute as the provider has it."""

    id: str
    order_id: UUID
    payment_intent: str
    amount: int
    currency: str
    status: str


@router.post("", responses=problems(PaymentNotFound, NothingToDispute, AlreadyDisputed, DisputeDecided))
async def make_dispute(wanted: DisputeIn, session: SessionDep) -> DisputeOut:
    """Let a bank dispute an order's payment, or decide the dispute; the signed webhooks are on their way."""
    intent, charge = await _paid(session, wanted.order_id)
    dispute = await session.scalar(_of_charge(charge.id))
    if dispute is None:
        dispute = await _open(session, intent, charge)
    elif wanted.outcome == "opened":
        raise DisputeDecided if dispute.closed_at else AlreadyDisputed
    if wanted.outcome != "opened":
        if dispute.closed_at:
            raise DisputeDecided
        await _close(session, intent, dispute, wanted.outcome)
    return DisputeOut(
        id=dispute.id,
        order_id=wanted.order_id,
        payment_intent=dispute.intent_id,
        amount=dispute.amount,
        currency=dispute.currency,
        status=dispute.status,
    )


async def _paid(session: AsyncSession, order_id: UUID) -> tuple[SandboxIntent, SandboxCharge]:
    """The order's first payment that succeeded, its charge locked: as refunds lock it."""
    row: Any = SandboxIntent
    named = row.labels["order_id"].astext == str(order_id)
    intent: SandboxIntent | None = await session.scalar(
        select(row).where(named, row.status == "succeeded").order_by(row.id).limit(1)
    )
    if intent is None:
        raise PaymentNotFound
    key = intent.latest_charge_id
    return intent, await session.get_one(SandboxCharge, key, with_for_update=True, populate_existing=True)


def _of_charge(charge_id: str) -> Any:
    row: Any = SandboxDispute
    return select(row).where(row.charge_id == charge_id).with_for_update()


async def open_or_lost(session: AsyncSession, charge_id: str) -> bool:
    """Whether a charge's money is with a bank that disputes it."""
    dispute = await session.scalar(_of_charge(charge_id))
    return dispute is not None and dispute.status != "won"


async def _open(session: AsyncSession, intent: SandboxIntent, charge: SandboxCharge) -> SandboxDispute:
    amount = charge.amount - charge.amount_refunded
    if not amount:
        raise NothingToDispute
    dispute = SandboxDispute(
        id=new_key("du"),
        charge_id=charge.id,
        intent_id=intent.id,
        currency=charge.currency,
        amount=amount,
        fee=FEE,
        created_at=clock.now(),
    )
    session.add(dispute)
    charge.disputed = True
    await session.flush()
    for kind in ("created", "funds_withdrawn"):
        await _tell(session, kind, intent, dispute)
    return dispute


async def _close(session: AsyncSession, intent: SandboxIntent, dispute: SandboxDispute, status: str) -> None:
    dispute.status, dispute.closed_at = status, clock.now()
    await session.flush()
    await _tell(session, "closed", intent, dispute)
    if status == "won":
        await _tell(session, "funds_reinstated", intent, dispute)


async def _tell(session: AsyncSession, kind: str, intent: SandboxIntent, dispute: SandboxDispute) -> None:
    await tell(session, f"charge.dispute.{kind}", intent.session_id or intent.id, dispute_json(dispute))


async def retrieve(call: Call) -> Json:
    """One dispute."""
    return dispute_json(await find(call.session, "du", call.key))


async def list_all(call: Call) -> Json:
    """Disputes, newest first."""
    row: Any = SandboxDispute
    conditions = []
    if "charge" in call.values:
        conditions.append(row.charge_id == call.values["charge"])
    if "payment_intent" in call.values:
        conditions.append(row.intent_id == call.values["payment_intent"])
    return await page(call.session, "du", call.path, call.values, *conditions)


_PAGE = "limit starting_after ending_before created created.*"

OPERATIONS = [
    operation("GET", "/v1/disputes", DisputeListParams, f"{_PAGE} charge payment_intent", list_all),
    operation("GET", "/v1/disputes/{key}", DisputeRetrieveParams, "", retrieve),
]
