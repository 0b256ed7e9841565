"""Invoice requests as the accountants work them off: issued, rejected, or taken back by a red-letter invoice."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Depends
from pydantic import Field, model_validator
from sqlalchemy import Row, Select, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.notices import BillingNoticeWanted
from kit import audit, clock
from kit.app import router as new_router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.events import emit
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Matching, StrictIn
from kit.wording import Wrong
from services.billing import payments
from services.billing.invoice_models import InvoiceRequest, InvoiceState
from services.billing.invoices import InvoiceRequestOut
from services.billing.models import Order
from services.billing.tax_ids import is_doubtful

router = new_router(prefix="/v1/admin/invoice-requests", tags=["admin invoices"])

Reader = Annotated[Caller, admin_with("orders:read")]
Accountant = Annotated[Caller, admin_with("orders:write")]
Number = Annotated[CleanStr, Matching(r"^[0-9A-Za-z-]{1,40}$")]
Reason = Annotated[CleanStr, Field(min_length=1, max_length=300)]


class InvoiceRequestNotFound(NotFound):
    """There is no such invoice request; see the list of them."""

    zh = "没有这条开票申请，请查看申请列表。"


class InvoiceAlreadyResolved(Conflict):
    """This request was issued or rejected before; read it again."""

    zh = "这条开票申请已处理，请刷新查看。"


class InvoiceNumberTaken(Conflict):
    """Another invoice has this number; check what you typed."""

    zh = "该发票号码已被使用，请核对。"


class RedLetterNotNeeded(Conflict):
    """No money went back after this invoice was issued, so there is nothing to take back."""

    zh = "这张发票开具后没有退款，无需开具红字发票。"


class AdminInvoiceRequestOut(InvoiceRequestOut):
    """An invoice request with what it is for; a doubtful taxpayer number looks mistyped: ask before issuing."""

    order_number: str
    member_id: UUID
    item: str
    red_letter_number: str | None
    resolved_by: UUID | None
    tax_id_doubtful: bool


class ResolutionIn(StrictIn):
    """What became of a request: issued under a number, or rejected for a reason that the member sees."""

    decision: Literal["issue", "reject"]
    number: Number | None = None
    reason: Reason | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.decision == "issue" and (self.number is None or self.reason is not None):
            raise Wrong("issue needs the invoice's number, and no reason", "开具时须填写发票号码，且不填原因")
        if self.decision == "reject" and (self.reason is None or self.number is not None):
            raise Wrong("reject needs a reason, and no number", "驳回时须填写原因，且不填发票号码")
        return self


class RedLetterIn(StrictIn):
    """The red-letter invoice that takes an issued one back."""

    number: Number


def _requests() -> Select[Any]:
    return select(
        *(column for column in InvoiceRequest.__table__.columns),  # type: ignore[attr-defined]
        col(Order.number).label("order_number"),
        col(Order.member_id),
        col(Order.title).label("item"),
    ).join(Order, col(Order.id) == col(InvoiceRequest.order_id))


def _shown(row: Row[Any]) -> AdminInvoiceRequestOut:
    doubtful = row.tax_id is not None and is_doubtful(row.tax_id)
    return AdminInvoiceRequestOut.model_validate({**row._mapping, "tax_id_doubtful": doubtful})  # noqa: SLF001 - as plans do


@router.get("")
async def list_all_invoice_requests(
    _: Reader,
    session: SessionDep,
    page: PageDep,
    status: InvoiceState | None = None,
    needs_red_letter: bool | None = None,  # noqa: FBT001 - a filter, by name
) -> Page[AdminInvoiceRequestOut]:
    """All invoice requests, newest first."""
    query = _requests()
    if status is not None:
        query = query.where(col(InvoiceRequest.state) == status)
    if needs_red_letter is not None:
        query = query.where(col(InvoiceRequest.needs_red_letter) == needs_red_letter)
    order = (col(InvoiceRequest.created_at).desc(), col(InvoiceRequest.id).desc())
    found, next_cursor = await keyset(session, query, page, order)
    return Page(items=[_shown(row) for row in found], next_cursor=next_cursor)


@router.get("/{request_id}", responses=problems(InvoiceRequestNotFound))
async def read_invoice_request(request_id: UUID, _: Reader, session: SessionDep) -> AdminInvoiceRequestOut:
    """One invoice request."""
    return await _read(session, request_id)


async def _read(session: AsyncSession, request_id: UUID) -> AdminInvoiceRequestOut:
    row = (await session.execute(_requests().where(col(InvoiceRequest.id) == request_id))).one_or_none()
    if row is None:
        raise InvoiceRequestNotFound
    return _shown(row)


async def held_request(request_id: UUID, session: SessionDep) -> InvoiceRequest:
    """The request as it is now, its order locked: refunds change requests, too."""
    request = await session.get(InvoiceRequest, request_id)
    if request is None:
        raise InvoiceRequestNotFound
    await payments.lock_order(session, request.order_id)
    await session.refresh(request)
    return request


HeldRequest = Annotated[InvoiceRequest, Depends(held_request, scope="function")]


@router.post(
    "/{request_id}/resolution",
    responses=problems(InvoiceRequestNotFound, InvoiceAlreadyResolved, InvoiceNumberTaken),
)
async def resolve_invoice_request(
    caller: Accountant, request: HeldRequest, body: ResolutionIn, session: SessionDep
) -> AdminInvoiceRequestOut:
    """Say that the invoice was issued, over the request's amount, or why it was not; the member is told."""
    if request.state != "requested":
        raise InvoiceAlreadyResolved
    values: dict[str, Any] = {"state": "issued" if body.decision == "issue" else "rejected", "number": body.number}
    values |= {"reason": body.reason, "resolved_at": clock.now(), "resolved_by": caller.id}
    await _write(session, request, values, "invoice.resolved")
    shown = await _read(session, request.id)
    await emit(session, _notice(shown))
    return shown


