"""A live lesson: opened by points and by an invited newcomer, entered, followed over a broken connection, attended."""

import contextlib
import threading
from contextlib import closing
from datetime import timedelta
from typing import Any

import httpx
import pytest

from kit.text import instant
from tests.journeys.first_light import Journey
from tests.journeys.test_first_light import journey_of
from tests.onebox.conftest import Heika


class Page:
    """A page that follows a lesson until it goes away."""

    def __init__(self, address: str, lesson_id: str, headers: dict[str, str]) -> None:
        self.news: list[tuple[str, str, str]] = []
        self.gone = False
        url = f"{address}/v1/live-lessons/{lesson_id}/events"
        self._thread = threading.Thread(target=self._follow, args=(url, headers), daemon=True)
        self._thread.start()

    def _follow(self, url: str, headers: dict[str, str]) -> None:
        event: dict[str, str] = {}
        # Heika is stopped while the page still listens.
        stopped = contextlib.suppress(httpx.TransportError)
        with stopped, httpx.Client(timeout=60) as client, client.stream("GET", url, headers=headers) as answer:
            for line in answer.iter_lines():
                if line and not line.startswith(":"):
                    name, value = line.split(": ", 1)
                    event[name] = value
                elif event:
                    self.news.append((event["id"], event["event"], event["data"]))
                    event = {}
                if self.gone:
                    return

    def has(self, kind: str, words: str) -> list[str]:
        """The ids of what it heard of this kind with these words in it."""
        return [number for number, event, data in self.news if event == kind and words in data]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shape", [(), ("--split",)], ids=["one process", "a process for each service"])
def test_a_room_is_opened_entered_followed_and_attended(heika: Heika, shape: tuple[str, ...]) -> None:
    heika.start(*shape)
    with closing(journey_of(heika)) as journey:
        form = {"grant_type": "password", "username": journey.email, "password": journey.password}
        token = journey.call("POST", "/v1/auth/token", 200, data=form)["access_token"]
        admin = {"headers": {"Authorization": f"Bearer {token}"}}
        lesson_id = planned(journey, admin)
        room, host, guest = f"/v1/live-lessons/{lesson_id}", journey.inviter, journey.newcomer
        journey.register(host)
        mine: dict[str, Any] = {"headers": host.headers}

        refusal = journey.call("POST", f"{room}/entry", 403, **mine)
        assert refusal["code"] == "access_required"
        assert {way["kind"] for way in refusal["options"]} == {"membership", "points", "invites", "purchase"}
        link = journey.call("POST", f"{room}/invite-links", 201, **mine)
        journey.register(guest)
        arrived = journey.call("POST", "/v1/arrivals", 201, json={"token": link["token"]}, headers=guest.headers)
        assert arrived == {"live_lesson_id": lesson_id, "counted": True}
        assert journey.call("GET", f"{room}/access", 200, **mine)["by"] == "invites"

        theirs: dict[str, Any] = {"headers": guest.headers}
        payment = f"{room}/points-payment"
        journey.call("POST", payment, 202, **theirs)
        journey.until("refused", lambda: journey.call("GET", payment, 200, **theirs)["status"] == "refused")
        journey.call("POST", "/v1/me/check-ins", 201, **theirs)
        journey.call("POST", payment, 202, **theirs)
        journey.until("paid", lambda: journey.call("GET", payment, 200, **theirs)["status"] == "paid")
        assert journey.call("GET", "/v1/me/points", 200, **theirs)["balance"] == 0

        page = Page(heika.address, lesson_id, guest.headers)
        journey.until("the status", lambda: page.has("status", "scheduled"))
        journey.call("POST", f"/v1/admin{room.removeprefix('/v1')}/transitions", 200, json={"to": "live"}, **admin)
        first = journey.call("POST", f"{room}/questions", 201, json={"text": "几度烤？"}, **theirs)
        [last] = journey.until("the question", lambda: page.has("question", "几度烤"))
        page.gone = True
        journey.call("PUT", f"/v1/questions/{first['id']}/upvote", 200, **mine)
        journey.call("POST", f"/v1/questions/{first['id']}/answers", 201, json={"text": "二百一十度"}, **mine)
        back = Page(heika.address, lesson_id, guest.headers | {"Last-Event-ID": last})
        journey.until("what was missed", lambda: back.has("answer", "二百一十度"))
        assert [event for _, event, _ in back.news if event != "online"] == ["question", "answer"]
        assert [number for number, event, _ in back.news if event != "online"] == [
            str(int(last) + 1),
            str(int(last) + 2),
        ]
        journey.until(
            "the names", lambda: journey.call("GET", f"{room}/questions", 200)["items"][0]["asked_by"]["nickname"]
        )

        entered = journey.call("POST", f"{room}/entry", 200, **theirs)
        seen = journey.http.get(entered["room_url"], params={"token": entered["room_token"]})
        assert (seen.status_code, seen.json()["identity"]) == (200, guest.id)
        now = journey.now()
        beat = {"from": instant(now - timedelta(minutes=30)), "to": instant(now)}
        assert journey.call("POST", f"{room}/heartbeats", 200, json=beat, **theirs) == {
            "attended_s": 0,
            "present": False,
        }
        sheet = journey.call("GET", f"/v1/admin/live-lessons/{lesson_id}/attendance.csv", 200, **admin)
        assert sheet.text.splitlines()[1].startswith(guest.id)
        back.gone = True
        a_canceled_lesson_is_given_back(journey, admin)


