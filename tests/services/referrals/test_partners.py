"""Partners: two stages of commission, each once, held, due, taken back and paid, to the fen."""

import asyncio
import csv
import io
from collections.abc import Mapping
from datetime import timedelta
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from contracts.billing import OrderDisputed, OrderRefunded
from contracts.referrals import CommissionAccrued, CommissionReversed, CommissionVoided, PartnerChanged, PayoutPaid
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.world import lesson, paid, registered

TERMS = {"trial_amount": 300, "percent": 20, "months": 12}


async def partner(api: Api, **fields: Any) -> dict[str, Any]:
    body = {"name": "林老师", "email": "lin@example.com", "commission": TERMS, "hold_days": 7} | fields
    answer = await api.client.post("/v1/admin/partners", headers=api.admin("partners:write"), json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def by(api: Api, who: Mapping[str, Any]) -> dict[str, str]:
    return api.partner(UUID(who["id"]))


async def link(api: Api, who: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await api.client.post("/v1/partner/links", headers=by(api, who), json={"title": "课堂海报"} | fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def brought(api: Api, who: Mapping[str, Any]) -> UUID:
    event = registered(invite_code=(await link(api, who))["code"])
    await api.handle(event)
    return event.member_id


async def commissions(api: Api, who: Mapping[str, Any], **params: str) -> list[tuple[str, int, str]]:
    answer = await api.client.get("/v1/partner/commissions", headers=by(api, who), params=params)
    assert answer.status_code == 200, answer.text
    return sorted((item["kind"], item["amount"], item["status"]) for item in answer.json()["items"])


def refunded(order: Any, amount: int, **fields: Any) -> OrderRefunded:
    usual: dict[str, Any] = {
        "order_id": order.order_id,
        "refund_id": new_id(),
        "member_id": order.member_id,
        "amount": amount,
        "currency": "CNY",
        "full": amount == order.total,
        "removes_time": True,
        "refunded_at": clock.now(),
    }
    return OrderRefunded(**usual | fields)


def disputed(order: Any, outcome: Any) -> OrderDisputed:
    return OrderDisputed(
        order_id=order.order_id,
        member_id=order.member_id,
        kind="membership",
        outcome=outcome,
        amount=order.total,
        currency="CNY",
        removes_time=True,
        disputed_at=clock.now(),
    )


async def run_payouts(api: Api) -> Any:
    body = {"until": clock.now().isoformat()}
    return await api.client.post("/v1/admin/payout-runs", headers=api.admin("partners:write"), json=body)


async def test_a_partner_is_made_with_a_secret_that_is_shown_once(api: Api) -> None:
    made = await partner(api)

    assert made["commission"] == TERMS
    assert made["hold_days"] == 7
    assert made["client_id"].startswith("hkp_")
    assert made["client_secret"].startswith("hks_")
    read = await api.client.get(f"/v1/admin/partners/{made['id']}", headers=api.admin("partners:write"))
    assert "client_secret" not in read.json()
    (changed,), (acted,) = await api.emitted(), await api.acted()
    assert isinstance(changed, PartnerChanged)
    assert (changed.version, changed.client_id, changed.active) == (1, made["client_id"], True)
    assert made["client_secret"] not in changed.model_dump_json()
    assert made["client_secret"] not in acted.model_dump_json()


async def test_only_admins_with_the_scope_make_partners_and_only_partners_see_their_side(api: Api) -> None:
    body = {"name": "林老师", "email": "lin@example.com", "commission": TERMS, "hold_days": 7}
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("coupons:write"), 403)):
        assert (await api.client.post("/v1/admin/partners", headers=headers, json=body)).status_code == status
    for path in ("me", "links", "referrals", "commissions", "payouts", "statement"):
        for headers, status in (({}, 401), (api.member(), 403), (api.admin(), 403)):
            assert (await api.client.get(f"/v1/partner/{path}", headers=headers)).status_code == status
    assert await api.sql("SELECT count(*) FROM partner") == [(0,)]


async def test_nothing_may_be_paid_out_within_the_refund_window(api: Api) -> None:
    body = {"name": "林老师", "email": "lin@example.com", "commission": TERMS, "hold_days": 6}
    answer = await api.client.post("/v1/admin/partners", headers=api.admin(), json=body)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "hold_days"])


