"""Order events: each end is told once and ends the stream, reconnecting tells nothing twice."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from kit.ids import new_id
from tests.services.billing.till import Till


def follow(till: Till, member: UUID, order_id: str, **headers: str) -> "asyncio.Task[httpx.Response]":
    call = till.client.get(f"/v1/orders/{order_id}/events", headers=till.api.member(member) | headers)
    return asyncio.create_task(call)


async def heard(stream: "asyncio.Task[httpx.Response]") -> list[tuple[str, str]]:
    """The id and the order's status of each event, once the stream has ended."""
    answer = await asyncio.wait_for(stream, 15)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = []
    for frame in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if fields:
            assert fields["event"] == "status"
            told.append((fields["id"], json.loads(fields["data"])["status"]))
    return told


async def started(till: Till, member: UUID, **body: Any) -> tuple[dict[str, Any], "asyncio.Task[httpx.Response]"]:
    order = (await till.order(member, **body)).json()
    stream = follow(till, member, order["id"])
    await asyncio.sleep(0.2)
    return order, stream


async def test_a_payment_a_cancellation_and_an_expiry_each_end_the_stream(till: Till) -> None:
    member = new_id()
    order, stream = await started(till, member)
    await till.pay(order)
    assert await heard(stream) == [("pending", "pending"), ("paid", "paid")]
    order, stream = await started(till, member)
    await till.cancel(member, order["id"])
    assert await heard(stream) == [("pending", "pending"), ("canceled", "canceled")]
    order, stream = await started(till, member)
    till.api.clock.advance(timedelta(minutes=31))
    await till.api.run_due()
    assert await heard(stream) == [("pending", "pending"), ("expired", "expired")]


async def test_a_refund_under_way_is_waited_for_and_each_part_is_told(till: Till) -> None:
    member = new_id()
    order = await till.buy(member, payment_method="alipay")
    assert await heard(follow(till, member, order["id"])) == [("paid", "paid")]
    # A wallet gives the money back in its own time.
    assert (await till.refund(member, order["id"], amount=90)).json()["status"] == "pending"
    stream = follow(till, member, order["id"])
    await asyncio.sleep(0.2)
    till.api.clock.advance(timedelta(minutes=10))
    await till.api.run_due()
    assert await heard(stream) == [("paid", "paid"), ("partially_refunded-90", "partially_refunded")]
    assert (await till.refund(member, order["id"])).json()["status"] == "pending"
    stream = follow(till, member, order["id"], **{"Last-Event-ID": "partially_refunded-90"})
    await asyncio.sleep(0.2)
    till.api.clock.advance(timedelta(minutes=10))
    await till.api.run_due()
    assert await heard(stream) == [("refunded-1990", "refunded")]


async def test_reconnecting_tells_nothing_twice_and_stops_at_the_end(till: Till) -> None:
    member = new_id()
    order = (await till.order(member)).json()
    stream = follow(till, member, order["id"], **{"Last-Event-ID": "pending"})
    await asyncio.sleep(0.2)
    await till.pay(order)
    assert await heard(stream) == [("paid", "paid")]
    done = await follow(till, member, order["id"], **{"Last-Event-ID": "paid"})
    assert (done.status_code, done.content) == (204, b"")
    # Whoever missed the end while away hears it now, whatever they heard last.
    for last in ("pending", "nonsense"):
        assert await heard(follow(till, member, order["id"], **{"Last-Event-ID": last})) == [("paid", "paid")]
    refused = await follow(till, new_id(), order["id"], **{"Last-Event-ID": "paid"})
    assert (refused.status_code, refused.json()["code"]) == (404, "order_not_found")
    assert (await till.client.get(f"/v1/orders/{order['id']}/events")).status_code == 401
