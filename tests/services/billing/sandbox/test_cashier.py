"""The cashier page: what it shows in each state, and that nothing from outside can write on it."""

import re
import shutil
from datetime import timedelta
from typing import Any

import pytest

from services.billing.sandbox.cashier import money
from tests.services.billing.sandbox.conftest import WALLETS, Sandbox


async def page(sandbox: Sandbox, session_id: str) -> str:
    answer = await sandbox.api.client.get(f"/v1/sandbox/checkout/{session_id}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


async def test_the_page_shows_what_is_bought_in_both_languages(sandbox: Sandbox) -> None:
    opened = await sandbox.open()

    html = await page(sandbox, opened.id)

    for words in ("黑卡 3 个月", "¥44.00", "收银台 Checkout", "银行卡 Card", "待支付 Waiting for payment", "· Pay<", "取消 · Cancel",
                  "Pay later", "width=device-width"):  # fmt: skip
        assert words in html, words
    expires = re.search(r'<time datetime="([^"]+)">(\d{4}-\d\d-\d\d \d\d:\d\d) \(Asia/Shanghai\)', html)
    assert expires
    assert "{{" not in html
    # Nothing is loaded from anywhere: no address but the two that the page may return to.
    assert not re.search(r"""(src|href)=["'](?!data:,)""", html)


async def test_the_page_may_run_its_own_script_only(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    first, second = [await sandbox.api.client.get(f"/v1/sandbox/checkout/{opened.id}") for _ in range(2)]

    policy = first.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce
    assert f'<script nonce="{nonce[1]}">' in first.text
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert nonce[1] not in second.text
    assert first.headers["cache-control"] == "private, no-store"
    assert first.headers["referrer-policy"] == "no-referrer"


async def test_names_and_addresses_cannot_write_html(sandbox: Sandbox) -> None:
    evil = '"><script>alert(1)</script>{{nonce}}'
    items = [{"price_data": {"currency": "cny", "unit_amount": 100, "product_data": {"name": evil}}}]
    opened = await sandbox.open(
        line_items=items, success_url='https://heika.test/?a="><b>&c=1', cancel_url="https://x.y"
    )

    html = await page(sandbox, opened.id)

    assert "alert(1)" in html
    assert "<script>alert" not in html
    assert html.count("{{nonce}}") == 2
    assert 'data-success="https://heika.test/?a=&quot;&gt;&lt;b&gt;&amp;c=1" data-cancel="https://x.y"' in html


async def test_the_page_shows_each_state(sandbox: Sandbox) -> None:
    async def state(session_id: str) -> tuple[str, bool]:
        html = await page(sandbox, session_id)
        shown = re.search(r'data-status="(\w+)"', html)
        assert shown
        return shown[1], "<div hidden>" in html

    paid, late, lost, old = [(await sandbox.open()).id for _ in range(4)]
    assert await state(paid) == ("open", False)
    await sandbox.press(paid)
    await sandbox.press(late, settles_in="PT10M")
    await sandbox.press(lost, settles_in="PT10M")
    await sandbox.press(lost, "fail")
    assert await state(paid) == ("paid", True)
    assert await state(late) == ("processing", True)
    assert await state(lost) == ("failed", True)
    sandbox.api.clock.advance(timedelta(hours=24))
    assert await state(old) == ("expired", True)


async def test_wallets_are_named(sandbox: Sandbox) -> None:
    for method, name in zip(WALLETS, ("支付宝 Alipay", "微信支付 WeChat Pay"), strict=True):
        assert name in await page(sandbox, (await sandbox.open(**method)).id)


async def test_an_unknown_page_is_not_found(sandbox: Sandbox) -> None:
    for unknown in ("cs_test_" + "0" * 64, "x", "%00", "cs_test_" + "0" * 200):
        answer = await sandbox.api.client.get(f"/v1/sandbox/checkout/{unknown}")
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found"), unknown


def test_money_is_written_as_people_read_it() -> None:
    shown = [money(4400, "cny"), money(5, "cny"), money(123456789, "cny"), money(100, "thb")]
    assert shown == ["¥44.00", "¥0.05", "¥1,234,567.89", "THB 1.00"]


CHROMIUM = shutil.which("chromium")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
async def test_a_person_pays_with_the_button(sandbox: Sandbox) -> None:
    from playwright.async_api import async_playwright  # noqa: PLC0415

    from services.billing.sandbox.provider import serving  # noqa: PLC0415

    app: Any = sandbox.api.client._transport.app  # type: ignore[attr-defined]
    opened, declined = await sandbox.open(), await sandbox.open()
    async with serving(app) as address, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = await browser.new_page(viewport={"width": 375, "height": 667})
        broken: list[str] = []
        view.on("console", lambda line: broken.append(line.text) if line.type in ("error", "warning") else None)
        await view.goto(f"{address}/v1/sandbox/checkout/{opened.id}")
        wide = await view.evaluate("document.documentElement.scrollWidth")
        await view.get_by_role("button", name="支付 ¥44.00 · Pay").click()
        await view.wait_for_selector("[data-status=paid]")
        await view.goto(f"{address}/v1/sandbox/checkout/{declined.id}")
        await view.get_by_role("button", name="取消 · Cancel").click()
        await view.get_by_text("Not paid; you can try again.").wait_for()
        await browser.close()
    assert (wide, broken) == (375, [])
    assert (await sandbox.v1.checkout.sessions.retrieve_async(opened.id)).payment_status == "paid"
    assert (await sandbox.v1.checkout.sessions.retrieve_async(declined.id)).status == "open"
