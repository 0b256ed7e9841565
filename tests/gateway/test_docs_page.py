"""An admin's day on the documentation page: signed in by password, every act clicked, and its effect looked up after it."""

import base64
import json
import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, expect

from kit.idempotency import EXAMPLE_KEY
from services.members.totp import STEP_S, password_of
from tests.gateway.browsing import DESK, MARKS, Visit, admin_password, browser, new_member, order
from tests.gateway.test_examples import picture
from tests.onebox.conftest import Heika, eventually

__all__ = ["browser"]

pytestmark = MARKS


class Docs:
    """Swagger UI as an admin uses it: a group is opened, an operation tried out, its answer read off the page."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.opened: set[str] = set()

    def try_out(self, group: str, method: str, path: str) -> Locator:
        """The block of an operation, ready to be filled in."""
        if group not in self.opened:
            self.visit.page.locator(".opblock-tag", has=self.visit.page.get_by_text(group, exact=True)).click()
            self.opened.add(group)
        block = self.visit.operation(method, path)
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        return block

    def done(self, group: str, method: str, path: str, fields: dict[str, str] | None = None, **changes: Any) -> Any:
        """The JSON that came back from an operation that succeeds, its example changed so far."""
        block = self.try_out(group, method, path)
        fill(block, fields or {}, changes)
        status, told = execute(block)
        assert status in (200, 201), told
        # The page stays short enough to be drawn quickly.
        block.locator(".opblock-summary-control").click()
        return told


def fill(block: Locator, fields: dict[str, str], changes: dict[str, Any]) -> None:
    """Fill in parameters by name, and fields of the body that the page shows."""
    for name, value in fields.items():
        row = block.locator(f'tr[data-param-name="{name}"]')
        if row.locator("select").count():
            row.locator("select").select_option(value)
        else:
            row.locator("input").fill(value)
    if changes:
        shown = json.loads(block.locator("textarea").input_value())
        assert changes.keys() <= shown.keys()
        block.locator("textarea").fill(json.dumps(shown | changes, ensure_ascii=False))


def pressed(block: Locator) -> Locator:
    """Press Execute; the answer, once it is there."""
    again = block.get_by_role("button", name="Clear")
    if again.count():
        again.click()
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table tbody > tr.response")
    answer.locator(".response-col_status").wait_for()
    return answer


def execute(block: Locator) -> tuple[int, Any]:
    """Press Execute and read what came back: its status and its JSON."""
    answer = pressed(block)
    status = int(answer.locator(".response-col_status").inner_text().split()[0])
    return status, json.loads(answer.locator(".highlight-code code").first.inner_text())


def header(block: Locator, name: str) -> str:
    """A header of the answer shown."""
    line = block.locator(".live-responses-table .headerline", has_text=re.compile(f"^ ?{name}:"))
    return line.inner_text().split(":", 1)[1].strip()


class World:
    """What waits for an admin: a paid order, and a work in a contest that ends in minutes."""

    def __init__(self, client: httpx.Client, password: str) -> None:
        self.client = client
        form = {"grant_type": "password", "username": "admin@heika.local", "password": password}
        self.admin = {"Authorization": f"Bearer {client.post('/v1/auth/token', data=form).json()['access_token']}"}
        self.member = new_member(client, "13900000311")
        self.order = order(client, self.member, "black-card-3m")
        client.post(f"/v1/sandbox/checkout/{self.order['checkout']['url'].rsplit('/', 1)[1]}/pay", json={})
        assert client.get(f"/v1/orders/{self.order['id']}?refresh=true", headers=self.member).json()["status"] == "paid"
        now = datetime.fromisoformat(client.get("/v1/sandbox/clock").json()["now"])
        contest = {"title": "今晚截止", "rules": "亲手做的。", "moderation": "pre", "starts_at": now.isoformat()}
        contest |= {"ends_at": (now + timedelta(minutes=4)).isoformat()}
        self.contest = client.post("/v1/admin/contests", headers=self.admin, json=contest).json()["id"]
        file = {"file": ("cake.jpg", picture(), "image/jpeg")}
        upload = client.post("/v1/uploads", headers=self.member, files=file).json()["id"]
        work = {"title": "草莓蛋糕", "story": "", "upload_ids": [upload]}
        entered = client.post(f"/v1/contests/{self.contest}/entries", headers=self.member, json=work)
        assert entered.status_code == 201, entered.text
        self.entry = entered.json()["id"]

    def of_member(self, path: str) -> Any:
        return self.client.get(path, headers=self.member).json()


# Twenty seconds of clicking on a quiet machine; a busy one takes minutes.
@pytest.mark.timeout(500)
def test_an_admin_signs_in_on_the_docs_page_and_does_a_days_work_by_clicking(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, DESK)
    docs = Docs(visit)
    with httpx.Client(base_url=heika.address, timeout=60) as client:
        world = World(client, admin_password(heika))
        visit.page.goto("/docs")
        expect(visit.page.locator(".info")).to_contain_text("Admins: a day's work from this page")
        visit.sign_in(admin_password(heika))

        write_and_edit_a_plan(docs, client)
        open_a_campaign(docs, world)
        issue_codes(docs, world)
        refund(docs, world)
        moderate_and_settle(docs, world)

    assert visit.errors == ["Failed to load resource: the server responded with a status of 412 (Precondition Failed)"]
    assert visit.hosts <= {urlsplit(heika.address).netloc, "this page"}
    visit.page.close()


def write_and_edit_a_plan(docs: Docs, client: httpx.Client) -> None:
    plan = docs.done("admin plans", "post", "/v1/admin/plans", code="two-months", months=2, amount=3600)
    assert (plan["code"], plan["amount"], plan["version"]) == ("two-months", 3600, 1)
    docs.visit.keep("docs")

    reading = docs.try_out("admin plans", "get", "/v1/admin/plans/{code}")
    fill(reading, {"code": "two-months"}, {})
    assert execute(reading) == (200, plan)
    version = header(reading, "etag")
    change = docs.try_out("admin plans", "patch", "/v1/admin/plans/{code}")
    fill(
        change,
        {"code": "two-months", "If-Match": version},
        {"name": "黑卡双月卡", "amount": 3500, "original_amount": 3990},
    )
    status, changed = execute(change)
    assert (status, changed["name"], changed["amount"], changed["version"]) == (200, "黑卡双月卡", 3500, 2)
    # Whoever read it before that change is told so, and nothing of theirs is done.
    fill(change, {}, {"amount": 3400})
    status, refused = execute(change)
    assert (status, refused["code"]) == (412, "stale_version")
    assert client.get("/v1/plans/two-months").json() == changed


def open_a_campaign(docs: Docs, world: World) -> None:
    campaign = docs.done("admin coupons", "post", "/v1/admin/coupon-campaigns", code="DOCSPAGE", total=1)
    claimed = world.client.post("/v1/coupons/claim", headers=world.member, json={"code": "DOCSPAGE"})
    assert (claimed.status_code, claimed.json()["value"]) == (201, 20)
    where = {"campaign_id": campaign["id"]}
    stats = docs.done("admin coupons", "get", "/v1/admin/coupon-campaigns/{campaign_id}/stats", where)
    assert (stats["total"], stats["claimed"]) == (1, 1)


def issue_codes(docs: Docs, world: World) -> None:
    batch = docs.done("admin codes", "post", "/v1/admin/redeem-code-batches", count=2)
    download = docs.try_out("admin codes", "get", "/v1/admin/redeem-code-batches/{batch_id}/codes.csv")
    fill(download, {"batch_id": batch["id"]}, {})
    link = pressed(download).get_by_role("link", name="Download file")
    with docs.visit.page.expect_download() as saved:
        link.click()
    column, *codes = saved.value.path().read_text().split()
    assert (column, len(codes)) == ("code", 2)
    redeemed = world.client.post("/v1/redemptions", headers=world.member, json={"code": codes[0]})
    assert redeemed.status_code == 201, redeemed.text


def refund(docs: Docs, world: World) -> None:
    number = world.order["number"]
    (found,) = docs.done("admin orders", "get", "/v1/admin/orders", {"number": number})["items"]
    where = {"order_id": found["id"]}
    preview = docs.done("admin orders", "post", "/v1/admin/orders/{order_id}/refund-preview", where)
    assert preview["refundable"] == 4900
    giving = docs.try_out("admin orders", "post", "/v1/admin/orders/{order_id}/refunds")
    keys = []
    for amount in (900, 900, 3100):
        fill(giving, where, {})
        given = json.loads(giving.locator("textarea").input_value()) | {"amount": amount}
        giving.locator("textarea").fill(json.dumps(given, ensure_ascii=False))
        keys.append(giving.locator('tr[data-param-name="Idempotency-Key"] input').input_value())
        status, made = execute(giving)
        assert (status, made["amount"]) == (201, amount), made
        expect(giving.locator('tr[data-param-name="Idempotency-Key"] input')).not_to_have_value(keys[-1])
    # The example itself would replay the answer that the first reader of the document got.
    assert EXAMPLE_KEY not in keys
    assert {len(key) for key in keys} == {len(EXAMPLE_KEY)}
    # The provider is asked a moment after the admin, and says so a moment later.
    path = f"/v1/orders/{found['id']}"
    assert eventually(lambda: bool(world.of_member(path)["status"] == "refunded"), 30)
    assert world.of_member(path)["refunded_amount"] == 4900


def moderate_and_settle(docs: Docs, world: World) -> None:
    group = "admin contests"
    waiting = docs.done(group, "get", "/v1/admin/entries", {"status": "pending", "contest_id": world.contest})["items"]
    assert [entry["id"] for entry in waiting] == [world.entry]
    docs.done(group, "post", "/v1/admin/entries/{entry_id}/moderation", {"entry_id": world.entry})
    assert world.of_member(f"/v1/entries/{world.entry}")["status"] == "approved"
    assert world.client.post("/v1/sandbox/clock", json={"advance": "PT5M"}).status_code == 200
    where = {"contest_id": world.contest}
    settled = docs.done(group, "post", "/v1/admin/contests/{contest_id}/settle", where)
    assert [item["entry_id"] for item in settled["items"]] == [world.entry]
    results = world.of_member(f"/v1/contests/{world.contest}/results")
    assert (results["settled_at"], results["items"]) == (settled["settled_at"], settled["items"])


def test_an_admin_with_one_time_passwords_signs_in_on_the_docs_page(browser: Browser, heika: Heika) -> None:
    visit = Visit(browser, heika, DESK)
    password = admin_password(heika)
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
            visit.page.goto("/docs")
            visit.page.get_by_role("button", name="Authorize").click()
            expect(visit.page.locator(".modal-ux-content")).to_contain_text("types the six digits right after it")
            visit.page.keyboard.press("Escape")
            visit.page.reload()
            visit.sign_in(password + code(0))
        finally:
            removed = client.post("/v1/auth/totp/removal", json={"code": code(1)}, headers=admin)
        assert removed.status_code == 204, removed.text
    assert visit.errors == []
    visit.page.close()
