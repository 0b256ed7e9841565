"""A card that renews by itself: charged month after month, behind and caught up within grace, and lapsed in the end."""

import json
import secrets
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.journeys.first_light import Journey
from tests.onebox.conftest import Heika

DAY = timedelta(days=1)


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

    def subscribe(self) -> dict[str, Any]:
        """Buy a month that renews; the membership."""
        body = {"plan_code": "black-card-1m", "payment_method": "card", "auto_renew": True}
        key = {"Idempotency-Key": secrets.token_hex(16)}
        order = self.call("POST", "/v1/orders", 201, json=body, headers=self.newcomer.headers | key)
        self._pay(order)
        self.until("membership is active and renews", lambda: (held := self.membership())["auto_renew"] and held)
        return dict(self.membership())

    def subscription(self) -> dict[str, Any]:
        """How the renewal stands."""
        return dict(self.call("GET", "/v1/me/subscription", 200, headers=self.newcomer.headers))

    def segments(self) -> list[tuple[datetime, datetime]]:
        """When each piece of time begins and ends."""
        path = "/v1/me/membership/segments"
        items = self.call("GET", path, 200, headers=self.newcomer.headers)["items"]
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


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.timeout(240)
def test_a_card_renews_falls_behind_catches_up_and_lapses(heika: Heika) -> None:
    heika.start()
    kept = json.loads((heika.data / "secrets.json").read_text())
    with closing(Subscriber(heika.address, "admin@heika.local", kept["HEIKA_ADMIN_PASSWORD"])) as journey:
        journey.register(journey.newcomer)
        assert not journey.plays()
        held = journey.subscribe()
        start, first_end = moment(held["starts_at"]), moment(held["ends_at"])
        journey.until("the lesson opens", journey.plays)
        assert journey.notices() == []

        # Told five days before, charged at the end, and the time goes on without a gap.
        journey.move_to(first_end - 4 * DAY)
        assert journey.notices() == ["renewal_upcoming"]
        journey.move_to(first_end + timedelta(minutes=1))
        held = journey.membership()
        assert (held["status"], held["auto_renew"], moment(held["starts_at"])) == ("active", True, start)
        second_end = moment(held["ends_at"])
        assert journey.notices() == ["renewal_upcoming", "renewal_paid"]
        assert journey.subscription()["status"] == "active"

        # Refused at first: everything stays open, and the retry of the next day leaves no gap.
        journey.banks_say("fail")
        journey.move_to(second_end + timedelta(hours=12))
        held = journey.membership()
        assert (held["status"], held["days_left"], moment(held["ends_at"])) == ("grace", 0, second_end)
        assert held["auto_renew"] is True
        assert "member_lessons" in held["benefits"]
        assert journey.plays()
        assert journey.subscription()["status"] == "past_due"
        journey.move_to(second_end + DAY + timedelta(minutes=1))
        held = journey.membership()
        assert (held["status"], moment(held["starts_at"])) == ("active", start)
        third_end = moment(held["ends_at"])
        assert journey.subscription()["status"] == "active"

        # Refused each time: open until the seventh day is over, then closed.
        journey.banks_say(*["fail"] * 10)
        journey.move_to(third_end + 7 * DAY - timedelta(minutes=5))
        assert journey.membership()["status"] == "grace"
        assert journey.plays()
        journey.move_to(third_end + 7 * DAY + timedelta(minutes=1))
        held = journey.membership()
        assert (held["status"], held["auto_renew"], moment(held["ends_at"])) == ("expired", False, third_end)
        assert not journey.plays()
        assert journey.subscription()["status"] == "none"

        spans = journey.segments()
        assert [end for _, end in spans] == [first_end, second_end, third_end]
        assert all(one[1] == other[0] for one, other in pairwise(spans))
        told = journey.notices()
        assert told[:2] == ["renewal_upcoming", "renewal_paid"]
        assert told.count("renewal_upcoming") == 3
        assert told.count("renewal_paid") == 2
        assert told[-1] == "renewal_lapsed"

        # All of it is over: nothing more is charged, told or changed.
        orders = journey.call("GET", "/v1/orders", 200, headers=journey.newcomer.headers)["items"]
        assert sorted(order["status"] for order in orders) == ["expired", "paid", "paid", "paid"]
        journey.move_to(third_end + 40 * DAY)
        assert journey.notices() == told
        assert journey.segments() == spans
        assert len(journey.call("GET", "/v1/orders", 200, headers=journey.newcomer.headers)["items"]) == len(orders)
