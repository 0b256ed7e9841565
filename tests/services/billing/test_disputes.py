"""Disputes: told in any order and any number, they change an order, its time and the books once, and a win undoes them."""

import asyncio
from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import httpx
import pytest

from contracts.billing import OrderDisputed, OrderPaid, OrderRefunded, SubscriptionChanged
from contracts.notices import BillingNoticeWanted
from kit.events import Event
from kit.ids import new_id
from services.billing.disputes import take_in
from services.billing.provider_disputes import FoundDispute, FoundPayment
from tests.services.billing.till import Till

FEE = 1500


async def bank(till: Till, order: dict[str, Any], outcome: str) -> dict[str, Any]:
    """Let the payer's bank act, and its news arrive."""
    body = {"order_id": order["id"], "outcome": outcome}
    answer = await till.client.post("/v1/sandbox/disputes", json=body)
    assert answer.status_code == 200, answer.text
    await till.api.run_due()
    found: dict[str, Any] = answer.json()
    return found


async def bought(till: Till, **body: Any) -> tuple[UUID, dict[str, Any]]:
    """A paid order, and nothing told of it that is not known."""
    member = new_id()
    order = await till.buy(member, **body)
    await till.api.emitted()
    return member, order


def told(events: list[Event]) -> list[tuple[str, bool]]:
    """What was told of disputes, and nothing else was told."""
    steps: list[tuple[str, bool]] = []
    for event in events:
        assert isinstance(event, OrderDisputed), event
        steps.append((event.outcome, event.removes_time))
    return steps


async def shown(till: Till, **params: Any) -> list[dict[str, Any]]:
    """The disputes that an admin sees."""
    answer = await till.client.get("/v1/admin/disputes", params=params, headers=till.api.admin("orders:read"))
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_an_opened_dispute_revokes_and_a_won_one_restores(till: Till) -> None:
    member, order = await bought(till)

    opened = await bank(till, order, "opened")

    assert (await till.read(member, order["id"]))["status"] == "disputed"
    [event] = await till.api.emitted()
    assert isinstance(event, OrderDisputed)
    assert (str(event.order_id), event.member_id, event.kind) == (order["id"], member, "membership")
    assert (event.outcome, event.removes_time, event.amount, event.currency) == ("opened", True, 1990, "CNY")
    balance = await till.balanced()
    assert (balance["disputed"], balance["provider_fees"]) == (1990, FEE)
    assert (balance["provider_receivable"], balance["deferred_revenue"]) == (-FEE, -1990)
    [row] = await shown(till, status="open")
    assert (row["provider_ref"], row["order_id"], row["amount"], row["fee"]) == (opened["id"], order["id"], 1990, FEE)
    assert (row["provider_status"], row["decided_at"], row["note"]) == ("needs_response", None, "")

    till.api.clock.advance(timedelta(days=20))
    await till.api.run_due()
    await till.api.emitted()
    await bank(till, order, "won")

    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert told(await till.api.emitted()) == [("won", True)]
    balance = await till.balanced()
    assert (balance["disputed"], balance["provider_fees"], balance["provider_receivable"]) == (0, FEE, 1990 - FEE)
    [row] = await shown(till)
    assert (row["status"], row["provider_status"]) == ("won", "won")
    assert await till.api.run_due() == 0
    assert await till.api.emitted() == []


async def test_a_lost_dispute_takes_the_money_and_the_time_for_good(till: Till) -> None:
    member, order = await bought(till)
    await bank(till, order, "opened")
    await till.api.emitted()

    await bank(till, order, "lost")

    after = await till.read(member, order["id"])
    assert (after["status"], after["refunded_amount"]) == ("disputed", 0)
    assert told(await till.api.emitted()) == [("lost", True)]
    balance = await till.balanced()
    assert (balance["disputed"], balance["deferred_revenue"]) == (0, 0)
    assert (balance["provider_fees"], balance["provider_receivable"]) == (FEE, -FEE)
    till.api.clock.advance(timedelta(days=400))
    await till.api.run_due()
    assert await till.api.emitted() == []
    assert (await till.balanced()) == balance


