"""Reconciliation: what provider, orders and ledger do not agree on is found, named, and repaired as a notice would have."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from contracts.billing import OrderPaid, OrderRefunded
from kit import clock
from kit.ids import new_id
from services.billing.provider import provider_of
from tests.services.billing.till import Till

ZONE = ZoneInfo("Asia/Shanghai")
NOON = datetime(2031, 5, 20, 12, tzinfo=ZONE)
PATH = "/v1/admin/reconciliations"


@pytest.fixture
def at_noon(till: Till) -> Till:
    """The same service at noon, so that no test sees the day change."""
    till.api.clock.set(NOON)
    return till


async def reconciled(till: Till, status: str = "done") -> dict[str, Any]:
    """What a run over today finds."""
    headers = till.api.admin("orders:write")
    answer = await till.client.post(PATH, json={"day": clock.today().isoformat()}, headers=headers)
    assert answer.status_code == 201, answer.text
    run: dict[str, Any] = answer.json()
    assert (run["status"], run["day"], run["automatic"]) == (status, clock.today().isoformat(), False)
    return run


async def differences(till: Till) -> list[tuple[Any, ...]]:
    """What differs today: kind, repair, expected and found."""
    return [_brief(found) for found in (await reconciled(till))["differences"]]


def _brief(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["kind"], found["repair"], found["expected"], found["found"]


async def repaired(till: Till, run: dict[str, Any], place: int = 0, **decision: str) -> Any:
    """The answer to the repair of one of a run's differences."""
    path = f"{PATH}/{run['id']}/differences/{run['differences'][place]['id']}/repair"
    return await till.client.post(path, json=decision or None, headers=till.api.admin("orders:write"))


async def test_a_day_on_which_all_agree_has_no_differences(at_noon: Till) -> None:
    till, member = at_noon, new_id()
    order = await till.buy(member)
    await till.buy(new_id(), payment_method="alipay", coupon_token=None)
    assert (await till.refund(member, order["id"])).status_code == 201
    twice = (await till.order(new_id())).json()
    await till.pay(twice, duplicate=True)
    await till.api.run_due()
    run = await reconciled(till)
    assert run["differences"] == []
    assert run["progress"] == {"payments": 4, "refunds": 2}
    admin = till.api.admin("orders:read")
    assert (await till.client.get(f"{PATH}/{run['id']}", headers=admin)).json() == run
    listed = await till.client.get(PATH, params={"day": run["day"]}, headers=admin)
    assert listed.json() == {"items": [run], "next_cursor": None}
    assert [act.action for act in await till.api.acted()] == ["reconciliation.started"]


async def test_a_payment_whose_notice_was_lost_is_taken_in(at_noon: Till) -> None:
    till, member = at_noon, new_id()
    order = (await till.order(member)).json()
    await till.lose_webhooks()
    await till.pay(order)
    assert (await till.read(member, order["id"]))["status"] == "pending"
    run = await reconciled(till)
    (found,) = run["differences"]
    assert (found["kind"], found["repair"], found["order_id"]) == ("missing_payment", "settle", order["id"])
    assert (found["expected"], found["found"], found["currency"]) == (1990, None, "CNY")
    await till.api.emitted()
    await till.api.acted()
    answers = await asyncio.gather(*(repaired(till, run) for _ in range(5)))
    assert {(answer.status_code, answer.json()["status"], answer.json()["outcome"]) for answer in answers} == {
        (200, "repaired", "applied")
    }
    assert (await till.read(member, order["id"]))["status"] == "paid"
    (told,) = [event for event in await till.api.emitted() if isinstance(event, OrderPaid)]
    assert told.order_id == UUID(order["id"])
    assert [act.action for act in await till.api.acted()].count("reconciliation.repaired") == 1
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1990}
    assert await differences(till) == []


async def test_a_payment_of_another_amount_waits_for_a_person(at_noon: Till) -> None:
    till, member = at_noon, new_id()
    order = (await till.order(member)).json()
    await till.api.sql("UPDATE sandbox_session SET amount_total = 100")
    await till.pay(order)
    assert (await till.read(member, order["id"]))["status"] == "pending"
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [("amount_mismatch", "person", 1990, 100)]
    assert run["differences"][0]["order_id"] == order["id"]
    refused = await repaired(till, run)
    assert (refused.status_code, refused.json()["code"]) == (409, "repair_needs_person")
    sent = [await repaired(till, run, decision="send_back") for _ in range(2)]
    assert [(answer.status_code, answer.json()["outcome"]) for answer in sent] == [(200, "sent_back")] * 2
    await till.api.run_due()
    assert await till.balanced() == {"provider_receivable": 0, "unapplied_payments": 0}
    assert await differences(till) == []
    assert [event for event in await till.api.emitted() if isinstance(event, OrderRefunded)] == []


