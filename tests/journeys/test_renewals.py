"""A card that renews by itself: charged month after month, behind and caught up within grace, and lapsed in the end."""

from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.journeys.subscriber import subscriber_of
from tests.onebox.conftest import Heika

DAY = timedelta(days=1)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.timeout(240)
def test_a_card_renews_falls_behind_catches_up_and_lapses(heika: Heika) -> None:
    heika.start()
    with closing(subscriber_of(heika)) as journey:
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