async def test_a_dispute_first_heard_of_when_it_was_lost_is_told_whole(till: Till) -> None:
    member, order = await bought(till)

    await bank(till, order, "lost")

    assert (await till.read(member, order["id"]))["status"] == "disputed"
    assert told(await till.api.emitted()) == [("opened", True), ("lost", True)]


async def test_a_disputed_card_is_not_charged_again(till: Till) -> None:
    member, order = await bought(till, auto_renew=True)

    await bank(till, order, "opened")

    disputed, changed, notice = await till.api.emitted()
    assert told([disputed]) == [("opened", True)]
    assert isinstance(changed, SubscriptionChanged)
    assert (changed.status, changed.renewing) == ("none", False)
    assert isinstance(notice, BillingNoticeWanted)
    assert "争议" in notice.body_zh
    mine = await till.client.get("/v1/me/subscription", headers=till.api.member(member))
    assert mine.json()["status"] == "none"
    await bank(till, order, "won")
    till.api.clock.advance(timedelta(days=40))
    await till.api.run_due()
    assert told(await till.api.emitted()) == [("won", True)]
    assert await till.api.sql("SELECT count(*) FROM sandbox_charge") == [(1,)]


NEWS = ("created", "funds_withdrawn", "closed", "funds_reinstated")


@pytest.mark.parametrize("order_of_news", list(permutations(range(4)))[::5])
async def test_the_news_may_come_in_any_order_and_any_number_of_times(
    till: Till, order_of_news: tuple[int, ...]
) -> None:
    member, order = await bought(till)
    await till.lose_webhooks()
    made = await till.client.post("/v1/sandbox/disputes", json={"order_id": order["id"], "outcome": "opened"})
    subject = {"id": made.json()["id"], "object": "dispute", "status": "needs_response"}
    await till.tell("charge.dispute.created", subject)
    assert told(await till.api.emitted()) == [("opened", True)]
    await till.client.post("/v1/sandbox/disputes", json={"order_id": order["id"], "outcome": "won"})

    for number in (*order_of_news, *order_of_news):
        await till.tell(f"charge.dispute.{NEWS[number]}", subject)

    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert told(await till.api.emitted()) == [("won", True)]
    entries = await till.api.sql("SELECT kind, count(*) FROM ledger_entry WHERE kind LIKE 'dispute%' GROUP BY kind")
    assert dict(entries) == {"dispute": 1, "dispute_fee": 1, "dispute_won": 1}
    await till.balanced()


async def test_an_answer_that_came_late_does_not_open_a_decided_dispute_again(till: Till) -> None:
    member, order = await bought(till)
    made = await bank(till, order, "won")
    await till.api.emitted()
    found = FoundDispute(
        ref=made["id"],
        payment=FoundPayment(made["payment_intent"], UUID(order["id"]), 1990, "CNY"),
        standing="open",
        status="needs_response",
        reason="general",
        amount=1990,
        currency="CNY",
        withdrawn=True,
        fee=FEE,
        fee_currency="CNY",
    )

    async with till.api.rt.db.session() as session, session.begin():
        assert await take_in(session, till.api.rt.settings, found) == "won"

    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert await till.api.emitted() == []


async def test_many_handlers_at_once_dispute_an_order_once(till: Till) -> None:
    _, order = await bought(till)
    await till.lose_webhooks()
    body = {"order_id": order["id"], "outcome": "opened"}
    subject = {"id": (await till.client.post("/v1/sandbox/disputes", json=body)).json()["id"]}

    await asyncio.gather(*(till.tell("charge.dispute.created", subject) for _ in range(8)))

    assert told(await till.api.emitted()) == [("opened", True)]
    assert (await till.balanced())["disputed"] == 1990


