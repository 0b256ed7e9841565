"""Fraud: what looks wrong waits for a person, who pays it or gives it up, once."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.referrals import CommissionVoided, RewardGranted
from tests.harness import Api
from tests.services.referrals.test_partners import brought, commissions, partner
from tests.services.referrals.world import coupons, invited, lesson, member, paid


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
    assert (case["kind"], case["evidence"]) == ("address", {"address_prefix": "203.0.113.0/24", "buyers": 4})
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
    assert (await api.acted())[0].action == f"fraud_case.{status}"
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
    await api.emitted()

    await resolve(api, case, "release")

    assert [type(event) for event in await api.emitted()] == [RewardGranted]
    assert [row[1] for row in await rewards(api, newcomer)] == ["granted", "granted"]


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


async def test_a_partners_commission_waits_for_a_case_too(api: Api) -> None:
    who = await partner(api)
    for _ in range(4):
        newcomer = await brought(api, who)
        api.clock.advance(timedelta(minutes=10))
        await api.handle(paid(newcomer, total=1000, address_prefix="203.0.113.0/24"))
    api.clock.advance(timedelta(days=8))
    await api.run_due()
    assert await commissions(api, who) == [("sale", 200, "due")] * 3 + [("sale", 200, "held")]
    (case,) = await cases(api)
    await api.emitted()

    await resolve(api, case, "void")

    assert await commissions(api, who) == [("sale", 200, "due")] * 3 + [("sale", 200, "voided")]
    assert [type(event) for event in await api.emitted()] == [CommissionVoided]


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
