"""A newcomer's whole path, by HTTP only, against a running Heika: `python -m tests.journeys.first_light URL EMAIL PASSWORD`."""

import io
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from PIL import Image

SHANGHAI = ZoneInfo("Asia/Shanghai")
PATIENCE_S = 15.0


@dataclass
class Person:
    """Somebody with a phone and a token."""

    name: str
    phone: str = field(default_factory=lambda: f"+86139{secrets.randbelow(10**8):08d}")
    visitor_id: str = field(default_factory=lambda: secrets.token_hex(8))
    headers: dict[str, str] = field(default_factory=dict)
    id: str = ""


class Journey:
    """The steps, each of which asserts what a person would look at."""

    def __init__(self, address: str, email: str, password: str, say: Callable[[str], None] = print) -> None:
        self.http = httpx.Client(base_url=address, timeout=20, headers={"Accept-Language": "en"})
        self.email = email
        self.password = password
        self.say = say
        self.admin: dict[str, str] = {}
        self.inviter = Person("inviter")
        self.newcomer = Person("newcomer")
        self.friend = Person("friend")
        self.lesson_id = ""
        self.order: dict[str, Any] = {}
        self.entry_id = ""
        self.ends_at = datetime.now(UTC)

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()

    def call(self, method: str, path: str, status: int, /, **request: Any) -> Any:
        """One call that must be answered with this status; the JSON it answers."""
        answer = self.http.request(method, path, **request)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else answer

    def until(self, what: str, true: Callable[[], Any]) -> Any:
        """Wait for something another service must first hear of."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := true()):
            assert time.monotonic() < deadline, f"did not happen in {PATIENCE_S} s: {what}"
            time.sleep(0.02)
        return found

    def now(self) -> datetime:
        """The product's clock."""
        return _instant(self.call("GET", "/v1/sandbox/clock", 200)["now"])

    def register(self, person: Person, **origin: str) -> None:
        """Sign in by phone code."""
        self.call("POST", "/v1/auth/otp", 202, json={"phone": person.phone})
        code = self.call("GET", "/v1/sandbox/otp", 200, params={"phone": person.phone})["code"]
        body = {"phone": person.phone, "code": code, "visitor_id": person.visitor_id} | origin
        answer = self.call("POST", "/v1/auth/otp/verify", 200, json=body)
        person.headers = {"Authorization": f"Bearer {answer['access_token']}"}
        if answer["created"]:
            person.id = answer["member"]["id"]
        assert answer["member"]["id"] == person.id

    def admin_edits_the_plans(self) -> None:
        """1. An admin signs in as the docs page's dialog does, sees the three plans, and edits one."""
        page = self.http.get("/docs")
        assert page.status_code == 200
        assert "swagger" in page.text.lower()
        document = self.call("GET", "/openapi.json", 200)
        flow = document["components"]["securitySchemes"]["admin"]["flows"]["password"]
        form = {"grant_type": "password", "username": self.email, "password": self.password}
        token = self.call("POST", flow["tokenUrl"], 200, data=form)
        self.admin = {"Authorization": f"Bearer {token['access_token']}"}
        plans = {plan["code"]: plan for plan in self.call("GET", "/v1/admin/plans", 200, headers=self.admin)["items"]}
        prices = [
            (plans[f"black-card-{months}m"]["months"], plans[f"black-card-{months}m"]["amount"])
            for months in (1, 3, 12)
        ]
        assert prices == [(1, 1990), (3, 4900), (12, 18900)]
        held = self.http.get("/v1/plans/black-card-12m")
        plan = held.json()
        path = "/v1/admin/plans/black-card-12m"
        dearer = self.call("PATCH", path, 200, json={"amount": 19900}, headers=self.admin)
        assert (dearer["amount"], dearer["version"]) == (19900, plan["version"] + 1)
        back = self.call("PATCH", path, 200, json={"amount": 18900}, headers=self.admin)
        assert (back["amount"], back["version"]) == (18900, plan["version"] + 2)
        assert self.http.patch(path, json={"amount": 1}).status_code == 401
        self.say("1. admin logged in by the docs page's password flow; plans 1990/4900/18900 seen, edited and set back")

    def newcomer_registers_by_invitation(self) -> None:
        """2. A visitor comes by an invitation link, registers, and finds the newcomer coupon."""
        self.register(self.inviter)
        invite = self.call("GET", "/v1/me/invite", 200, headers=self.inviter.headers)
        touch = {"invite_code": invite["code"], "visitor_id": self.newcomer.visitor_id}
        answer = self.http.post("/v1/touches", json=touch)
        assert answer.status_code in {200, 201, 202, 204}, answer.text
        self.register(self.newcomer)
        coupon = self.until("the newcomer coupon", self._coupon)
        assert (coupon["kind"], coupon["value"], coupon["status"]) == ("amount", 500, "issued")
        self.say(
            f"2. {invite['url']} opened, registered by phone code; coupon «{coupon['title']}» of {coupon['value']} fen is there"
        )

    def _coupon(self) -> Any:
        items = self.call("GET", "/v1/me/coupons", 200, headers=self.newcomer.headers, params={"status": "issued"})[
            "items"
        ]
        return items[0] if items else None

    def newcomer_is_refused_the_lesson(self) -> None:
        """4a. A member-only lesson is closed before the purchase."""
        courses = self.call("GET", "/v1/courses", 200, params={"access": "member", "limit": 5})["items"]
        course = self.call("GET", f"/v1/courses/{courses[0]['id']}", 200)
        self.lesson_id = course["lessons"][0]["id"]
        refusal = self.call("GET", f"/v1/lessons/{self.lesson_id}", 403, headers=self.newcomer.headers)
        assert (refusal["code"], refusal["action"]) == ("membership_required", "buy_membership")
        self.say(f"4a. lesson «{course['lessons'][0]['title']}» answers 403 membership_required")

    def newcomer_orders(self) -> None:
        """3a. They preview and place an order with the coupon."""
        coupon = self._coupon()
        wanted = {"plan_code": "black-card-3m", "coupon_token": coupon["token"]}
        quote = self.call("POST", "/v1/orders/preview", 200, json=wanted, headers=self.newcomer.headers)
        assert (quote["subtotal"], quote["discount"], quote["total"], quote["currency"]) == (4900, 500, 4400, "CNY")
        key = {"Idempotency-Key": secrets.token_hex(16)}
        body = wanted | {"payment_method": "wechat_pay"}
        self.order = self.call("POST", "/v1/orders", 201, json=body, headers=self.newcomer.headers | key)
        again = self.http.post("/v1/orders", json=body, headers=self.newcomer.headers | key)
        assert (again.status_code, again.json()["id"]) == (201, self.order["id"])
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (self.order["status"], self.order["total"]) == ("pending", 4400)
        self.say(f"3a. order {self.order['number']} placed: 4900 - 500 = {self.order['total']} fen")

    def newcomer_pays(self) -> None:
        """3b. They open the cashier page and press Pay."""
        page = self.http.get(self.order["checkout"]["url"])
        assert page.status_code == 200
        assert "44.00" in page.text
        self._pay(self.order)
        self.say("3b. cashier page shows ¥44.00, Pay pressed, the signed webhook made the order paid")

    def _pay(self, order: dict[str, Any]) -> None:
        session = order["checkout"]["url"].rstrip("/").rsplit("/", 1)[1]
        self.call("POST", f"/v1/sandbox/checkout/{session}/pay", 200, json={})
        self.until("the order is paid", lambda: self.order_now(order)["status"] == "paid")

    def order_now(self, order: dict[str, Any]) -> Any:
        """The order as it is."""
        return self.call("GET", f"/v1/orders/{order['id']}", 200, headers=self.newcomer.headers)

    def membership(self) -> Any:
        """The newcomer's membership."""
        return self.call("GET", "/v1/me/membership", 200, headers=self.newcomer.headers)

    def everything_followed(self) -> None:
        """3c. Ledger, membership and the inviter's reward follow."""
        balance = self.call("GET", "/v1/admin/ledger/trial-balance", 200, headers=self.admin)
        assert balance["balanced"] is True
        assert sum(row["debit"] for row in balance["accounts"]) == sum(row["credit"] for row in balance["accounts"]) > 0
        held = self.until("membership is active", lambda: (m := self.membership())["status"] == "active" and m)
        paid_at = _instant(self.order_now(self.order)["paid_at"])
        self.ends_at = _instant(held["ends_at"])
        assert (held["plan_code"], _instant(held["starts_at"])) == ("black-card-3m", paid_at)
        assert self.ends_at == _plus_months(paid_at, 3)
        assert "member_lessons" in held["benefits"]
        path = "/v1/me/membership/segments"
        earned = self.until(
            "the inviter's reward", lambda: self.call("GET", path, 200, headers=self.inviter.headers)["items"]
        )
        assert [(item["source"], item["days"], item["months"], item["state"]) for item in earned] == [
            ("reward", 7, 0, "active")
        ]
        spent = self.until("the coupon is redeemed", lambda: self._coupons("redeemed"))
        assert len(spent) == 1
        assert self._coupons("issued") == []
        self.say(
            f"3c. ledger balanced, membership active to {held['ends_at']}, inviter has a 7-day segment, coupon redeemed"
        )

    def _coupons(self, status: str) -> Any:
        return self.call("GET", "/v1/me/coupons", 200, headers=self.newcomer.headers, params={"status": status})[
            "items"
        ]

    def newcomer_learns(self) -> None:
        """4. The lesson opens, plays, and keeps progress."""
        path = f"/v1/lessons/{self.lesson_id}"
        lesson = self.until("the lesson opens", self._lesson)
        part = self.http.get(lesson["playback"]["url"], headers={"Range": "bytes=0-99"})
        assert (part.status_code, len(part.content)) == (206, 100)
        half = lesson["duration_s"] // 2
        kept: dict[str, Any] = {}
        for watched in ([[0, half]], [[0, half], [half - 5, half]]):
            kept = self.call(
                "PUT",
                f"{path}/progress",
                200,
                json={"position_s": half, "watched": watched},
                headers=self.newcomer.headers,
            )
        assert (kept["percent"], kept["completed"], kept["position_s"]) == (
            half * 100 // lesson["duration_s"],
            False,
            half,
        )
        learning = self.call("GET", "/v1/me/learning", 200, headers=self.newcomer.headers)["items"]
        assert [item["lesson_id"] for item in learning] == [self.lesson_id]
        self.say(f"4. lesson opens and plays by Range, progress {kept['percent']} % saved")

    def _lesson(self) -> Any:
        answer = self.http.get(f"/v1/lessons/{self.lesson_id}", headers=self.newcomer.headers)
        return answer.json() if answer.status_code == 200 else None

    def newcomer_enters_the_contest(self) -> None:
        """5. They upload the cake, enter, a friend votes, the leaderboard shows it."""
        photo = io.BytesIO()
        Image.effect_noise((640, 480), 80).convert("RGB").save(photo, "JPEG")
        file = {"file": ("cake.jpg", photo.getvalue(), "image/jpeg")}
        upload = self.call("POST", "/v1/uploads", 201, files=file, headers=self.newcomer.headers)
        assert (upload["width"], upload["height"]) == (640, 480)
        assert self.http.get(upload["url"]).headers["content-type"].startswith("image/")
        contest = self.call("GET", "/v1/contests", 200, params={"phase": "open"})["items"][0]
        body = {
            "title": "我的第一个戚风",
            "story": "终于没有塌。",
            "upload_ids": [upload["id"]],
            "lesson_id": self.lesson_id,
        }
        entry = self.call(
            "POST", f"/v1/contests/{contest['id']}/entries", 201, json=body, headers=self.newcomer.headers
        )
        self.entry_id = entry["id"]
        if entry["status"] == "pending":
            decision = {"decision": "approve", "reason": "lovely"}
            self.call("POST", f"/v1/admin/entries/{self.entry_id}/moderation", 200, json=decision, headers=self.admin)
        own = self.call("POST", f"/v1/entries/{self.entry_id}/votes", 403, headers=self.newcomer.headers)
        assert own["code"] == "own_entry"
        self.register(self.friend)
        vote = self.call("POST", f"/v1/entries/{self.entry_id}/votes", 201, headers=self.friend.headers)
        assert vote["entry_votes"] == 1
        twice = self.call("POST", f"/v1/entries/{self.entry_id}/votes", 409, headers=self.friend.headers)
        assert twice["code"] == "already_voted"
        board = self.call("GET", f"/v1/contests/{contest['id']}/leaderboard", 200)["items"]
        assert [(item["votes"], item["title"]) for item in board if item["entry_id"] == self.entry_id] == [
            (1, body["title"])
        ]
        self.say(f"5. photo uploaded, entered «{contest['title']}», a friend voted, the leaderboard shows 1 vote")

    def newcomer_buys_more(self) -> None:
        """6a. Another month is added at the end."""
        key = {"Idempotency-Key": secrets.token_hex(16)}
        body = {"plan_code": "black-card-1m", "payment_method": "card"}
        order = self.call("POST", "/v1/orders", 201, json=body, headers=self.newcomer.headers | key)
        assert order["total"] == 1990
        self._pay(order)
        later = _plus_months(_instant(self.order_now(self.order)["paid_at"]), 4)
        self.until("time is added at the end", lambda: _instant(self.membership()["ends_at"]) == later)
        self.ends_at = later
        self.say(f"6a. black-card-1m bought as well: membership now ends {later.isoformat()}")

    def everything_expires(self) -> None:
        """6b. The clock is moved past everything."""
        leap = self.ends_at - self.now() + timedelta(days=1)
        self.call("POST", "/v1/sandbox/clock", 200, json={"advance": f"PT{int(leap.total_seconds())}S"})
        assert self.now() > self.ends_at
        old = self.http.get("/v1/me/membership", headers=self.newcomer.headers)
        assert old.status_code == 401, "the access token must have expired with the clock"
        self.register(self.newcomer)
        assert self.membership()["status"] == "expired"
        refusal = self.call("GET", f"/v1/lessons/{self.lesson_id}", 403, headers=self.newcomer.headers)
        assert refusal["code"] == "membership_required"
        back = self.http.post("/v1/sandbox/clock", json={"now": "2026-01-01T00:00:00Z"})
        assert back.status_code == 409
        self.say("6b. clock moved past the end: membership expired, the lesson is 403 membership_required again")

    def steps(self) -> list[Callable[[], None]]:
        """The steps in order."""
        return [
            self.admin_edits_the_plans,
            self.newcomer_registers_by_invitation,
            self.newcomer_is_refused_the_lesson,
            self.newcomer_orders,
            self.newcomer_pays,
            self.everything_followed,
            self.newcomer_learns,
            self.newcomer_enters_the_contest,
            self.newcomer_buys_more,
            self.everything_expires,
        ]

    def walk(self) -> None:
        """All steps."""
        for step in self.steps():
            step()


def _instant(text: str) -> datetime:
    assert text.endswith("Z"), text
    return datetime.fromisoformat(text)


def _plus_months(start: datetime, months: int) -> datetime:
    """The calendar rule for one run, said a second time: wall clock in Shanghai, day clamped to the month's last."""
    local = start.astimezone(SHANGHAI)
    month = local.month - 1 + months
    year, month = local.year + month // 12, month % 12 + 1
    day = local.day
    while True:
        try:
            return local.replace(year=year, month=month, day=day).astimezone(UTC)
        except ValueError:
            day -= 1


if __name__ == "__main__":
    journey = Journey(sys.argv[1], sys.argv[2], sys.argv[3])
    started = time.perf_counter()
    journey.walk()
    journey.close()
    print(f"the whole journey took {time.perf_counter() - started:.1f} s")
