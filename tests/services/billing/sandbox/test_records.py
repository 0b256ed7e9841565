"""What the provider lists: pages, filters, customers, events."""

from typing import Any

import pytest
import stripe

from tests.services.billing.sandbox.conftest import Sandbox


async def test_lists_are_paged_and_filtered(sandbox: Sandbox) -> None:
    keys = [(await sandbox.open(client_reference_id=str(number))).id for number in range(5)]
    sessions = sandbox.v1.checkout.sessions
    await sandbox.press(keys[0])
    paid = await sessions.retrieve_async(keys[0])

    page = await sessions.list_async({"limit": 2})
    assert ([item.id for item in page.data], page.has_more) == ([keys[4], keys[3]], True)
    walked = [item.id async for item in page.auto_paging_iter()]
    assert walked == keys[::-1]
    back = await sessions.list_async({"limit": 2, "ending_before": keys[1]})
    assert ([item.id for item in back.data], back.has_more) == ([keys[3], keys[2]], True)
    assert [item.id for item in (await sessions.list_async({"status": "complete"})).data] == [keys[0]]
    assert [item.id for item in (await sessions.list_async({"status": "open"})).data] == keys[:0:-1]
    assert (await sessions.list_async({"status": "expired"})).data == []
    found = await sessions.list_async({"payment_intent": str(paid.payment_intent), "expand": ["data.payment_intent"]})
    intent: Any = found.data[0].payment_intent
    assert (len(found.data), intent.amount_received) == (1, 4400)
    assert len((await sessions.list_async({"created": {"gte": paid.created, "lte": paid.created + 60}})).data) == 5
    assert (await sessions.list_async({"created": {"lt": paid.created}})).data == []
    assert (await sessions.list_async({"created": {"gt": paid.created + 60}})).data == []
    for wrong in ({"limit": 0}, {"limit": 101}, {"starting_after": "cs_none"}, {"created": {"gte": 10**14}}):
        with pytest.raises(stripe.InvalidRequestError):
            await sessions.list_async(wrong)  # type: ignore[arg-type]


async def test_customers_are_remembered(sandbox: Sandbox) -> None:
    made = await sandbox.v1.customers.create_async({"email": "a@heika.test", "metadata": {"member_id": "m"}})

    opened = await sandbox.open(customer=made.id, expand=["customer"])

    customer: Any = opened.customer
    assert (customer.id, customer.email, customer.metadata["member_id"]) == (made.id, "a@heika.test", "m")
    assert [each.id for each in (await sandbox.v1.customers.list_async({"email": "a@heika.test"})).data] == [made.id]
    assert (await sandbox.v1.checkout.sessions.list_async({"customer": made.id})).data[0].id == opened.id


async def test_events_are_listed_by_type(sandbox: Sandbox) -> None:
    await sandbox.paid()

    listed = (await sandbox.v1.events.list_async()).data

    assert [event.type for event in listed] == ["checkout.session.completed", "payment_intent.succeeded"]
    assert (listed[0].api_version, listed[0].livemode) == (stripe.api_version, False)
    assert (await sandbox.v1.events.retrieve_async(listed[0].id)).to_dict() == listed[0].to_dict()
    only = await sandbox.v1.events.list_async({"types": ["payment_intent.succeeded", "charge.refunded"]})
    assert [event.id for event in only.data] == [listed[1].id]
    assert [e.id for e in (await sandbox.v1.events.list_async({"type": "checkout.session.completed"})).data] == [
        listed[0].id
    ]
