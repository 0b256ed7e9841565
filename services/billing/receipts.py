"""Receipts: a page or a PDF that proves a purchase, in Chinese and English, to print or keep."""

import asyncio
from datetime import datetime
from html import escape
from typing import NamedTuple

from fastapi import Response
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, problems
from services.billing.amounts import money
from services.billing.models import Order, Refund
from services.billing.orders import OrderNotFound, OwnOrder

router = new_router(prefix="/v1/orders", tags=["orders"])

METHODS = {"card": "银行卡 Card", "alipay": "支付宝 Alipay", "wechat_pay": "微信支付 WeChat Pay"}
STATUSES = {
    "paid": "已支付 Paid",
    "partially_refunded": "部分退款 Partially refunded",
    "refunded": "已退款 Refunded",
    "disputed": "争议中 Disputed",
}
HEADERS = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
PAGE = """<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>收据 Receipt {number}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 32rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ width: 100%; border-collapse: collapse; }}
th, td {{ padding: .4rem 0; border-bottom: 1px solid #ddd; text-align: left; font-weight: normal; }}
td {{ text-align: right; }}
.total > * {{ font-weight: bold; }}
</style></head><body>
<h1>收据 Receipt</h1>
<table>
{rows}
</table>
</body></html>
"""


class OrderNotPaid(Conflict):
    """This order was not paid, so there is no receipt."""

    zh = "订单尚未支付，没有收据。"


class Line(NamedTuple):
    """One line of a receipt; the total stands out."""

    name: str
    value: str
    stands_out: bool = False


@router.get("/{order_id}/receipt", response_class=HTMLResponse, responses=problems(OrderNotFound, OrderNotPaid))
async def read_receipt(order: OwnOrder, session: SessionDep) -> HTMLResponse:
    """The receipt of a paid order, with what went back of it."""
    rows = "\n".join(
        f'<tr class="{"total" if line.stands_out else ""}"><th>{escape(line.name)}</th><td>{escape(line.value)}</td></tr>'
        for line in await _lines(session, order)
    )
    return HTMLResponse(PAGE.format(number=escape(order.number), rows=rows), headers=HEADERS)


@router.get(
    "/{order_id}/receipt.pdf",
    response_class=Response,
    responses=problems(OrderNotFound, OrderNotPaid)
    | {200: {"content": {"application/pdf": {}}, "description": "the receipt"}},
)
async def read_receipt_as_pdf(order: OwnOrder, session: SessionDep) -> Response:
    """The same receipt as a PDF."""
    lines = await _lines(session, order)
    # Drawn without a connection; and the library is loaded by whoever first asks for a receipt, not by every start.
    await session.commit()
    from services.billing.receipt_pdf import draw  # noqa: PLC0415 - as above

    content = await asyncio.to_thread(draw, order.number, lines)
    name = f'inline; filename="receipt-{order.number}.pdf"'
    headers = {"Cache-Control": "private, no-store", "Content-Disposition": name}
    return Response(content, media_type="application/pdf", headers=headers)


async def _lines(session: AsyncSession, order: Order) -> list[Line]:
    """What a receipt says; OrderNotPaid when there was nothing to prove."""
    if order.paid_at is None:
        raise OrderNotPaid
    refunds = await session.scalars(
        select(Refund)
        .where(col(Refund.order_id) == order.id, col(Refund.status) == "succeeded", col(Refund.cause) != "surplus")
        .order_by(col(Refund.settled_at))
    )
    return [
        Line("订单号 Order", order.number),
        Line("状态 Status", STATUSES.get(order.status, order.status)),
        Line("商品 Item", order.title),
        Line("支付时间 Paid", _moment(order.paid_at)),
        Line("支付方式 Method", METHODS[order.payment_method]),
        Line("原价 Price", money(order.subtotal, order.currency)),
        Line("优惠 Discount", f"-{money(order.discount, order.currency)}"),
        Line("实付 Total", money(order.total, order.currency), stands_out=True),
        *(
            Line(
                f"退款 Refund {_moment(refund.settled_at or refund.created_at)}",
                f"-{money(refund.amount, refund.currency)}",
            )
            for refund in refunds
        ),
    ]


def _moment(at: datetime) -> str:
    return f"{at.astimezone(clock.ZONE):%Y-%m-%d %H:%M:%S}"