async def test_a_dispute_that_outran_the_news_of_its_payment_brings_both(till: Till) -> None:
    member = new_id()
    placed = (await till.order(member)).json()
    await till.lose_webhooks()
    await till.pay(placed)
    await till.api.emitted()
    body = {"order_id": placed["id"], "outcome": "opened"}
    subject = {"id": (await till.client.post("/v1/sandbox/disputes", json=body)).json()["id"]}

    await till.tell("charge.dispute.created", subject)

    paid, disputed = await till.api.emitted()
    assert isinstance(paid, OrderPaid)
    assert told([disputed]) == [("opened", True)]
    assert (await till.read(member, placed["id"]))["status"] == "disputed"


async def test_a_dispute_whose_news_are_lost_is_asked_for(till: Till) -> None:
    member, order = await bought(till)
    await bank(till, order, "opened")
    await till.api.emitted()
    await till.lose_webhooks()
    await till.client.post("/v1/sandbox/disputes", json={"order_id": order["id"], "outcome": "won"})
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["status"] == "disputed"

    till.api.clock.advance(timedelta(hours=23))
    await till.api.run_due()

    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert told(await till.api.emitted()) == [("won", True)]


async def test_a_provider_that_is_away_delays_a_dispute_and_loses_none(till: Till) -> None:
    member, order = await bought(till)
    await till.break_calls("error", match="/v1/disputes")
    await bank(till, order, "opened")
    assert (await till.read(member, order["id"]))["status"] == "paid"

    await till.break_calls("error", times=0)
    for _ in range(8):
        till.api.clock.advance(timedelta(minutes=10))
        await till.api.run_due()

    assert (await till.read(member, order["id"]))["status"] == "disputed"
    assert told(await till.api.emitted()) == [("opened", True)]


@pytest.mark.parametrize(
    ("target", "kind"),
    [("deliveries", kind) for kind in ("duplicate", "reorder", "delay", "error", "drop")]
    + [("calls", kind) for kind in ("delay", "hang", "error", "drop")],
)
async def test_whatever_happens_to_news_and_questions_ends_the_same(till: Till, target: str, kind: str) -> None:
    member, order = await bought(till)
    match = "charge.dispute" if target == "deliveries" else "/v1/disputes"
    fault = {"target": target, "kind": kind, "times": 3, "seconds": 0.2, "match": match}
    await till.client.put("/v1/sandbox/faults", json={"faults": [fault]})

    await bank(till, order, "opened")
    await bank(till, order, "won")
    for _ in range(3):
        till.api.clock.advance(timedelta(minutes=30))
        await till.api.run_due()

    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert told(await till.api.emitted()) == [("opened", True), ("won", True)]
    entries = await till.api.sql("SELECT kind, count(*) FROM ledger_entry WHERE kind LIKE 'dispute%' GROUP BY kind")
    assert dict(entries) == {"dispute": 1, "dispute_fee": 1, "dispute_won": 1}
    assert (await till.balanced())["disputed"] == 0
    assert await till.api.run_due() == 0


async def test_a_disputed_gift_waits_and_is_the_time_of_whoever_redeemed_it(till: Till) -> None:
    _, order = await bought(till, gift=True)
    holder = new_id()

    async def redeem() -> httpx.Response:
        body = {"code": order["gift_code"]}
        return await till.client.post("/v1/redemptions", json=body, headers=till.api.member(holder))

    await bank(till, order, "opened")
    refused = await redeem()
    assert (refused.status_code, refused.json()["code"]) == (409, "code_void")
    await bank(till, order, "won")
    assert (await redeem()).status_code == 201
    other = await bought(till, gift=True)
    await till.api.emitted()

    body = {"code": other[1]["gift_code"]}
    assert (await till.client.post("/v1/redemptions", json=body, headers=till.api.member(holder))).status_code == 201
    await till.api.emitted()
    await bank(till, other[1], "lost")

    opened, lost = await till.api.emitted()
    assert isinstance(opened, OrderDisputed)
    assert isinstance(lost, OrderDisputed)
    assert (lost.kind, lost.member_id, lost.beneficiary_id) == ("gift", other[0], holder)


