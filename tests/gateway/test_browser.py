"""What people see in a browser: ReDoc, the cashier and an invitation, of a Heika started as a newcomer starts it."""

import time
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.gateway.browsing import DESK, MARKS, PHONE, Visit, browser, new_member, order
from tests.onebox.conftest import Heika

__all__ = ["browser"]

pytestmark = MARKS


# ReDoc draws all of 300 operations before it shows one: six seconds, and many times that on a busy machine.
@pytest.mark.timeout(240)
def test_redoc_renders_without_the_internet(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, DESK)
    visit.page.set_default_timeout(100_000)
    visit.page.goto("/redoc")
    # By element: to find a heading by its role is to work out the roles of 150,000 nodes, again and again.
    visit.page.locator("h1").first.wait_for()
    expect(visit.page.locator("h1").first).to_contain_text("Heika 黑卡")
    expect(visit.page.locator('[role="menuitem"]', has_text="管理员 / admin").first).to_be_visible()
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
