"""A paid course: refused, bought while a page listens, watched, invoiced and given back, through the gateway."""

import secrets
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.journeys.first_light import Journey
from tests.journeys.test_first_light import journey_of
from tests.onebox.conftest import Heika

COURSE = {"title": "千层酥皮全解", "category": "bread", "level": "advanced", "access": "paid", "amount": 9900}


class Listener:
    """A page that follows an order: what its stream tells, until it ends."""

    def __init__(self, address: str, path: str, headers: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.opened = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(address + path, headers), daemon=True)
        self._thread.start()
        assert self.opened.wait(20)

    def _listen(self, url: str, headers: dict[str, str]) -> None:
        with httpx.Client(timeout=60) as client, client.stream("GET", url, headers=headers) as answer:
            for line in answer.iter_lines():
                self.lines.append(line)
                self.opened.set()
        self.opened.set()

    def ids(self) -> list[str]:
        """The events' ids, once the stream has ended."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return [line.removeprefix("id: ") for line in self.lines if line.startswith("id: ")]


def admin_publishes(journey: Journey) -> tuple[str, str]:
    """A paid course with a lesson; its id and the lesson's."""
    form = {"grant_type": "password", "username": journey.email, "password": journey.password}
    token = journey.call("POST", "/v1/auth/token", 200, data=form)["access_token"]
    journey.admin = {"Authorization": f"Bearer {token}"}
    body = COURSE | {"published": True}
    course = journey.call("POST", "/v1/admin/courses", 201, json=body, headers=journey.admin)["id"]
    lesson = {"title": "开酥", "description": "", "duration_s": 300}
    path = f"/v1/admin/courses/{course}/lessons"
    return course, journey.call("POST", path, 201, json=lesson, headers=journey.admin)["id"]


@pytest.mark.timeout(240)
def test_a_course_is_bought_watched_and_given_back(heika: Heika) -> None:
    heika.start()
    with closing(journey_of(heika)) as journey:
        person = journey.newcomer
        course, lesson = admin_publishes(journey)
        journey.register(person)
        mine: dict[str, Any] = {"headers": person.headers}

        def status_of(path: str) -> Callable[[], int]:
            return lambda: journey.http.get(path, headers=person.headers).status_code

        refusal = journey.call("GET", f"/v1/lessons/{lesson}", 403, **mine)
        assert (refusal["code"], refusal["action"]) == ("purchase_required", "buy_course")
        wanted = {"course_id": course}
        journey.until(
            "billing knows the course",
            lambda: journey.http.post("/v1/orders/preview", json=wanted, **mine).status_code == 200,
        )
        key = {"Idempotency-Key": secrets.token_hex(16)}
        body = wanted | {"payment_method": "card"}
        order = journey.call("POST", "/v1/orders", 201, json=body, headers=person.headers | key)
        assert (order["total"], order["course_id"], order["plan_code"]) == (9900, course, None)
        path = f"/v1/orders/{order['id']}"
        page = Listener(heika.address, f"{path}/events", person.headers)
        journey._pay(order)
        assert page.ids() == ["pending", "paid"]
        seen = {"Last-Event-ID": "paid"}
        assert journey.http.get(f"{path}/events", headers=person.headers | seen).status_code == 204

        journey.until("the lesson opens", lambda: status_of(f"/v1/lessons/{lesson}")() == 200)
        playback = journey.call("GET", f"/v1/lessons/{lesson}", 200, **mine)["playback"]
        part = journey.http.get(playback["url"], headers={"Range": "bytes=0-99"})
        assert (part.status_code, len(part.content)) == (206, 100)
        assert journey.call("GET", f"/v1/courses/{course}", 200, **mine)["bought"] is True
        assert journey.call("GET", f"/v1/courses/{course}", 200)["bought"] is None
        again = journey.http.post("/v1/orders", json=body, headers=person.headers | {"Idempotency-Key": "again"})
        assert (again.status_code, again.json()["code"]) == (409, "course_already_bought")
        receipt = journey.http.get(f"{path}/receipt.pdf", **mine)
        assert (receipt.status_code, receipt.content[:5]) == (200, b"%PDF-")

        invoice = {"title": "福州烘焙有限公司", "tax_id": "91350100M000100Y43", "email": "finance@example.com"}
        asked = journey.call("POST", f"{path}/invoice-requests", 201, json=invoice, **mine)
        resolution = {"decision": "issue", "number": "25312000000012345678"}
        admin_path = f"/v1/admin/invoice-requests/{asked['id']}/resolution"
        journey.call("POST", admin_path, 200, json=resolution, headers=journey.admin)

        key = {"Idempotency-Key": secrets.token_hex(16)}
        refund = journey.call("POST", f"{path}/refunds", 201, json={"reason": "买错了"}, headers=person.headers | key)
        assert (refund["amount"], refund["status"]) == (9900, "succeeded")
        page = Listener(heika.address, f"{path}/events", person.headers)
        assert page.ids() == ["refunded-9900"]
        journey.until("the lesson closes", lambda: status_of(f"/v1/lessons/{lesson}")() == 403)
        assert journey.call("GET", f"/v1/courses/{course}", 200, **mine)["bought"] is False
        [flagged] = journey.call("GET", f"{path}/invoice-requests", 200, **mine)["items"]
        assert flagged["needs_red_letter"] is True
