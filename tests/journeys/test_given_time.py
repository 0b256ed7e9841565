"""Time that others give or take: a gift redeemed, a bank that asks the money back, a refund behind the friend's back."""

import secrets
from contextlib import closing
from typing import Any

import pytest

from tests.journeys.subscriber import Subscriber, subscriber_of
from tests.onebox.conftest import Heika


def bank_says(journey: Subscriber, order: dict[str, Any], outcome: str) -> None:
    body = {"order_id": order["id"], "outcome": outcome}
    answer = journey.http.post("/v1/sandbox/disputes", json=body)
    assert answer.is_success, answer.text


@pytest.mark.timeout(240)
def test_disputed_and_given_time_goes_and_comes_with_its_money(heika: Heika) -> None:
    heika.start()
    with closing(subscriber_of(heika)) as journey:
        journey.register(journey.newcomer)
        journey.register(journey.friend)

        # A dispute closes the lessons, and a won one leaves everything as it was.
        order = journey.buy()
        journey.until("the lesson opens", journey.plays)
        before = journey.membership()
        bank_says(journey, order, "opened")
        journey.until("the lesson closes", lambda: not journey.plays())
        assert journey.membership()["status"] == "expired"
        assert [piece["state"] for piece in journey.pieces()] == ["revoked"]
        assert journey.order_now(order)["status"] == "disputed"
        bank_says(journey, order, "won")
        journey.until("the lesson opens again", journey.plays)
        assert journey.membership() == before
        journey.until("the order is paid again", lambda: journey.order_now(order)["status"] == "paid")

        # The friend's time is where the answer said, and begins when it was redeemed.
        gift = journey.buy(gift=True)
        assert len(journey.pieces()) == 1
        answer = journey.call(
            "POST", "/v1/redemptions", 201, json={"code": gift["gift_code"]}, headers=journey.friend.headers
        )
        [piece] = journey.until("the friend's time is there", lambda: journey.pieces(journey.friend))
        assert {name: answer["segment"][name] for name in piece} == piece
        assert (piece["source"], piece["source_id"], piece["state"]) == ("gift", gift["id"], "active")

        # The buyer's money goes back, and the friend's time with it, not the buyer's own.
        key = {"Idempotency-Key": secrets.token_hex(16)}
        path = f"/v1/orders/{gift['id']}/refunds"
        journey.call("POST", path, 201, json={"reason": "x"}, headers=journey.newcomer.headers | key)
        journey.until("the gift is taken back", lambda: journey.pieces(journey.friend)[0]["state"] == "revoked")
        assert journey.membership() == before

        # A lost dispute is for good.
        bank_says(journey, journey.buy(), "lost")
        journey.until("what was disputed is gone", lambda: [p["state"] for p in journey.pieces()][1:] == ["revoked"])
        assert journey.membership() == before