def a_canceled_lesson_is_given_back(journey: Journey, admin: dict[str, Any]) -> None:
    """Bought, opened by it, canceled: the money comes back, and the buyer is told."""
    lesson_id, buyer = planned(journey, admin), journey.newcomer
    room, theirs = f"/v1/live-lessons/{lesson_id}", {"headers": buyer.headers}
    wanted = {"course_id": lesson_id, "payment_method": "card"}

    def ordered() -> httpx.Response | None:
        key = {"Idempotency-Key": f"lesson {lesson_id} {journey.now()}"}
        answer = journey.http.post("/v1/orders", json=wanted, headers=buyer.headers | key)
        return answer if answer.status_code == 201 else None

    # Billing hears of what is for sale.
    order = journey.until("the lesson is for sale", ordered).json()
    cashier = "/v1/" + order["checkout"]["url"].partition("/v1/")[2]
    journey.call("POST", f"{cashier}/pay", 200, json={})
    journey.until("the way in", lambda: journey.call("GET", f"{room}/access", 200, **theirs)["by"] == "purchase")
    transitions = f"/v1/admin/live-lessons/{lesson_id}/transitions"
    journey.call("POST", transitions, 200, json={"to": "canceled"}, **admin)

    def refunded() -> bool:
        return bool(journey.call("GET", f"/v1/orders/{order['id']}", 200, **theirs)["status"] == "refunded")

    journey.until("the money is back", refunded)
    journey.until("closed", lambda: not journey.call("GET", f"{room}/access", 200, **theirs)["granted"])
    sent = journey.call("GET", "/v1/sandbox/notices", 200, params={"member_id": buyer.id})["items"]
    assert [notice["kind"] for notice in sent].count("lesson_canceled") == 1


def planned(journey: Journey, admin: dict[str, Any]) -> str:
    """A lesson that starts in ten minutes."""
    start = journey.now() + timedelta(minutes=10)
    ways = [
        {"kind": "membership"},
        {"kind": "points", "needed": 1},
        {"kind": "invites", "needed": 1},
        {"kind": "purchase"},
    ]
    body = {"title": "夜场", "instructor": "周砚", "access": ways}
    body |= {"starts_at": instant(start), "ends_at": instant(start + timedelta(hours=1))}
    lesson_id = str(journey.call("POST", "/v1/admin/live-lessons", 201, json=body, **admin)["id"])
    path = f"/v1/admin/live-lessons/{lesson_id}/transitions"
    journey.call("POST", path, 200, json={"to": "scheduled"}, **admin)
    return lesson_id
