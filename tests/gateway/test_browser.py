"""What people see in a browser: the documentation pages and the cashier, of a Heika started as a newcomer starts it."""

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

from kit.idempotency import EXAMPLE_KEY
from services.members.totp import STEP_S, password_of
from tests.onebox.conftest import Heika

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 900}
# Without them it looks up hosts of its maker at every start.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium; on Debian: apt-get install chromium fonts-noto-cjk"),
]

# ReDoc takes seconds to draw a document of this size on a busy machine.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


class Visit:
    """A page of Heika, with the hosts it asked and what went wrong in it."""

    def __init__(self, browser: Browser, heika: Heika, size: ViewportSize) -> None:
        self.page: Page = browser.new_page(viewport=size, base_url=heika.address)
        self.hosts: set[str] = set()
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc or "this page"))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def keep(self, name: str) -> None:
        """Write a screenshot into the folder that HEIKA_SCREENSHOTS names, if it names one."""
        if folder := os.environ.get("HEIKA_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def operation(self, method: str, path: str) -> Locator:
        """Swagger UI's block of an operation."""
        return self.page.locator(f'.opblock-{method}:has([data-path="{path}"])')


def execute(block: Locator) -> Any:
    """Press Execute and read what came back: its status and its JSON."""
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table tbody > tr.response")
    status = int(answer.locator(".response-col_status").inner_text().split()[0])
    return status, json.loads(answer.locator(".highlight-code code").inner_text())


def admin_password(heika: Heika) -> str:
    password: str = json.loads((heika.data / "secrets.json").read_text())["HEIKA_ADMIN_PASSWORD"]
    return password


def new_member(client: httpx.Client, phone: str) -> dict[str, str]:
    """The headers of somebody who has just registered."""
    client.post("/v1/auth/otp", json={"phone": phone})
    code = client.get("/v1/sandbox/otp", params={"phone": phone}).json()["code"]
    token = client.post("/v1/auth/otp/verify", json={"phone": phone, "code": code}).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def order(client: httpx.Client, member: dict[str, str], plan: str, **how: Any) -> dict[str, Any]:
    body = {"plan_code": plan, "payment_method": "wechat_pay"} | how
    answer = client.post("/v1/orders", json=body, headers=member | {"Idempotency-Key": str(uuid4())})
    placed: dict[str, Any] = answer.json()
    return placed


def test_an_admin_signs_in_on_the_docs_page_and_edits_a_plan_by_clicking(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, DESK)
    page = visit.page
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").click()
    expect(page.locator("#oauth_username")).to_be_focused()
    page.fill("#oauth_username", "admin@heika.local")
    page.fill("#oauth_password", admin_password(heika))
    form = page.locator(".auth-container:has(#oauth_password)")
    form.get_by_role("button", name="Apply given OAuth2 credentials").click()
    admin = page.locator('.auth-container:has-text("admin (OAuth2, password)")')
    expect(admin.locator("button", has_text="Logout")).to_be_visible()
    admin.locator("button", has_text="Close").click()

    page.locator(".opblock-tag", has_text="admin plans").click()
    plans = visit.operation("get", "/v1/admin/plans")
    expect(plans).to_be_visible()
    visit.keep("docs")
    plans.locator(".opblock-summary-control").click()
    plans.get_by_role("button", name="Try it out").click()
    status, listed = execute(plans)
    prices = {plan["code"]: plan["amount"] for plan in listed["items"]}
    assert status == 200
    assert {"black-card-1m": 1990, "black-card-3m": 4900, "black-card-12m": 18900}.items() <= prices.items()

    change = visit.operation("patch", "/v1/admin/plans/{code}")
    change.locator(".opblock-summary-control").click()
    change.get_by_role("button", name="Try it out").click()
    expect(change.get_by_placeholder("code")).to_have_value("black-card-1m")
    given = json.loads(change.locator("textarea").input_value())
    change.locator("textarea").fill(json.dumps(given | {"original_amount": 3990}))
    status, changed = execute(change)
    assert (status, changed["amount"], changed["original_amount"]) == (200, 1990, 3990)
    shown = httpx.get(f"{heika.address}/v1/plans/black-card-1m").json()
    assert shown == changed

    assert visit.errors == []
    assert visit.hosts == {urlsplit(heika.address).netloc}
    page.close()


def test_an_admin_with_one_time_passwords_signs_in_on_the_docs_page(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, DESK)
    page, password = visit.page, admin_password(heika)
    with httpx.Client(base_url=heika.address, timeout=20) as client:
        form = {"grant_type": "password", "username": "admin@heika.local", "password": password}
        token = client.post("/v1/auth/token", data=form).json()["access_token"]
        admin = {"Authorization": f"Bearer {token}"}
        secret = base64.b32decode(client.post("/v1/auth/totp", headers=admin).json()["secret"])

        def code(drift: int) -> str:
            now = datetime.fromisoformat(client.get("/v1/sandbox/clock").json()["now"]).timestamp()
            return password_of(secret, int(now) // STEP_S + drift)

        # Each password is good once, and so are those of the steps before and after: one for each login here.
        confirmed = client.post("/v1/auth/totp/confirmation", json={"code": code(-1)}, headers=admin)
        assert confirmed.status_code == 204, confirmed.text
        try:
            page.goto("/docs")
            page.get_by_role("button", name="Authorize").click()
            expect(page.locator(".modal-ux-content")).to_contain_text("types the six digits right after it")
            page.fill("#oauth_username", "admin@heika.local")
            page.fill("#oauth_password", password + code(0))
            dialog = page.locator(".auth-container:has(#oauth_password)")
            dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
            signed_in = page.locator('.auth-container:has-text("admin (OAuth2, password)")')
            expect(signed_in.locator("button", has_text="Logout")).to_be_visible()
        finally:
            removed = client.post("/v1/auth/totp/removal", json={"code": code(1)}, headers=admin)
        assert removed.status_code == 204, removed.text
    assert visit.errors == []
    page.close()


def test_a_money_call_on_the_docs_page_gets_a_key_of_its_own(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, DESK)
    visit.page.goto("/docs#/orders/place_order")
    placing = visit.operation("post", "/v1/orders")
    placing.get_by_role("button", name="Try it out").click()
    filled_in = placing.get_by_placeholder("Idempotency-Key").input_value()
    # The example itself would replay the answer that the first reader of the document got.
    assert len(filled_in) == len(EXAMPLE_KEY)
    assert filled_in != EXAMPLE_KEY
    visit.page.close()


# ReDoc draws every answer of 300 operations before it shows one: six seconds, and many times that on a busy machine.
@pytest.mark.timeout(240)
def test_redoc_renders_without_the_internet(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, DESK)
    visit.page.set_default_timeout(100_000)
    visit.page.goto("/redoc")
    visit.page.get_by_role("heading", name="Heika 黑卡 (1)").wait_for()
    expect(visit.page.get_by_role("heading", name="Heika 黑卡 (1)")).to_be_visible()
    expect(visit.page.locator('[role="menuitem"]', has_text="admin plans").first).to_be_visible()
    assert visit.errors == []
    assert visit.hosts == {urlsplit(heika.address).netloc, "this page"}
    visit.page.close()


def test_the_cashier_takes_the_money_or_does_not(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, PHONE)
    page = visit.page
    with httpx.Client(base_url=heika.address, timeout=20) as client:
        member = new_member(client, "13900000301")
        paid, refused = order(client, member, "black-card-3m"), order(client, member, "black-card-1m")

        page.goto(paid["checkout"]["url"])
        expect(page.locator(".amount")).to_have_text("¥49.00")
        expect(page.locator("#status")).to_have_attribute("data-status", "open")
        visit.keep("cashier")
        page.get_by_role("button", name="支付 ¥49.00 · Pay").click()
        expect(page.locator("#status")).to_have_attribute("data-status", "paid")
        expect(page.get_by_role("button")).to_have_count(0)
        assert client.get(f"/v1/orders/{paid['id']}?refresh=true", headers=member).json()["status"] == "paid"

        page.goto(refused["checkout"]["url"])
        page.get_by_role("button", name="取消 · Cancel").click()
        expect(page.get_by_role("status")).to_contain_text("Not paid; you can try again.")
        assert client.get(f"/v1/orders/{refused['id']}?refresh=true", headers=member).json()["status"] == "pending"

    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0
    assert visit.errors == []
    assert visit.hosts == {urlsplit(heika.address).netloc}
    page.close()


def test_the_cashier_lets_money_come_later_and_keeps_a_card(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, PHONE)
    page = visit.page
    with httpx.Client(base_url=heika.address, timeout=20) as client:
        member = new_member(client, "13900000302")
        later = order(client, member, "black-card-12m")

        page.goto(later["checkout"]["url"])
        expect(page.locator("#kept")).to_have_count(0)
        page.get_by_role("button", name="稍后到账（10 分钟）· Pay later (10 minutes)").click()
        expect(page.locator("#status")).to_have_text("等待到账 Waiting for the money")
        expect(page.get_by_role("button")).to_have_count(0)
        visit.keep("cashier-later")
        assert client.get(f"/v1/orders/{later['id']}?refresh=true", headers=member).json()["status"] == "pending"
        assert client.post("/v1/sandbox/clock", json={"advance": "PT10M"}, timeout=60).status_code == 200
        page.reload()
        expect(page.locator("#status")).to_have_text("已支付 Paid")
        member = new_member(client, "13900000302")
        assert client.get(f"/v1/orders/{later['id']}", headers=member).json()["status"] == "paid"

        renewed = order(client, member, "black-card-1m", payment_method="card", auto_renew=True)
        page.goto(renewed["checkout"]["url"])
        expect(page.locator("#kept")).to_contain_text("Your card is saved")
        page.get_by_role("button", name="支付 ¥19.90 · Pay").click()
        expect(page.locator("#status")).to_have_attribute("data-status", "paid")
        client.get(f"/v1/orders/{renewed['id']}?refresh=true", headers=member)
        card = client.post("/v1/me/subscription/card", json={}, headers=member).json()
        page.goto(card["url"])
        expect(page.locator("h1")).to_contain_text("保存银行卡")
        expect(page.locator(".amount")).to_have_count(0)
        expect(page.get_by_role("button")).to_have_count(2)
        expect(page.locator("#status")).to_have_text("待保存 Waiting for a card")
        visit.keep("cashier-card")
        page.get_by_role("button", name="保存银行卡 · Save card").click()
        expect(page.locator("#status")).to_have_text("银行卡已保存 Card saved")

    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0
    assert visit.errors == []
    page.close()


def test_an_invitation_opened_twice_on_a_phone_brings_who_registers_there(browser: Browser, heika: Heika) -> None:
    with httpx.Client(base_url=heika.address) as client:
        inviter = new_member(client, "+8613900000771")
        invite = client.get("/v1/me/invite", headers=inviter).json()
        visit = Visit(browser, heika, PHONE)
        visit.page.goto(invite["url"])
        expect(visit.page.locator("#code")).to_have_text(invite["code"])
        expect(visit.page.locator("#code")).to_be_visible()
        visit.keep("invitation")
        visitor = visit.page.evaluate("localStorage.getItem('heika.visitor_id')")
        visit.page.reload()
        expect(visit.page.locator("#said")).to_contain_text("好友邀请")
        assert visit.page.evaluate("localStorage.getItem('heika.visitor_id')") == visitor
        assert visit.errors == []
        assert visit.hosts == {urlsplit(heika.address).netloc}

        phone = "+8613900000772"
        client.post("/v1/auth/otp", json={"phone": phone})
        code = client.get("/v1/sandbox/otp", params={"phone": phone}).json()["code"]
        body = {"phone": phone, "code": code, "visitor_id": visitor}
        newcomer = client.post("/v1/auth/otp/verify", json=body).json()["member"]["id"]
        deadline = time.monotonic() + 15
        while not (brought := client.get("/v1/me/invitees", headers=inviter).json()["items"]):
            assert time.monotonic() < deadline
        assert [(one["member_id"], one["stage"]) for one in brought] == [(newcomer, "registered")]

        visit.page.goto("/i/NOBODYS2")
        expect(visit.page.locator("#said")).to_contain_text("失效")
        expect(visit.page.locator("#code")).to_be_hidden()
