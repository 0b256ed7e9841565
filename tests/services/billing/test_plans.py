"""Plans: three black cards, cacheable, edited by version."""

import asyncio
from typing import Any

import pytest

from tests.harness import Api

PLAN = {"code": "gold-card-1m", "name": "金卡月卡", "months": 1, "amount": 990, "currency": "CNY", "benefits": []}


async def test_the_three_black_cards_are_on_sale_with_all_benefits(api: Api) -> None:
    answer = await api.client.get("/v1/plans")
    assert [(plan["code"], plan["months"], plan["amount"]) for plan in answer.json()["items"]] == [
        ("black-card-1m", 1, 1990),
        ("black-card-3m", 3, 4900),
        ("black-card-12m", 12, 18900),
    ]
    assert set(answer.json()["items"][0]) == {
        "code",
        "name",
        "months",
        "amount",
        "currency",
        "original_amount",
        "benefits",
        "active",
        "version",
    }
    assert "live_priority" in answer.json()["items"][0]["benefits"]
    held = {"If-None-Match": answer.headers["ETag"]}
    again = await api.client.get("/v1/plans", headers=held)
    assert (again.status_code, again.content) == (304, b"")
    assert "public" in answer.headers["Cache-Control"]
    await api.client.patch("/v1/admin/plans/black-card-1m", json={"amount": 2000}, headers=api.admin("plans:write"))
    assert (await api.client.get("/v1/plans", headers=held)).status_code == 200


async def test_an_unknown_plan_is_not_found(api: Api) -> None:
    for path in ("/v1/plans/nope", "/v1/plans/%ff"):
        answer = await api.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "plan_not_found")


async def test_an_admin_puts_a_plan_on_sale_once(api: Api) -> None:
    admin = api.admin("plans:write")
    made = await asyncio.gather(*(api.client.post("/v1/admin/plans", json=PLAN, headers=admin) for _ in range(5)))
    assert sorted(answer.status_code for answer in made) == [201, 409, 409, 409, 409]
    assert {answer.json()["code"] for answer in made if answer.status_code == 409} == {"plan_exists"}
    assert (await api.client.get("/v1/plans/gold-card-1m")).json()["version"] == 1


async def test_a_change_with_an_old_version_is_refused(api: Api) -> None:
    admin, path = api.admin("plans:write", "plans:read"), "/v1/admin/plans/black-card-1m"
    read = await api.client.get(path, headers=admin)
    first = await api.client.patch(path, json={"amount": 2100}, headers=admin | {"If-Match": read.headers["ETag"]})
    assert (first.status_code, first.json()["version"]) == (200, 2)
    stale = await api.client.patch(path, json={"amount": 2200}, headers=admin | {"If-Match": read.headers["ETag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    named = await api.client.patch(path, json={"name": "月卡"}, headers=admin | {"If-Match": first.headers["ETag"]})
    assert (named.status_code, named.json()["version"], named.json()["amount"]) == (200, 2, 2100)


async def test_ten_changes_with_one_version_at_once_are_one(api: Api) -> None:
    admin, path = api.admin("plans:write", "plans:read"), "/v1/admin/plans/black-card-1m"
    tag = {"If-Match": (await api.client.get(path, headers=admin)).headers["ETag"]}
    changes = [api.client.patch(path, json={"amount": 2000 + n}, headers=admin | tag) for n in range(10)]
    answers = await asyncio.gather(*changes)
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    assert (await api.client.get("/v1/plans/black-card-1m")).json()["version"] == 2


async def test_a_plan_off_sale_is_listed_for_admins_only_and_not_sold(api: Api) -> None:
    admin = api.admin("plans:write", "plans:read")
    await api.client.patch("/v1/admin/plans/black-card-1m", json={"active": False}, headers=admin)
    assert len((await api.client.get("/v1/plans")).json()["items"]) == 2
    assert len((await api.client.get("/v1/admin/plans", headers=admin)).json()["items"]) == 3
    assert (await api.client.get("/v1/plans/black-card-1m")).json()["active"] is False
    body = {"plan_code": "black-card-1m", "payment_method": "card"}
    refused = await api.client.post("/v1/orders", json=body, headers=api.member() | {"Idempotency-Key": "k"})
    assert (refused.status_code, refused.json()["code"]) == (409, "plan_not_on_sale")


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 0},
        {"amount": -1},
        {"amount": True},
        {"amount": "990"},
        {"amount": 9.9},
        {"amount": 2**60},
        {"months": 0},
        {"code": "Gold Card"},
        {"name": "  "},
        {"name": "a\u0000"},
        {"currency": "XXX"},
        {"original_amount": 1},
        {"benefits": ["free_lunch"]},
        {"unknown": 1},
        {"active": "yes"},
    ],
)
async def test_a_bad_plan_is_refused(api: Api, changes: dict[str, Any]) -> None:
    answer = await api.client.post("/v1/admin/plans", json=PLAN | changes, headers=api.admin("plans:write"))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert len((await api.client.get("/v1/plans")).json()["items"]) == 3


async def test_a_price_above_the_original_amount_is_refused(api: Api) -> None:
    admin = api.admin("plans:write")
    answer = await api.client.patch("/v1/admin/plans/black-card-1m", json={"amount": 9900}, headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (422, "original_amount_too_low")
    both = {"amount": 9900, "original_amount": None}
    assert (await api.client.patch("/v1/admin/plans/black-card-1m", json=both, headers=admin)).status_code == 200


async def test_only_admins_with_the_scope_edit_plans(api: Api) -> None:
    for headers, status in (({}, 401), (api.member(), 403), (api.admin("plans:read"), 403)):
        answer = await api.client.post("/v1/admin/plans", json=PLAN, headers=headers)
        assert answer.status_code == status