async def test_a_first_lesson_and_each_payment_are_owed_once_in_any_order(api: Api) -> None:
    who = await partner(api)
    code = (await link(api, who, channel="douyin"))["code"]
    for order in permutations(range(3)):
        event = registered(invite_code=code.lower())
        api.clock.advance(timedelta(minutes=1))
        events: list[Any] = [event, lesson(event.member_id), paid(event.member_id, total=4900)]
        for place in order:
            await api.handle(events[place], events[place])

    assert await commissions(api, who) == sorted([("trial", 300, "pending"), ("sale", 980, "pending")] * 6)
    accrued = [event for event in await api.emitted() if isinstance(event, CommissionAccrued)]
    assert sorted(event.amount for event in accrued) == [300] * 6 + [980] * 6
    referrals = (await api.client.get("/v1/partner/referrals", headers=by(api, who))).json()["items"]
    assert [item["stage"] for item in referrals] == ["purchased"] * 6
    assert all(len(item["nickname"]) == 3 for item in referrals)


async def test_late_lessons_and_payments_after_the_agreed_months_are_not_owed(api: Api) -> None:
    who = await partner(api, commission={"trial_amount": 300, "percent": 20, "months": 1})
    newcomer = await brought(api, who)
    await api.handle(paid(newcomer, total=1000))
    api.clock.advance(timedelta(days=14))
    await api.handle(lesson(newcomer))
    api.clock.advance(timedelta(days=10))
    await api.handle(paid(newcomer, total=2000))
    api.clock.advance(timedelta(days=10))

    await api.handle(paid(newcomer, total=3000))
    await api.run_due()

    assert await commissions(api, who) == [("sale", 200, "due"), ("sale", 400, "due")]


async def test_zero_for_a_first_lesson_is_nothing(api: Api) -> None:
    who = await partner(api, commission={"trial_amount": 0, "percent": 20})
    assert who["commission"] == {"trial_amount": None, "percent": 20, "months": None}
    newcomer = await brought(api, who)
    await api.handle(lesson(newcomer), paid(newcomer, total=1000))
    assert await commissions(api, who) == [("sale", 200, "pending")]


async def test_what_waits_becomes_due_after_the_holding_time(api: Api) -> None:
    who = await partner(api, hold_days=10)
    newcomer = await brought(api, who)
    await api.handle(paid(newcomer, total=1990))
    api.clock.advance(timedelta(days=10, seconds=-5))
    assert await api.run_due() == 0
    assert (await run_payouts(api)).json()["code"] == "nothing_due"

    api.clock.advance(timedelta(seconds=6))

    assert await api.run_due() == 1
    assert await api.run_due() == 0
    assert await commissions(api, who, status="due") == [("sale", 398, "due")]


async def test_a_refund_before_the_payout_voids_and_a_part_takes_back_its_part(api: Api) -> None:
    who = await partner(api)
    newcomer = await brought(api, who)
    whole, part = paid(newcomer, total=1990), paid(newcomer, total=4900)
    await api.handle(whole, part)
    await api.emitted()

    await api.handle(refunded(whole, 1990), refunded(part, 1000))

    assert await commissions(api, who) == [
        ("reversal", -200, "pending"),
        ("sale", 398, "voided"),
        ("sale", 980, "pending"),
    ]
    voided, reversed_ = await api.emitted()
    assert isinstance(voided, CommissionVoided)
    assert isinstance(reversed_, CommissionReversed)
    assert (voided.amount, reversed_.amount) == (398, 200)
    await api.handle(refunded(part, 3900))
    assert [status for _, _, status in await commissions(api, who)] == ["voided"] * 3
    (rest,) = await api.emitted()
    assert isinstance(rest, CommissionVoided)
    assert rest.amount == 780