async def test_a_disputed_order_is_not_refunded_and_a_won_one_is(till: Till) -> None:
    member, order = await bought(till)
    await bank(till, order, "opened")

    refused = [await till.refund(member, order["id"]), await till.admin_refund(order["id"])]

    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(409, "order_in_dispute")] * 2
    assert await till.api.sql("SELECT count(*) FROM refund") == [(0,)]
    path = f"/v1/orders/{order['id']}/refund-preview"
    assert (await till.client.post(path, headers=till.api.member(member))).json()["refundable"] == 0
    await bank(till, order, "won")
    await till.api.emitted()
    assert (await till.refund(member, order["id"])).status_code == 201
    assert [type(event) for event in await till.api.emitted()] == [OrderRefunded]
    assert (await till.balanced())["provider_receivable"] == -FEE


async def test_what_was_left_of_a_refunded_order_is_disputed_and_won_back(till: Till) -> None:
    member, order = await bought(till)
    await till.refund(member, order["id"], amount=990)
    await till.api.emitted()

    await bank(till, order, "opened")
    assert (await till.balanced())["disputed"] == 1000
    await bank(till, order, "won")

    after = await till.read(member, order["id"])
    assert (after["status"], after["refunded_amount"]) == ("partially_refunded", 990)
    assert told(await till.api.emitted()) == [("opened", True), ("won", True)]
    assert (await till.balanced())["disputed"] == 0


async def test_a_dispute_of_another_amount_is_booked_and_waits_for_a_person(till: Till) -> None:
    member, order = await bought(till)
    await till.lose_webhooks()
    body = {"order_id": order["id"], "outcome": "opened"}
    subject = {"id": (await till.client.post("/v1/sandbox/disputes", json=body)).json()["id"]}
    await till.api.sql("UPDATE sandbox_dispute SET amount = 2500")

    await till.tell("charge.dispute.created", subject)

    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert await till.api.emitted() == []
    [row] = await shown(till, status="parked")
    assert row["note"] == "2500 CNY are asked for where 1990 CNY are left"
    assert (await till.balanced())["disputed"] == 2500


async def test_a_dispute_of_a_second_payment_leaves_the_order_alone(till: Till) -> None:
    member = new_id()
    placed = (await till.order(member)).json()
    await till.pay(placed, duplicate=True)
    await till.api.emitted()
    [(surplus,)] = await till.api.sql("SELECT provider_ref FROM payment WHERE status = 'surplus'")
    await till.api.sql(
        "INSERT INTO sandbox_dispute (id, charge_id, intent_id, status, currency, amount, fee, created_at) "
        "SELECT 'du_other', latest_charge_id, id, 'needs_response', currency, amount, 0, created_at "
        "FROM sandbox_intent WHERE id = :id",
        id=surplus,
    )

    await till.tell("charge.dispute.created", {"id": "du_other"})

    assert (await till.read(member, placed["id"]))["status"] == "paid"
    assert await till.api.emitted() == []
    [row] = await shown(till, order_id=placed["id"])
    assert (row["status"], row["note"]) == ("parked", "of a payment that is surplus and bought nothing")


async def test_a_dispute_of_a_strangers_payment_is_kept_for_a_person(till: Till) -> None:
    await till.api.sql(
        "INSERT INTO sandbox_intent (id, status, currency, amount, amount_received, payment_method_types, metadata, "
        "created_at) VALUES ('pi_x', 'succeeded', 'cny', 5, 5, '[\"card\"]', '{}', now())"
    )
    await till.api.sql(
        "INSERT INTO sandbox_charge (id, intent_id, status, currency, amount, amount_refunded, method, fingerprint, "
        "metadata, disputed, created_at) "
        "VALUES ('ch_x', 'pi_x', 'succeeded', 'cny', 5, 0, 'card', 'x', '{}', true, now())"
    )
    await till.api.sql(
        "INSERT INTO sandbox_dispute (id, charge_id, intent_id, status, currency, amount, fee, created_at) "
        "VALUES ('du_x', 'ch_x', 'pi_x', 'needs_response', 'cny', 5, 0, now())"
    )

    await till.tell("charge.dispute.created", {"id": "du_x"})
    await till.tell("charge.dispute.created", {"id": "du_unheard_of"})

    [row] = await shown(till)
    assert (row["status"], row["order_id"], row["note"]) == (
        "parked", None, "of a payment that billing does not know"
    )  # fmt: skip
    assert await till.api.emitted() == []
    assert await till.balanced() == {}


