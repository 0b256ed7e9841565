"""A browser for the tests of pages: Debian's chromium, and what a visit asks of a page."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

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
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium; on Debian: apt-get install chromium fonts-noto-cjk"),
]
PATIENCE_MS = 60_000

# Pages take seconds to draw a document of this size on a busy machine.
expect.set_options(timeout=PATIENCE_MS)


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
        self.page.set_default_timeout(PATIENCE_MS)
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

    def sign_in(self, password: str) -> None:
        """Log the admin in by Swagger UI's Authorize dialog."""
        self.page.get_by_role("button", name="Authorize").click()
        expect(self.page.locator("#oauth_username")).to_be_focused()
        self.page.fill("#oauth_username", "admin@heika.local")
        self.page.fill("#oauth_password", password)
        form = self.page.locator(".auth-container:has(#oauth_password)")
        form.get_by_role("button", name="Apply given OAuth2 credentials").click()
        admin = self.page.locator('.auth-container:has-text("admin (OAuth2, password)")')
        expect(admin.locator("button", has_text="Logout")).to_be_visible()
        admin.locator("button", has_text="Close").click()


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