async def test_a_run_pays_what_is_due_once_and_a_later_refund_is_a_negative_row(api: Api) -> None:
    who, other = await partner(api), await partner(api)
    order = paid(await brought(api, who), total=4900)
    await api.handle(order, paid(await brought(api, other), total=1990))
    api.clock.advance(timedelta(days=8))
    await api.emitted()

    answers = await asyncio.gather(*(run_payouts(api) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    run = next(answer.json() for answer in answers if answer.status_code == 201)
    assert (run["amount"], run["status"], len(run["items"])) == (980 + 398, "open", 2)
    # The run is locked: what is refunded meanwhile is taken back in the next one.
    await api.handle(refunded(order, 4900))
    path = f"/v1/admin/payout-runs/{run['id']}"
    table = (await api.client.get(f"{path}/items.csv", headers=api.admin())).text
    assert [int(row["amount"]) for row in csv.DictReader(io.StringIO(table))] in ([980, 398], [398, 980])
    paid_runs = await asyncio.gather(*(api.client.post(f"{path}/paid", headers=api.admin()) for _ in range(3)))
    assert {(answer.status_code, answer.json()["status"], answer.json()["paid_at"]) for answer in paid_runs} == {
        (200, "paid", paid_runs[0].json()["paid_at"])
    }
    payouts = [event for event in await api.emitted() if isinstance(event, PayoutPaid)]
    assert sorted(event.amount for event in payouts) == [398, 980]
    assert await commissions(api, who) == [("reversal", -980, "due"), ("sale", 980, "paid")]
    # Owed nothing on balance: the negative row waits for what is earned later.
    assert (await run_payouts(api)).json()["code"] == "nothing_due"
    await api.handle(paid(await brought(api, who), total=9800))
    api.clock.advance(timedelta(days=8))
    second = (await run_payouts(api)).json()
    assert (second["amount"], sorted(item["amount"] for item in second["items"])) == (980, [-980, 1960])
    mine = (await api.client.get("/v1/partner/payouts", headers=by(api, who))).json()["items"]
    assert [(item["amount"], item["status"]) for item in mine] == [(980, "open"), (980, "paid")]
    statement = (await api.client.get("/v1/partner/statement", headers=by(api, who))).json()
    assert statement == {
        "currency": "CNY",
        "opening": 0,
        "accrued": 980 + 1960,
        "reversed": 980,
        "voided": 0,
        "paid": 980,
        "closing": 980,
    }


@pytest.mark.parametrize(("outcome", "left"), [("won", [("sale", 980, "due")]), ("lost", [("sale", 980, "voided")])])
async def test_a_disputed_payment_holds_its_commission(
    api: Api, outcome: str, left: list[tuple[str, int, str]]
) -> None:
    who = await partner(api)
    order = paid(await brought(api, who), total=4900)
    await api.handle(order, disputed(order, "opened"))
    api.clock.advance(timedelta(days=8))
    await api.run_due()
    assert await commissions(api, who) == [("sale", 980, "held")]
    assert (await run_payouts(api)).json()["code"] == "nothing_due"

    await api.handle(disputed(order, outcome), disputed(order, "opened"))

    assert await commissions(api, who) == left


async def test_new_terms_count_for_new_touches_and_a_closed_partner_brings_nobody(api: Api) -> None:
    who = await partner(api)
    code = (await link(api, who))["code"]
    touch = {"invite_code": code, "visitor_id": "tablet"}
    assert (await api.client.post("/v1/touches", json=touch)).status_code == 201
    api.clock.advance(timedelta(minutes=1))
    path = f"/v1/admin/partners/{who['id']}"
    change = {"commission": {"percent": 50}, "hold_days": 30}
    changed = await api.client.patch(path, headers=api.admin() | {"If-Match": '"1"'}, json=change)
    assert (changed.status_code, changed.json()["commission"]["percent"]) == (200, 50), changed.text
    early, late = registered(visitor_id="tablet"), registered(invite_code=code)
    await api.handle(early, late, paid(early.member_id, total=1000), paid(late.member_id, total=1000))
    assert await commissions(api, who) == [("sale", 200, "pending"), ("sale", 500, "pending")]

    assert (await api.client.patch(path, headers=api.admin(), json={"active": False})).status_code == 200

    answer = await api.client.post("/v1/touches", json=touch | {"visitor_id": "another"})
    assert (answer.status_code, answer.json()["code"]) == (404, "invite_code_unknown")


async def test_somebody_who_paid_before_is_nobodys_referral(api: Api) -> None:
    who = await partner(api)
    event = registered(invite_code=(await link(api, who))["code"])
    await api.handle(paid(event.member_id, paid_at=clock.now() - timedelta(days=1)), event)
    assert await commissions(api, who) == []