@pytest.mark.parametrize("ref", [None, "", "x" * 256, "è", 7, {"id": "x"}])
async def test_news_of_no_dispute_are_ignored(till: Till, ref: object) -> None:
    assert (await till.tell("charge.dispute.created", {"id": ref})).status_code == 200

    [(outcome,)] = await till.api.sql("SELECT outcome FROM provider_event")
    assert outcome == "malformed"
    assert await shown(till) == []


async def test_an_inquiry_takes_nothing_and_may_become_a_dispute(till: Till) -> None:
    member, order = await bought(till)
    await till.lose_webhooks()
    body = {"order_id": order["id"], "outcome": "opened"}
    subject = {"id": (await till.client.post("/v1/sandbox/disputes", json=body)).json()["id"]}
    await till.api.sql("UPDATE sandbox_dispute SET status = 'warning_needs_response', fee = 0, amount = 0")
    await till.tell("charge.dispute.created", subject)
    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert [row["status"] for row in await shown(till)] == ["inquiry"]
    assert await till.api.emitted() == []

    await till.api.sql("UPDATE sandbox_dispute SET status = 'under_review', fee = 1500, amount = 1990")
    await till.tell("charge.dispute.updated", subject)

    assert told(await till.api.emitted()) == [("opened", True)]
    assert (await till.balanced())["disputed"] == 1990


@pytest.mark.parametrize(("policy", "steps"), [
    ("opened", [("opened", True), ("lost", True)]),
    ("lost", [("opened", False), ("lost", True)]),
    ("never", [("opened", False), ("lost", False)]),
])  # fmt: skip
async def test_the_policy_says_when_time_is_taken(till: Till, policy: str, steps: list[tuple[str, bool]]) -> None:
    till.api.rt.settings.dispute_policy = policy
    _, order = await bought(till)
    await bank(till, order, "opened")

    await bank(till, order, "lost")

    assert told(await till.api.emitted()) == steps


async def test_a_decision_that_is_changed_waits_for_a_person(till: Till) -> None:
    member, order = await bought(till)
    made = await bank(till, order, "lost")
    await till.api.emitted()
    balance = await till.balanced()
    await till.api.sql("UPDATE sandbox_dispute SET status = 'won', closed_at = created_at")

    for _ in range(2):
        await till.tell("charge.dispute.closed", {"id": made["id"]})

    [row] = await shown(till)
    assert (row["status"], row["note"]) == ("parked", "decided as lost, and now won")
    assert (await till.read(member, order["id"]))["status"] == "disputed"
    assert await till.api.emitted() == []
    assert await till.balanced() == balance


async def test_only_admins_who_may_read_orders_see_disputes(till: Till) -> None:
    _, order = await bought(till)
    await bank(till, order, "opened")
    [row] = await shown(till)

    for path in ("/v1/admin/disputes", f"/v1/admin/disputes/{row['id']}"):
        assert (await till.client.get(path)).status_code == 401
        assert (await till.client.get(path, headers=till.api.member())).status_code == 403
        assert (await till.client.get(path, headers=till.api.admin("courses:write"))).status_code == 403

    reader = till.api.admin("orders:read")
    assert (await till.client.get(f"/v1/admin/disputes/{row['id']}", headers=reader)).json() == row
    unknown = await till.client.get(f"/v1/admin/disputes/{new_id()}", headers=reader)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "dispute_not_found")
    assert (await till.client.get("/v1/admin/disputes?status=odd", headers=reader)).status_code == 422
    assert await shown(till, status="won") == []
