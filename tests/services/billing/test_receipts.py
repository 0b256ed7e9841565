"""Receipts: only of what was paid, only for the buyer, safe to open."""

import io
import subprocess
import sys

from pypdf import PdfReader

from contracts.members import MemberErased
from kit.ids import new_id
from tests.onebox.conftest import ROOT
from tests.services.billing.till import Till


async def test_a_receipt_shows_what_was_paid_and_what_went_back(till: Till) -> None:
    member = new_id()
    name = '<img src=x onerror="1">'
    await till.client.patch("/v1/admin/plans/black-card-1m", json={"name": name}, headers=till.api.admin("plans:write"))
    order = await till.buy(member, coupon_token=till.coupon(member))
    await till.refund(member, order["id"], amount=190)
    page = await till.client.get(f"/v1/orders/{order['id']}/receipt", headers=till.api.member(member))
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for text in (order["number"], "¥19.90", "-¥5.00", "¥14.90", "-¥1.90", "&lt;img src=x"):
        assert text in page.text
    assert "<img" not in page.text
    assert "http" not in page.text


async def test_the_same_receipt_comes_as_a_pdf_in_chinese(till: Till) -> None:
    member = new_id()
    name = '<b>黑卡</b> & 月卡"🍞" ' + "超长的商品名称" * 5
    await till.client.patch("/v1/admin/plans/black-card-1m", json={"name": name}, headers=till.api.admin("plans:write"))
    order = await till.buy(member, coupon_token=till.coupon(member))
    await till.refund(member, order["id"], amount=190)
    answer = await till.client.get(f"/v1/orders/{order['id']}/receipt.pdf", headers=till.api.member(member))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-disposition"] == f'inline; filename="receipt-{order["number"]}.pdf"'
    [page] = PdfReader(io.BytesIO(answer.content)).pages
    text = page.extract_text().replace("\n", "")
    for part in (
        "收据 Receipt",
        order["number"],
        "部分退款 Partially refunded",
        name,
        "银行卡 Card",
        "¥19.90",
        "-¥5.00",
        "¥14.90",
        "-¥1.90",
    ):
        assert part.replace(" ", "") in text.replace(" ", ""), part


async def test_there_is_no_receipt_for_what_is_not_paid_or_not_yours(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    for path in (f"/v1/orders/{order['id']}/receipt", f"/v1/orders/{order['id']}/receipt.pdf"):
        unpaid = await till.client.get(path, headers=till.api.member(member))
        assert (unpaid.status_code, unpaid.json()["code"]) == (409, "order_not_paid")
        assert (await till.client.get(path, headers=till.api.member())).status_code == 404
        assert (await till.client.get(path)).status_code == 401


async def test_an_erased_members_money_records_stay_without_their_traces(till: Till) -> None:
    member = new_id()
    order = await till.buy(member, success_url="https://h5.heika.test/me")
    assert await till.api.sql('SELECT address_prefix IS NULL, success_url IS NULL FROM "order"') == [(False, False)]
    await till.api.handle(MemberErased(member_id=member))
    assert await till.api.sql('SELECT address_prefix, success_url, number FROM "order"') == [
        (None, None, order["number"])
    ]
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}


def test_the_start_does_not_wait_for_the_library_that_draws_receipts() -> None:
    program = "import sys, services.billing.app; sys.exit(any(name.startswith('reportlab') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
