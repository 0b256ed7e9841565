"""Receipts: a page that proves a purchase, in Chinese and English, to print or keep."""

from html import escape

from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlmodel import col

from kit import clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, problems
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
SYMBOLS = {"CNY": "¥", "HKD": "HK$", "USD": "US$"}
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


def money(amount: int, currency: str) -> str:
    """An amount as people read it, such as ¥19.90."""
    return f"{SYMBOLS.get(currency, currency + ' ')}{amount // 100:,}.{amount % 100:02}"


@router.get("/{order_id}/receipt", response_class=HTMLResponse, responses=problems(OrderNotFound, OrderNotPaid))
async def read_receipt(order: OwnOrder, session: SessionDep) -> HTMLResponse:
    """The receipt of a paid order, with what went back of it."""
    if order.paid_at is None:
        raise OrderNotPaid
    refunds = await session.scalars(
        select(Refund)
        .where(col(Refund.order_id) == order.id, col(Refund.status) == "succeeded", col(Refund.cause) != "surplus")
        .order_by(col(Refund.settled_at))
    )
    rows = [
        ("", "订单号 Order", order.number),
        ("", "状态 Status", STATUSES.get(order.status, order.status)),
        ("", "商品 Item", order.title),
        ("", "支付时间 Paid", f"{order.paid_at.astimezone(clock.ZONE):%Y-%m-%d %H:%M:%S}"),
        ("", "支付方式 Method", METHODS[order.payment_method]),
        ("", "原价 Price", money(order.subtotal, order.currency)),
        ("", "优惠 Discount", f"-{money(order.discount, order.currency)}"),
        ("total", "实付 Total", money(order.total, order.currency)),
    ]
    rows += [("", "退款 Refund", f"-{money(refund.amount, refund.currency)}") for refund in refunds]
    return HTMLResponse(_page(order, rows), headers=HEADERS)


def _page(order: Order, rows: list[tuple[str, str, str]]) -> str:
    lines = [f'<tr class="{kind}"><th>{escape(name)}</th><td>{escape(value)}</td></tr>' for kind, name, value in rows]
    return PAGE.format(number=escape(order.number), rows="\n".join(lines))
