"""Membership grants: time given by an admin, taken back exactly, and noted."""

import asyncio
from typing import Any
from uuid import UUID

from contracts.members import MembershipChanged
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_membership import membership, paid, segments

GIVEN: dict[str, Any] = {"days": 10, "reason": "an apology"}


async def grant(api: Api, member_id: UUID, admin: dict[str, str] | None = None, **body: Any) -> Any:
    path = f"/v1/admin/members/{member_id}/membership-grants"
    return await api.client.post(path, json=body, headers=admin or api.admin("members:write"))


async def test_a_grant_is_a_comp_segment_and_is_noted(api: Api) -> None:
    member_id, _ = await a_member(api)
    admin_id = new_id()
    answer = await grant(api, member_id, api.admin(admin_id=admin_id), **GIVEN)
    assert answer.status_code == 201
    segment = answer.json()
    assert (segment["source"], segment["days"], segment["months"]) == ("comp", 10, 0)
    assert (segment["plan_code"], segment["state"]) == ("black-card-1m", "active")
    assert await segments(api, member_id) == [segment]
    assert (await membership(api, member_id))["days_left"] == 10
    [told] = await api.emitted()
    assert isinstance(told, MembershipChanged)
    [noted] = (await api.client.get("/v1/admin/audit", headers=api.admin("audit:read"))).json()["items"]
    assert (noted["actor"], noted["target"]) == (str(admin_id), str(member_id))
    assert (noted["action"], noted["before"]) == ("membership_grant.created", None)
    assert noted["after"]["reason"] == "an apology"


async def test_taking_a_grant_back_removes_exactly_it(api: Api) -> None:
    member_id, _ = await a_member(api)
    order = paid(member_id)
    await api.handle(order)
    before = await segments(api, member_id)
    given = (await grant(api, member_id, months=12, reason="x")).json()
    await api.emitted()
    path = f"/v1/admin/members/{member_id}/membership-grants/{given['source_id']}"
    for _ in range(2):
        assert (await api.client.delete(path, headers=api.admin())).status_code == 204
    after = await segments(api, member_id)
    assert after[0] == before[0]
    assert (after[1]["state"], after[1]["starts_at"]) == ("revoked", None)
    assert len(await api.emitted()) == 1
    listed = (await api.client.get(f"/v1/admin/audit?target={member_id}", headers=api.admin())).json()["items"]
    assert [item["action"] for item in listed] == ["membership_grant.revoked", "membership_grant.created"]
    order_path = f"/v1/admin/members/{member_id}/membership-grants/{order.order_id}"
    assert (await api.client.delete(order_path, headers=api.admin())).status_code == 404
    other, _ = await a_member(api, "+8613900139000")
    foreign = f"/v1/admin/members/{other}/membership-grants/{given['source_id']}"
    assert (await api.client.delete(foreign, headers=api.admin())).json()["code"] == "grant_not_found"


NO_GRANTS: tuple[dict[str, Any], ...] = (
    {"reason": "neither"},
    {"months": 1, "days": 1, "reason": "both"},
    {"months": 0, "reason": "none"},
    {"months": -1, "reason": "negative"},
    {"months": True, "reason": "no number"},
    {"days": "7", "reason": "text"},
    {"days": 1.5, "reason": "half"},
    {"days": 10**9, "reason": "too many"},
    {"days": 7},
    {"days": 7, "reason": " "},
    {"days": 7, "reason": "x", "plan": "unknown field"},
    {"days": 7, "reason": "nul\u0000"},
)


async def test_a_grant_is_exactly_one_of_months_and_days(api: Api) -> None:
    member_id, _ = await a_member(api)
    for body in NO_GRANTS:
        refused = await grant(api, member_id, **body)
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed"), body
    assert await segments(api, member_id) == []


async def test_a_grant_needs_a_known_plan_and_a_member(api: Api) -> None:
    member_id, _ = await a_member(api)
    refused = await grant(api, member_id, **GIVEN, plan_code="gold")
    assert (refused.status_code, refused.json()["code"]) == (422, "plan_unknown")
    refused = await grant(api, new_id(), **GIVEN)
    assert (refused.status_code, refused.json()["code"]) == (404, "member_not_found")
    assert await api.emitted() == []


async def test_a_grant_has_the_benefits_that_the_plans_latest_order_showed(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.handle(paid(new_id(), plan_code="tea-card", benefits=("live_replay",)))
    assert (await grant(api, member_id, **GIVEN, plan_code="tea-card")).status_code == 201
    assert (await membership(api, member_id))["benefits"] == ["live_replay"]


async def test_the_same_idempotency_key_gives_once(api: Api) -> None:
    member_id, _ = await a_member(api)
    headers = api.admin() | {"Idempotency-Key": "one"}
    first, second = await grant(api, member_id, headers, **GIVEN), await grant(api, member_id, headers, **GIVEN)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert len(await segments(api, member_id)) == 1


async def test_grants_at_once_queue_up(api: Api) -> None:
    member_id, _ = await a_member(api)
    answers = await asyncio.gather(*(grant(api, member_id, days=1, reason="x") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert (await membership(api, member_id))["days_left"] == 10


async def test_time_past_the_end_of_the_calendar_is_refused(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.sql(
        "INSERT INTO segment (id, member_id, source, source_id, plan_code, months, days, added_at) "
        "VALUES (gen_random_uuid(), :id, 'comp', gen_random_uuid(), 'black-card-1m', 95000, 0, now())",
        id=member_id,
    )
    assert (await grant(api, member_id, months=120, reason="x")).status_code == 201
    answers = [await grant(api, member_id, months=120, reason="x") for _ in range(10)]
    refused = answers[-1]
    assert (refused.status_code, refused.json()["code"]) == (422, "membership_too_long")


async def test_only_admins_who_may_write_members_grant(api: Api) -> None:
    member_id, headers = await a_member(api)
    assert (await grant(api, member_id, headers, **GIVEN)).status_code == 403
    assert (await grant(api, member_id, api.admin("members:read"), **GIVEN)).status_code == 403
    assert await segments(api, member_id) == []