async def test_a_parked_payment_that_was_sent_back_at_the_provider_is_recorded(at_noon: Till) -> None:
    till = at_noon
    order = (await till.order(new_id())).json()
    await till.api.sql("UPDATE sandbox_session SET amount_total = 100")
    await till.pay(order)
    ((ref,),) = await till.api.sql("SELECT provider_ref FROM payment")
    await provider_of(till.api.rt).client.v1.refunds.create_async({"payment_intent": ref})
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [
        ("amount_mismatch", "person", 1990, 100),
        ("missing_refund", "record", 100, None),
    ]
    assert (await repaired(till, run, 1)).json()["outcome"] == "succeeded"
    assert await till.balanced() == {"provider_receivable": 0, "unapplied_payments": 0}
    assert await differences(till) == []


async def test_a_dispute_whose_notice_was_lost_is_taken_in(at_noon: Till) -> None:
    till, member = at_noon, new_id()
    order = await till.buy(member)
    await till.lose_webhooks()
    opened = {"order_id": order["id"], "outcome": "opened"}
    assert (await till.client.post("/v1/sandbox/disputes", json=opened)).status_code < 300
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [("missing_dispute", "follow", "needs_response", None)]
    assert (await repaired(till, run)).json()["outcome"] == "open"
    assert (await till.read(member, order["id"]))["status"] == "disputed"
    assert (await till.client.post("/v1/sandbox/disputes", json=opened | {"outcome": "won"})).status_code < 300
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [
        ("dispute_state_differs", "follow", "won", "needs_response")
    ]
    assert (await repaired(till, run)).json()["outcome"] == "won"
    assert (await till.read(member, order["id"]))["status"] == "paid"
    assert await differences(till) == []


async def test_a_renewal_that_was_held_for_a_person_is_shown(at_noon: Till) -> None:
    till = at_noon
    order = await till.buy(new_id(), auto_renew=True)
    await till.api.sql("UPDATE subscription SET held_at = :at, held_reason = 'charged before'", at=clock.now())
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [("double_renewal", "person", None, "charged before")]
    assert run["differences"][0]["order_id"] == order["id"]


async def test_a_payment_that_the_provider_does_not_know_waits_for_a_person(at_noon: Till) -> None:
    till = at_noon
    order = (await till.order(new_id())).json()
    forged = {"id": "pi_forged", "amount_received": 1990, "currency": "cny", "metadata": {"order_id": order["id"]}}
    await till.tell("payment_intent.succeeded", forged)
    assert await differences(till) == [("missing_at_provider", "person", None, 1990)]


async def test_a_refund_made_at_the_provider_is_recorded(at_noon: Till) -> None:
    till, member = at_noon, new_id()
    order = await till.buy(member)
    ((ref,),) = await till.api.sql("SELECT provider_ref FROM payment")
    await provider_of(till.api.rt).client.v1.refunds.create_async({"payment_intent": ref, "amount": 990})
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [("missing_refund", "record", 990, None)]
    await till.api.emitted()
    answer = await repaired(till, run)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "succeeded")
    after = await till.read(member, order["id"])
    assert (after["status"], after["refunded_amount"]) == ("partially_refunded", 990)
    (told,) = await till.api.emitted()
    assert isinstance(told, OrderRefunded)
    assert (told.amount, told.full, told.removes_time) == (990, False, False)
    assert (await repaired(till, run)).json() == answer.json()
    assert await differences(till) == []


async def test_a_refund_that_ended_at_the_provider_is_followed(at_noon: Till) -> None:
    till, member = at_noon, new_id()
    order = await till.buy(member, payment_method="alipay")
    await till.lose_webhooks()
    assert (await till.refund(member, order["id"])).json()["status"] == "pending"
    await till.api.sql("UPDATE sandbox_refund SET status = 'succeeded'")
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [
        ("refund_state_differs", "follow", "succeeded", "pending")
    ]
    assert (await repaired(till, run)).json()["outcome"] == "succeeded"
    assert (await till.read(member, order["id"]))["status"] == "refunded"
    assert await till.balanced() == {"provider_receivable": 0, "deferred_revenue": 0}
    assert await differences(till) == []


async def test_an_entry_that_the_ledger_lacks_is_posted(at_noon: Till) -> None:
    till, member = at_noon, new_id()
    order = await till.buy(member)
    await till.admin_refund(order["id"], amount=500)
    # Only a superuser with the triggers off can do this.
    for statement in ("ALTER TABLE ledger_entry DISABLE TRIGGER USER", "ALTER TABLE ledger_line DISABLE TRIGGER USER"):
        await till.api.sql(statement)
    await till.api.sql("DELETE FROM ledger_entry")
    await till.api.sql("DELETE FROM ledger_line")
    for statement in ("ALTER TABLE ledger_entry ENABLE TRIGGER USER", "ALTER TABLE ledger_line ENABLE TRIGGER USER"):
        await till.api.sql(statement)
    await till.api.sql("UPDATE revenue_schedule SET amount = 1990")
    run = await reconciled(till)
    assert [_brief(found) for found in run["differences"]] == [
        ("ledger_missing", "post", 1990, None),
        ("ledger_missing", "post", 500, None),
        ("deferred_differs", "person", 1990, 0),
    ]
    for place in (0, 1):
        assert (await repaired(till, run, place)).json()["outcome"] == "posted"
    assert await till.balanced() == {"provider_receivable": 1490, "deferred_revenue": -1490}
    assert await differences(till) == []


