"""Gifts and redeem codes through the whole house: what a code's answer shows is what the ledger holds, until a refund."""

import csv
import io
import json
import secrets
from contextlib import closing
from typing import Any

from tests.journeys.first_light import Journey, Person
from tests.onebox.conftest import Heika

BATCHES = "/v1/admin/redeem-code-batches"


class Giver(Journey):
    """People who give, get and redeem."""

    def log_in_as_admin(self) -> None:
        """The admin's token."""
        form = {"grant_type": "password", "username": self.email, "password": self.password}
        token = self.call("POST", "/v1/auth/token", 200, data=form)
        self.admin = {"Authorization": f"Bearer {token['access_token']}"}

    def codes(self, count: int) -> tuple[str, list[str]]:
        """A batch's id and its codes, of which a look at the headers uses up nothing."""
        body = {"plan_code": "black-card-3m", "count": count, "expires_at": "2035-01-01T00:00:00Z"}
        batch = self.call("POST", BATCHES, 201, json=body, headers=self.admin)["id"]
        path = f"{BATCHES}/{batch}/codes.csv"
        assert self.http.head(path, headers=self.admin).status_code == 200
        table = self.call("GET", path, 200, headers=self.admin)
        assert self.call("GET", path, 410, headers=self.admin)["code"] == "codes_already_downloaded"
        assert self.http.head(path, headers=self.admin).status_code == 410
        return batch, [row["code"] for row in csv.DictReader(io.StringIO(table.text))]

    def redeem(self, person: Person, code: str, status: int = 201) -> Any:
        """What a code answers somebody."""
        answer = self.call("POST", "/v1/redemptions", status, json={"code": code}, headers=person.headers)
        return answer["segment"] if status == 201 else answer["code"]

    def segments(self, person: Person) -> dict[str, Any]:
        """Somebody's time ledger, by the segments' ids."""
        items = self.call("GET", "/v1/me/membership/segments", 200, headers=person.headers)["items"]
        return {item["id"]: item for item in items}

    def gift(self) -> dict[str, Any]:
        """A paid gift of the inviter's."""
        body = {"plan_code": "black-card-1m", "payment_method": "alipay", "gift": True}
        headers = self.inviter.headers | {"Idempotency-Key": secrets.token_hex(16)}
        order = self.call("POST", "/v1/orders", 201, json=body, headers=headers)
        session = order["checkout"]["url"].rsplit("/", 1)[1]
        self.call("POST", f"/v1/sandbox/checkout/{session}/pay", 200, json={})
        path = f"/v1/orders/{order['id']}"
        return dict(self.until("the gift is paid", lambda: self._paid(path)))

    def _paid(self, path: str) -> Any:
        order = self.call("GET", path, 200, headers=self.inviter.headers)
        return order if order["status"] == "paid" else None

    def refund(self, order: dict[str, Any]) -> Any:
        """All of an order's money back."""
        headers = self.inviter.headers | {"Idempotency-Key": secrets.token_hex(16)}
        path = f"/v1/orders/{order['id']}/refunds"
        return self.call("POST", path, 201, json={"reason": "送错人了"}, headers=headers)


def test_codes_become_the_time_they_promise_and_a_gift_refunded_takes_it_back(heika: Heika) -> None:
    heika.start()
    kept = json.loads((heika.data / "secrets.json").read_text())
    with closing(Giver(heika.address, "admin@heika.local", kept["HEIKA_ADMIN_PASSWORD"])) as journey:
        journey.log_in_as_admin()
        for person in (journey.inviter, journey.friend, journey.newcomer):
            journey.register(person)

        batch, [first, second, third] = journey.codes(3)
        friend = journey.friend
        shown = [journey.redeem(friend, first), journey.redeem(friend, second.lower().replace("-", " "))]
        gift = journey.gift()
        shown.append(journey.redeem(friend, gift["gift_code"]))
        assert [segment["state"] for segment in shown] == ["active", "queued", "queued"]
        assert [segment["source"] for segment in shown] == ["redeem_code", "redeem_code", "gift"]
        assert [one["starts_at"] for one in shown[1:]] == [one["ends_at"] for one in shown[:-1]]
        ids = [segment["id"] for segment in shown]
        journey.until("the segments are there", lambda: journey.segments(friend).keys() >= set(ids))
        assert [journey.segments(friend)[segment_id] for segment_id in ids] == shown
        membership = journey.call("GET", "/v1/me/membership", 200, headers=friend.headers)
        assert (membership["status"], membership["ends_at"]) == ("active", shown[-1]["ends_at"])
        for used in (first, second, gift["gift_code"]):
            assert journey.redeem(journey.newcomer, used, 409) == "code_used"

        # The giver changes their mind: the friend's last segment goes, and only that.
        assert journey.refund(gift)["segment_id"] == ids[2]
        journey.until("the gift is taken back", lambda: journey.segments(friend)[ids[2]]["state"] == "revoked")
        assert [journey.segments(friend)[segment_id] for segment_id in ids[:2]] == shown[:2]

        # A gift that nobody had redeemed simply ends.
        another = journey.gift()
        assert journey.refund(another)["segment_id"] is None
        assert journey.redeem(journey.newcomer, another["gift_code"], 409) == "code_void"

        journey.call("POST", f"{BATCHES}/{batch}/void", 200, headers=journey.admin)
        assert journey.redeem(journey.newcomer, third, 409) == "code_void"
        report = journey.call("GET", f"{BATCHES}/{batch}/report", 200, headers=journey.admin)
        assert (report["redeemed"], report["voided"], report["newcomers"], report["existing"]) == (2, 1, 1, 1)
        assert journey.segments(journey.newcomer) == {}