@router.post(
    "/{request_id}/red-letter",
    responses=problems(InvoiceRequestNotFound, RedLetterNotNeeded, InvoiceNumberTaken),
)
async def take_invoice_back(
    _: Accountant, request: HeldRequest, body: RedLetterIn, session: SessionDep
) -> AdminInvoiceRequestOut:
    """Say that a red-letter invoice took this one back; the member may then ask for one over what is left."""
    if not request.needs_red_letter:
        raise RedLetterNotNeeded
    await _write(session, request, {"needs_red_letter": False, "red_letter_number": body.number}, "invoice.taken_back")
    return await _read(session, request.id)


async def _write(session: AsyncSession, request: InvoiceRequest, values: Mapping[str, Any], action: str) -> None:
    before = {name: getattr(request, name) for name in values}
    change = update(InvoiceRequest).where(col(InvoiceRequest.id) == request.id).values(**values)
    try:
        async with session.begin_nested():
            await session.execute(change.execution_options(synchronize_session=False))
    except IntegrityError as failure:
        raise InvoiceNumberTaken from failure
    await audit.record(session, action, request.id, before=before, after=values)


def _notice(request: AdminInvoiceRequestOut) -> BillingNoticeWanted:
    if request.state == "issued":
        kind, zh, en = (
            "invoice_issued",
            f"订单 {request.order_number} 的发票已开具，将发送到你填写的邮箱。",
            f"The invoice of order {request.order_number} was issued and goes to the e-mail address you gave.",
        )
    else:
        kind, zh, en = (
            "invoice_rejected",
            f"订单 {request.order_number} 的开票申请未通过：{request.reason}",
            f"The invoice of order {request.order_number} was refused: {request.reason}",
        )
    return BillingNoticeWanted(
        member_id=request.member_id,
        kind=kind,
        reference=f"invoice {request.id}",
        body_zh=zh,
        body_en=en,
        wanted_at=clock.now(),
    )
