"""Coupons through the whole house: a voucher for three is spent three times, and a refused one touches nobody's money."""

import json
import secrets
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from tests.journeys.first_light import Journey, Person
from tests.onebox.conftest import Heika

PLANS = ("black-card-1m", "black-card-3m", "black-card-12m")


class Shopper(Journey):
    """People who claim coupons and try to spend them more than once."""

    def log_in_as_admin(self) -> None:
        """The admin's token."""
        form = {"grant_type": "password", "username": self.email, "password": self.password}
        token = self.call("POST", "/v1/auth/token", 200, data=form)
        self.admin = {"Authorization": f"Bearer {token['access_token']}"}

    def campaign(self, **terms: Any) -> dict[str, Any]:
        """A campaign of 300 fen that runs now."""
        usual = {
            "title": "三张券",
            "kind": "amount",
            "value": 300,
            "total": 3,
            "valid_days": 30,
            "audience": "everyone",
        }
        made = self.call("POST", "/v1/admin/coupon-campaigns", 201, json=usual | terms, headers=self.admin)
        return dict(made)

    def stats(self, campaign: dict[str, Any]) -> dict[str, int]:
        """What became of a campaign's coupons."""
        path = f"/v1/admin/coupon-campaigns/{campaign['id']}/stats"
        return dict(self.call("GET", path, 200, headers=self.admin))

    def claim(self, person: Person, code: str) -> dict[str, Any]:
        """The answer to a claim by code."""
        answer = self.http.post("/v1/coupons/claim", json={"code": code}, headers=person.headers)
        assert answer.status_code in {201, 409}, answer.text
        return dict(answer.json())

    def place(self, person: Person, plan: str, token: str) -> dict[str, Any]:
        """The answer to an order with a coupon."""
        body = {"plan_code": plan, "coupon_token": token, "payment_method": "alipay"}
        headers = person.headers | {"Idempotency-Key": secrets.token_hex(16)}
        return dict(self.http.post("/v1/orders", json=body, headers=headers).json())

    def pay(self, order: dict[str, Any], status: int = 200) -> Any:
        """Pay at the cashier."""
        session = order["checkout"]["url"].rsplit("/", 1)[1]
        return self.call("POST", f"/v1/sandbox/checkout/{session}/pay", status, json={})

    def paid(self, person: Person, order: dict[str, Any]) -> dict[str, Any]:
        """The order once it is paid."""
        path = f"/v1/orders/{order['id']}"

        def look() -> Any:
            found = self.call("GET", path, 200, headers=person.headers)
            return found if found["status"] == "paid" else None

        return dict(self.until("the order is paid", look))

    def statuses(self, person: Person) -> list[str]:
        """The states of somebody's coupons."""
        items = self.call("GET", "/v1/me/coupons", 200, headers=person.headers)["items"]
        return sorted(item["status"] for item in items)

    def until_all(self, people: Sequence[Person], status: str) -> None:
        """Wait until referrals has heard from billing that the coupon of each of them is in this state."""
        self.until(f"all are {status}", lambda: all(self.statuses(person) == [status] for person in people))


def outcomes(answers: Sequence[dict[str, Any]]) -> Counter[str]:
    return Counter(answer.get("code") or "placed" for answer in answers)


def test_a_voucher_for_three_is_spent_three_times_and_a_refusal_touches_no_money(heika: Heika) -> None:
    heika.start()
    kept = json.loads((heika.data / "secrets.json").read_text())
    with (
        closing(Shopper(heika.address, "admin@heika.local", kept["HEIKA_ADMIN_PASSWORD"])) as shop,
        ThreadPoolExecutor(8) as crowd,
    ):
        shop.log_in_as_admin()
        campaign = shop.campaign(code="THREE", total=3)
        people = [Person(f"p{number}") for number in range(5)]
        for person in people:
            shop.register(person)

        # Five want the three there are, each with two taps.
        answers = list(crowd.map(lambda person: shop.claim(person, "three"), people * 2))
        tokens = [answer["token"] for answer in answers if "token" in answer]
        holders = [person for person, answer in zip(people * 2, answers, strict=True) if "token" in answer]
        assert len({person.id for person in holders}) == len(tokens) == 3
        assert outcomes([one for one in answers if "token" not in one]).keys() <= {
            "coupon_exhausted",
            "coupon_already_claimed",
        }

        # Each holder tries theirs on all three plans at once: one order has it.
        tries = [(person, plan, token) for person, token in zip(holders, tokens, strict=True) for plan in PLANS]
        orders = list(crowd.map(lambda one: shop.place(*one), tries))
        assert outcomes(orders) == {"placed": 3, "coupon_reserved": 6}
        held = [(one[0], order) for one, order in zip(tries, orders, strict=True) if "checkout" in order]
        assert [person for person, _ in held] == holders
        shop.until_all(holders, "reserved")

        # A coupon of an order that was not paid is free again, for one order; the old session takes no money.
        first, order = held[0]
        shop.call("POST", f"/v1/orders/{order['id']}/cancel", 200, headers=first.headers)
        shop.until_all([first], "issued")
        again = shop.place(
            first, "black-card-12m" if order["plan_code"] != "black-card-12m" else "black-card-1m", tokens[0]
        )
        assert again["discount"] == 300, again
        shop.pay(order, 409)
        held[0] = (first, again)
        for person, order in held:
            shop.pay(order)
            assert shop.paid(person, order)["discount"] == 300
        shop.until_all(holders, "redeemed")

        # Spent ones are refused, by their owners and by others, and what others paid stays paid.
        for person, token in zip(holders, tokens, strict=True):
            assert {shop.place(person, plan, token)["code"] for plan in PLANS} == {"coupon_used"}
        stranger = next(person for person in people if person not in holders)
        assert [shop.place(stranger, PLANS[0], token)["code"] for token in tokens] == ["coupon_foreign"] * 3
        assert shop.place(stranger, PLANS[0], tokens[0][:-1])["code"] == "coupon_invalid"
        for person, order in held:
            found = shop.call("GET", f"/v1/orders/{order['id']}", 200, headers=person.headers)
            assert (found["status"], found["refunded_amount"]) == ("paid", 0)
        assert shop.call("GET", "/v1/admin/ledger/trial-balance", 200, headers=shop.admin)["balanced"] is True
        expected = {"total": 3, "claimed": 3, "issued": 0, "reserved": 0, "redeemed": 3, "expired": 0, "revoked": 0}
        assert shop.stats(campaign) == expected

        # All of the money back is the coupon back.
        person, order = held[0]
        key = {"Idempotency-Key": secrets.token_hex(16)}
        shop.call(
            "POST", f"/v1/orders/{order['id']}/refunds", 201, json={"reason": "不需要了"}, headers=person.headers | key
        )
        shop.until_all([person], "issued")
        assert shop.stats(campaign) == expected | {"issued": 1, "redeemed": 2}

        # Three for each member are three for each member.
        each = shop.campaign(code="THRICE", total=100, per_member=3)
        many = Person("many")
        shop.register(many)
        answers = list(crowd.map(lambda _: shop.claim(many, "THRICE"), range(5)))
        assert outcomes([one for one in answers if "token" not in one]) == {"coupon_already_claimed": 2}
        assert len({answer["token"] for answer in answers if "token" in answer}) == 3
        assert shop.stats(each)["claimed"] == 3
