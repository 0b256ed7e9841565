"""Invoice requests: a buyer asks for a 发票 over what they paid, and sees what became of it."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field
from sqlalchemy import case, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, problems
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Matching, Out, StrictIn
from services.billing import payments
from services.billing.invoice_models import InvoiceRequest, InvoiceState
from services.billing.models import Order
from services.billing.orders import OrderNotFound, OwnOrder
from services.billing.tax_ids import tidy_tax_id

router = new_router(prefix="/v1/orders/{order_id}/invoice-requests", tags=["orders"])

REFUNDED = "订单已全额退款，无需开票。 The order was refunded in full."

Title = Annotated[CleanStr, Field(min_length=1, max_length=100)]
TaxId = Annotated[CleanStr, Field(max_length=40), AfterValidator(tidy_tax_id)]
Email = Annotated[
    CleanStr,
    Field(max_length=254),
    Matching(r'^[^\s@,;<>"()\x00-\x1f\x7f]+@[^\s@,;<>"()]+\.[^\s@.,;<>"()]+$'),
]


class NothingToInvoice(Conflict):
    """There is no money of this order to invoice: it is unpaid, was free, went back, or is disputed."""

    zh = "这笔订单没有可开票的金额：未支付、无需支付、已退款或存在争议。"


class InvoiceAlreadyRequested(Conflict):
    """This order has an invoice, or a request for one; see its invoice requests."""

    zh = "这笔订单已申请或已开具发票，请查看开票申请。"


class InvoiceRequestIn(StrictIn):
    """Who the invoice is made out to, and where it is sent; a company gives its taxpayer number."""

    title: Title
    tax_id: TaxId | None = None
    email: Email


class InvoiceRequestOut(Out):
    """An invoice request; `number` is the issued invoice's, `reason` why it was rejected."""

    id: UUID
    order_id: UUID
    state: InvoiceState
    title: str
    tax_id: str | None
    email: str
    amount: int
    currency: str
    number: str | None
    reason: str | None
    needs_red_letter: bool
    created_at: Instant
    resolved_at: Instant | None


@router.post("", status_code=201, responses=problems(OrderNotFound, NothingToInvoice, InvoiceAlreadyRequested))
async def request_invoice(order: OwnOrder, body: InvoiceRequestIn, session: SessionDep) -> InvoiceRequestOut:
    """Ask for an invoice over what was paid and not given back; one at a time for each order."""
    # Refunds hold the order, too, so that the amount is right whoever comes first.
    locked = await payments.lock_order(session, order.id)
    if locked is None or locked.status not in ("paid", "partially_refunded") or locked.total == locked.refunded_amount:
        raise NothingToInvoice
    wanted = {
        "id": new_id(),
        "order_id": locked.id,
        "state": "requested",
        "amount": locked.total - locked.refunded_amount,
        "currency": locked.currency,
        "needs_red_letter": False,
        "created_at": clock.now(),
    }
    request = await session.scalar(
        upsert(InvoiceRequest).values(wanted | body.model_dump()).on_conflict_do_nothing().returning(InvoiceRequest)
    )
    if request is None:
        raise InvoiceAlreadyRequested
    return InvoiceRequestOut.model_validate(request)


@router.get("", responses=problems(OrderNotFound))
async def list_invoice_requests(order: OwnOrder, session: SessionDep, page: PageDep) -> Page[InvoiceRequestOut]:
    """The order's invoice requests, newest first."""
    mine = select(InvoiceRequest).where(col(InvoiceRequest.order_id) == order.id)
    newest = (col(InvoiceRequest.created_at).desc(), col(InvoiceRequest.id).desc())
    found, cursor = await keyset(session, mine, page, newest)
    return Page[InvoiceRequestOut](
        items=[InvoiceRequestOut.model_validate(request) for request in found], next_cursor=cursor
    )


async def follow_money_back(session: AsyncSession, order: Order, amount: int) -> None:
    """Let an order's invoice follow money that went back; the caller holds the order.

    A request asks for less, or for nothing and is over; what is issued needs a red-letter invoice.
    """
    left = col(InvoiceRequest.amount) - amount
    await session.execute(
        update(InvoiceRequest)
        .where(col(InvoiceRequest.order_id) == order.id, col(InvoiceRequest.state) == "requested")
        .values(
            amount=case((left > 0, left), else_=0),
            state=case((left > 0, "requested"), else_="rejected"),
            reason=case((left > 0, None), else_=REFUNDED),
            resolved_at=case((left > 0, None), else_=clock.now()),
        )
        .execution_options(synchronize_session=False)
    )
    await session.execute(
        update(InvoiceRequest)
        .where(
            col(InvoiceRequest.order_id) == order.id,
            col(InvoiceRequest.state) == "issued",
            col(InvoiceRequest.red_letter_number).is_(None),
        )
        .values(needs_red_letter=True)
        .execution_options(synchronize_session=False)
    )
