"""Somebody who buys, gives, redeems and renews, and the clock by which they do."""

import json
import secrets
from datetime import datetime
from typing import Any

from tests.journeys.first_light import Journey, Person
from tests.onebox.conftest import Heika


class Subscriber(Journey):
    """Somebody whose black card renews, and the clock by which it does."""

    def move_to(self, moment: datetime) -> None:
        """Let the time until then pass, and log in again: no token outlives it."""
        self.call("POST", "/v1/sandbox/clock", 200, json={"now": moment.isoformat()}, timeout=120)
        self.register(self.newcomer)

    def banks_say(self, *answers: str) -> None:
        """What the bank will answer to the next charges."""
        body = {"next_charges": list(answers)}
        self.call("PUT", f"/v1/sandbox/payers/{self.newcomer.id}", 200, json=body)

    def buy(self, **more: Any) -> dict[str, Any]:
        """Order a month and pay it; the order."""
        body = {"plan_code": "black-card-1m", "payment_method": "card"} | more
        key = {"Idempotency-Key": secrets.token_hex(16)}
        order = self.call("POST", "/v1/orders", 201, json=body, headers=self.newcomer.headers | key)
        self._pay(order)
        return dict(self.order_now(order))

    def subscribe(self) -> dict[str, Any]:
        """Buy a month that renews; the membership."""
        self.buy(auto_renew=True)
        self.until("membership is active and renews", lambda: (held := self.membership())["auto_renew"] and held)
        return dict(self.membership())

    def subscription(self) -> dict[str, Any]:
        """How the renewal stands."""
        return dict(self.call("GET", "/v1/me/subscription", 200, headers=self.newcomer.headers))

    def pieces(self, person: Person | None = None) -> list[dict[str, Any]]:
        """Somebody's pieces of time, the newcomer's unless said otherwise."""
        headers = (person or self.newcomer).headers
        return list(self.call("GET", "/v1/me/membership/segments", 200, headers=headers)["items"])

    def segments(self) -> list[tuple[datetime, datetime]]:
        """When each piece of time begins and ends."""
        items = self.pieces()
        return [(datetime.fromisoformat(item["starts_at"]), datetime.fromisoformat(item["ends_at"])) for item in items]

    def notices(self) -> list[str]:
        """What they were told, in order."""
        items = self.call("GET", "/v1/sandbox/notices", 200, params={"member_id": self.newcomer.id})["items"]
        assert {(item["channel"], item["status"]) for item in items} <= {("sms", "sent")}
        return [item["kind"] for item in items]

    def plays(self) -> bool:
        """Whether a lesson for members plays."""
        if not self.lesson_id:
            course = self.call("GET", "/v1/courses", 200, params={"access": "member", "limit": 1})["items"][0]
            self.lesson_id = self.call("GET", f"/v1/courses/{course['id']}", 200)["lessons"][0]["id"]
        answer = self.http.get(f"/v1/lessons/{self.lesson_id}", headers=self.newcomer.headers)
        assert answer.status_code in {200, 403}
        return answer.status_code == 200


def subscriber_of(heika: Heika) -> Subscriber:
    """A journey through this Heika."""
    kept = json.loads((heika.data / "secrets.json").read_text())
    return Subscriber(heika.address, "admin@heika.local", kept["HEIKA_ADMIN_PASSWORD"])
