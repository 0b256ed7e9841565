"""Fraud: what looks wrong waits for a person, who pays it or gives it up, once."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.referrals import CommissionVoided, RewardGranted
from tests.harness import Api
from tests.services.referrals.hooks import Receiver, endpoint
from tests.services.referrals.test_partners import brought, commissions, partner, refunded, run_payouts
from tests.services.referrals.world import code_of, coupons, invited, lesson, member, paid, registered


async def cases(api: Api, **params: str) -> list[dict[str, Any]]:
    answer = await api.client.get("/v1/admin/fraud-cases", headers=api.admin("coupons:read"), params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def resolve(api: Api, case: dict[str, Any], decision: str) -> Any:
    body = {"decision": decision, "reason": "看过了"}
    path = f"/v1/admin/fraud-cases/{case['id']}/resolution"
    return await api.client.post(path, headers=api.admin("coupons:write"), json=body)


async def rewards(api: Api, newcomer: UUID) -> list[tuple[str, str, str | None]]:
    rows = await api.sql("SELECT newcomer_id, cause, status, reason FROM reward ORDER BY cause")
    return [(row.cause, row.status, row.reason) for row in rows if row.newcomer_id == newcomer]


async def buyers(api: Api, inviter: UUID, count: int, address: str = "203.0.113.0/24") -> list[UUID]:
    newcomers = []
    for _ in range(count):
        newcomer = await invited(api, inviter)
        api.clock.advance(timedelta(minutes=10))
        await api.handle(paid(newcomer, address_prefix=address))
        newcomers.append(newcomer)
    return newcomers


async def test_the_fourth_buyer_at_one_address_waits_and_the_first_three_do_not(api: Api) -> None:
    inviter = await member(api)
    newcomers = await buyers(api, inviter, 4)

    assert [await rewards(api, one) for one in newcomers] == [[("first_payment", "granted", None)]] * 3 + [
        [("first_payment", "held", None)]
    ]
    (case,) = await cases(api, status="open")
    assert (case["kind"], case["evidence"]["address_prefix"], case["evidence"]["buyers"]) == (
        "address",
        "203.0.113.0/24",
        4,
    )
    assert list(case["evidence"]["first_paid_at"]) == [str(one) for one in newcomers]
    assert sorted(case["member_ids"]) == sorted(str(one) for one in newcomers)
    assert [item["status"] for item in case["held"]] == ["held"]
    await buyers(api, await member(api), 3)
    assert len(await cases(api)) == 1


@pytest.mark.parametrize(("decision", "status"), [("release", "released"), ("void", "voided")])
async def test_a_case_is_resolved_once(api: Api, decision: str, status: str) -> None:
    inviter = await member(api)
    newcomers = await buyers(api, inviter, 4)
    (case,) = await cases(api)
    await api.emitted()

    answers = [await resolve(api, case, decision) for _ in range(2)]

    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, status)] * 2
    granted = [event for event in await api.emitted() if isinstance(event, RewardGranted)]
    assert [event.member_id for event in granted] == ([inviter] if decision == "release" else [])
    after = "granted" if decision == "release" else "refused"
    assert [row[1] for row in await rewards(api, newcomers[3])] == [after]
    act = (await api.acted())[0]
    assert (act.action, act.target) == (f"fraud_case.{status}", case["id"])
    assert act.before is not None
    assert act.after is not None
    assert (act.before["status"], act.after["status"]) == ("open", status)
    assert (act.after["reason"], act.after["held"][0]["status"]) == ("看过了", after)
    # What waited stays to be seen, with what became of it.
    assert [(item["kind"], item["member_id"], item["status"]) for item in answers[1].json()["held"]] == [
        ("reward", str(newcomers[3]), after)
    ]
    other = await resolve(api, case, "void" if decision == "release" else "release")
    assert (other.status_code, other.json()["code"]) == (409, "case_resolved")
    # Whoever comes later is fine if the address was, and a case again if it was not.
    await buyers(api, inviter, 1)
    assert [one["status"] for one in await cases(api)] == (
        ["released"] if decision == "release" else ["open", "voided"]
    )


async def test_a_refused_inviter_is_a_case_that_a_person_may_overrule(api: Api) -> None:
    inviter = await member(api)
    newcomer = await invited(api, inviter)
    await api.handle(paid(inviter, fingerprint="card-1"), lesson(newcomer), paid(newcomer, fingerprint="card-1"))
    assert await rewards(api, newcomer) == [
        ("first_lesson", "granted", None),
        ("first_payment", "refused", "same_payment"),
    ]
    (case,) = await cases(api, status="open")
    assert (case["kind"], sorted(case["member_ids"])) == ("same_payment", sorted([str(inviter), str(newcomer)]))
    assert (len(case["evidence"]["orders"]), len(case["evidence"]["fingerprints"])) == (2, 1)
    assert "card-1" not in str(case)
    await api.emitted()

    await resolve(api, case, "release")

    assert [type(event) for event in await api.emitted()] == [RewardGranted]
    assert await rewards(api, newcomer) == [("first_lesson", "granted", None), ("first_payment", "granted", None)]


async def test_what_one_case_gave_up_another_does_not_pay(api: Api) -> None:
    inviter = await member(api)
    newcomers = [await invited(api, inviter) for _ in range(11)]
    await api.handle(*(paid(one, address_prefix="203.0.113.0/24") for one in newcomers[:4]))
    address, burst = await cases(api, status="open")
    assert (address["kind"], burst["kind"]) == ("address", "burst")

    assert (await resolve(api, burst, "void")).status_code == 200
    assert (await resolve(api, address, "release")).status_code == 200

    assert [await rewards(api, one) for one in newcomers[:4]] == [[("first_payment", "refused", "fraud")]] * 4
    assert [event for event in await api.emitted() if isinstance(event, RewardGranted)] == []


async def test_the_twelfth_case_is_opened_like_the_first(api: Api) -> None:
    # PostgreSQL plans a statement anew for its first executions on a connection, and then for whatever it is given.
    inviter = await member(api, visitor_id="phone-1")
    for _ in range(12):
        api.clock.advance(timedelta(minutes=10))
        await invited(api, inviter, visitor_id="phone-1")
    assert {one["kind"] for one in await cases(api, status="open")} == {"same_device"}
    assert len(await cases(api, status="open")) == 12


async def test_more_than_ten_registrations_in_an_hour_hold_what_they_earn(api: Api) -> None:
    inviter = await member(api)
    newcomers = [await invited(api, inviter) for _ in range(10)]
    assert await cases(api) == []
    newcomers.append(await invited(api, inviter))
    (case,) = await cases(api)
    assert (case["kind"], case["evidence"]["registrations"], len(case["member_ids"])) == ("burst", 11, 12)

    await api.handle(lesson(newcomers[0]), lesson(newcomers[10]))

    assert [await rewards(api, newcomers[place]) for place in (0, 10)] == [[("first_lesson", "held", None)]] * 2
    assert await coupons(api, inviter) == []
    await resolve(api, case, "release")
    assert len(await coupons(api, inviter)) == 2
    api.clock.advance(timedelta(minutes=1))
    await invited(api, inviter)
    assert [one["status"] for one in await cases(api)] == ["released"]


async def refusal(api: Api, kind: str, inviter: UUID, newcomer: UUID) -> dict[str, Any]:
    """The evidence of the one open case, which names both."""
    (case,) = await cases(api, status="open")
    evidence: dict[str, Any] = case["evidence"]
    assert (case["kind"], sorted(case["member_ids"])) == (kind, sorted([str(inviter), str(newcomer)]))
    assert (evidence["reason"], evidence["inviter_id"], evidence["newcomer_id"]) == (kind, str(inviter), str(newcomer))
    return evidence


async def test_somebody_on_the_inviters_device_is_refused_with_evidence(api: Api) -> None:
    inviter = await member(api, visitor_id="phone-1", phone_hash="a")
    newcomer = await invited(api, inviter, visitor_id="phone-1", phone_hash="b")
    evidence = await refusal(api, "same_device", inviter, newcomer)
    assert (len(evidence["devices"]), "phone-1" in str(evidence)) == (1, False)
    assert await api.sql("SELECT FROM attribution") == []
    await api.handle(lesson(newcomer), paid(newcomer))
    assert (await coupons(api, newcomer), await rewards(api, newcomer)) == ([], [])

    # A person says that it is well, two sisters with one phone, say: then it is as it would have been.
    (case,) = await cases(api)
    for _ in range(2):
        assert (await resolve(api, case, "release")).status_code == 200
    assert await api.sql("SELECT member_id, inviter_id FROM attribution") == [(newcomer, inviter)]
    assert await rewards(api, newcomer) == [("first_lesson", "granted", None), ("first_payment", "granted", None)]
    assert [[one["value"] for one in await coupons(api, who)] for who in (newcomer, inviter)] == [[500], [500]]
    assert len(await cases(api)) == 1
    # Who was bound to somebody else meanwhile, or whose case was voided, stays where they are.
    for decision, bound in (("release", [(inviter,)]), ("void", [])):
        other = await member(api, visitor_id=f"shared-{decision}")
        await api.client.post(
            "/v1/touches", json={"invite_code": await code_of(api, other), "visitor_id": f"shared-{decision}"}
        )
        also = {"invite_code": await code_of(api, inviter)} if bound else {}
        late = await member(api, visitor_id=f"shared-{decision}", **also)
        await resolve(api, (await cases(api, status="open"))[0], decision)
        found = await api.sql("SELECT member_id, inviter_id FROM attribution")
        assert [(row.inviter_id,) for row in found if row.member_id == late] == bound


async def test_somebody_with_a_known_phone_is_refused_with_evidence(api: Api) -> None:
    inviter, old = await member(api, phone_hash="a"), await member(api, phone_hash="b")
    newcomer = await invited(api, inviter, phone_hash="b")
    assert (await refusal(api, "existing_customer", inviter, newcomer))["same_phone_as"] == [str(old)]
    assert await api.sql("SELECT FROM attribution") == []


async def test_who_invites_their_own_inviter_is_a_loop(api: Api) -> None:
    # The second account registers by the first one's code, told late; the first by the second one's.
    first, second = registered(), registered()
    code_1, code_2 = await code_of(api, first.member_id), await code_of(api, second.member_id)
    await api.handle(first.model_copy(update={"invite_code": code_2}))
    await api.handle(second.model_copy(update={"invite_code": code_1}))
    assert "invited_at" in await refusal(api, "loop", first.member_id, second.member_id)
    assert [row.member_id for row in await api.sql("SELECT member_id FROM attribution")] == [first.member_id]


@pytest.mark.parametrize("decision", ["release", "void"])
async def test_a_partners_commission_waits_for_a_case_too(api: Api, receiver: Receiver, decision: str) -> None:
    who = await partner(api)
    await endpoint(api, who, receiver.url, "commission.due", "commission.voided")
    for _ in range(4):
        newcomer = await brought(api, who)
        api.clock.advance(timedelta(minutes=10))
        await api.handle(paid(newcomer, total=1000, address_prefix="203.0.113.0/24"))
    api.clock.advance(timedelta(days=8))
    await api.run_due()
    assert await commissions(api, who) == [("sale", 200, "due")] * 3 + [("sale", 200, "held")]
    (case,) = await cases(api)
    await api.emitted()

    answer = await resolve(api, case, decision)

    status = {"release": "due", "void": "voided"}[decision]
    assert await commissions(api, who) == [("sale", 200, "due")] * 3 + [("sale", 200, status)]
    assert [type(event) for event in await api.emitted()] == ([CommissionVoided] if decision == "void" else [])
    assert [(item["kind"], item["owner_id"], item["amount"], item["status"]) for item in answer.json()["held"]] == [
        ("commission", who["id"], 200, status)
    ]
    # Released after its time, it is due at that moment, and its partner hears so.
    await api.run_due()
    assert receiver.types() == ["commission.due"] * 3 + [f"commission.{status}"]


async def test_what_takes_back_from_a_paid_commission_is_not_lost_in_a_voided_case(api: Api) -> None:
    who = await partner(api)
    newcomer = await brought(api, who)
    first = paid(newcomer, total=1000)
    await api.handle(first)
    api.clock.advance(timedelta(days=8))
    run = (await run_payouts(api)).json()
    await api.client.post(f"/v1/admin/payout-runs/{run['id']}/paid", headers=api.admin())
    # The case comes later: three other buyers at the address of this member's second purchase were first.
    for _ in range(3):
        await api.handle(paid(await brought(api, who), total=1000, address_prefix="203.0.113.0/24"))
        api.clock.advance(timedelta(minutes=1))
    await api.handle(paid(newcomer, total=2000, address_prefix="203.0.113.0/24"), refunded(first, 1000))
    rows = [("reversal", -200, "due"), ("sale", 200, "paid"), *[("sale", 200, "pending")] * 3, ("sale", 400, "held")]
    assert await commissions(api, who) == rows
    await api.handle(lesson(newcomer))
    (case,) = await cases(api)
    assert [(item["cause"], item["amount"]) for item in case["held"]][-1] == ("trial", 300)
    assert (await resolve(api, case, "void")).status_code == 200
    after = [row for row in await commissions(api, who) if row[2] in {"held", "voided", "due"}]
    assert after == [("reversal", -200, "due"), ("sale", 400, "voided"), ("trial", 300, "voided")]


async def test_what_is_earned_while_a_case_is_decided_is_not_held_for_ever(api: Api) -> None:
    who = await partner(api)
    *_, newcomer = newcomers = [await brought(api, who) for _ in range(4)]
    for one in newcomers:
        api.clock.advance(timedelta(minutes=10))
        await api.handle(paid(one, total=1000, address_prefix="203.0.113.0/24"))
    (case,) = await cases(api)

    await asyncio.gather(resolve(api, case, "release"), *(api.handle(paid(newcomer, total=500)) for _ in range(4)))

    assert [status for _, _, status in await commissions(api, who)] == ["pending"] * 8
    assert [one["status"] for one in await cases(api)] == ["released"]


async def test_only_admins_with_the_scope_see_and_judge_cases(api: Api) -> None:
    await buyers(api, await member(api), 4)
    (case,) = await cases(api)
    path = f"/v1/admin/fraud-cases/{case['id']}/resolution"
    body = {"decision": "release", "reason": "x"}
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("coupons:read"), 403)):
        assert (await api.client.post(path, headers=headers, json=body)).status_code == status
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("plans:read"), 403)):
        assert (await api.client.get("/v1/admin/fraud-cases", headers=headers)).status_code == status
    assert [one["status"] for one in await cases(api)] == ["open"]