async def test_an_order_that_its_money_does_not_cover_is_found(at_noon: Till) -> None:
    till = at_noon
    await till.buy(new_id())
    await till.api.sql("""UPDATE "order" SET refunded_amount = 300, status = 'partially_refunded'""")
    assert await differences(till) == [("order_differs", "person", 1990, 1690)]


async def test_a_run_waits_for_a_provider_that_is_away(at_noon: Till) -> None:
    till = at_noon
    await till.buy(new_id())
    await till.break_calls("error", match="/v1/payment_intents")
    run = await reconciled(till, "running")
    await till.break_calls("error", times=0)
    till.api.clock.advance(timedelta(minutes=2))
    await till.api.run_due()
    admin = till.api.admin("orders:read")
    after = (await till.client.get(f"{PATH}/{run['id']}", headers=admin)).json()
    assert (after["status"], after["differences"], after["progress"]["payments"]) == ("done", [], 1)


async def test_every_day_is_compared_once_by_itself(at_noon: Till) -> None:
    till = at_noon
    await till.buy(new_id())

    async def days() -> list[tuple[str, str, int]]:
        answer = await till.client.get(PATH, params={"limit": 100}, headers=till.api.admin("orders:read"))
        items = answer.json()["items"]
        return sorted((item["day"], item["status"], item["progress"]["payments"]) for item in items)

    till.api.clock.set(datetime(2031, 5, 21, 1, tzinfo=ZONE))
    await till.api.run_due()
    assert await days() == []
    till.api.clock.set(datetime(2031, 5, 21, 3, tzinfo=ZONE))
    await till.api.run_due()
    assert await days() == [("2031-05-20", "done", 1)]
    assert await till.api.run_due() == 0
    # Days that were missed are asked for at once.
    till.api.clock.set(datetime(2031, 5, 24, 3, tzinfo=ZONE))
    await asyncio.gather(till.api.run_due(), till.api.run_due())
    assert [day for day, status, _ in await days() if status == "done"] == [
        "2031-05-20",
        "2031-05-21",
        "2031-05-22",
        "2031-05-23",
    ]
    assert await till.api.run_due() == 0
    assert len(await days()) == 4


async def test_pages_of_the_provider_are_read_to_the_end(at_noon: Till) -> None:
    till = at_noon
    await till.buy(new_id())
    await till.api.sql(
        "INSERT INTO sandbox_intent (id, status, currency, amount, amount_received, payment_method_types, metadata,"
        " created_at) SELECT 'pi_0' || lpad(n::text, 20, '0'), 'succeeded', 'cny', 5, 5, '[]',"
        " jsonb_build_object('order_id', CAST(:id AS text)), CAST(:at AS timestamptz) FROM generate_series(1, 230) n",
        id=str(new_id()),
        at=clock.now(),
    )
    run = await reconciled(till)
    assert run["progress"]["payments"] == 231
    assert {_brief(found) for found in run["differences"]} == {("missing_payment", "person", 5, None)}
    assert len({found["provider_ref"] for found in run["differences"]}) == 230


async def test_only_admins_compare_and_repair(at_noon: Till) -> None:
    till = at_noon
    writer, reader = till.api.admin("orders:write"), till.api.admin("orders:read")
    today = {"day": clock.today().isoformat()}
    for headers in (till.api.member(), reader):
        assert (await till.client.post(PATH, json=today, headers=headers)).status_code == 403
    assert (await till.client.get(PATH, headers=till.api.member())).status_code == 403
    assert (await till.client.get(f"{PATH}/{new_id()}", headers=reader)).json()["code"] == "reconciliation_not_found"
    for day in ((clock.today() + timedelta(days=1)).isoformat(), "1999-12-31"):
        refused = await till.client.post(PATH, json={"day": day}, headers=writer)
        assert (refused.status_code, refused.json()["code"]) == (422, "day_not_begun")
    keyed = writer | {"Idempotency-Key": "once"}
    first, second = [(await till.client.post(PATH, json=today, headers=keyed)).json()["id"] for _ in range(2)]
    assert first == second
    path = f"{PATH}/{first}/differences/{new_id()}/repair"
    assert (await till.client.post(path, headers=writer)).json()["code"] == "difference_not_found"
    assert (await till.client.post(path, headers=reader)).status_code == 403
