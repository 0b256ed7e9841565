"""Plans: three black cards, cacheable, edited by version."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from contracts.billing import PlanChanged
from kit.migrations import upgrade
from services.billing.seed import seed
from tests.harness import Api, Stores

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
    for path, headers in (("/v1/plans", {}), ("/v1/admin/plans", api.admin("plans:read"))):
        first = (await api.client.get(path, params={"limit": 2}, headers=headers)).json()
        rest = await api.client.get(path, params={"limit": 2, "cursor": first["next_cursor"]}, headers=headers)
        assert first["items"] + rest.json()["items"] == answer.json()["items"]
        assert rest.json()["next_cursor"] is None
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


async def test_every_change_of_a_plan_is_told_and_a_refused_one_is_not(api: Api) -> None:
    admin = api.admin("plans:write")
    assert (await api.client.post("/v1/admin/plans", json=PLAN, headers=admin)).status_code == 201
    assert (await api.client.post("/v1/admin/plans", json=PLAN, headers=admin)).status_code == 409
    path = f"/v1/admin/plans/{PLAN['code']}"
    changes: list[dict[str, Any]] = [{"benefits": ["double_points"], "months": 2}, {"active": False}]
    for change in changes:
        assert (await api.client.patch(path, json=change, headers=admin)).status_code == 200
    assert (await api.client.patch(path, json={"name": "x"}, headers=admin | {"If-Match": '"1"'})).status_code == 412
    first, second, third = await api.emitted()
    picture: dict[str, Any] = {"plan_code": PLAN["code"], "revision": 1, "name": PLAN["name"], "months": PLAN["months"]}
    picture |= {"benefits": (), "active": True}
    assert isinstance(first, PlanChanged)
    assert first.model_dump(exclude={"id", "at"}) == picture
    picture |= {"revision": 2, "benefits": ("double_points",), "months": 2}
    assert second.model_dump(exclude={"id", "at"}) == picture
    assert third.model_dump(exclude={"id", "at"}) == picture | {"revision": 3, "active": False}
    await seed(api.rt)
    assert await api.emitted() == []


async def test_plans_from_before_are_told_once_by_the_migration(stores: Stores) -> None:
    name = "plans_of_before"
    stores.postgres.ensure_database(name)
    url = stores.postgres.url(name)
    await upgrade("billing", url, "0007")
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO plan (code, name, months, benefits, active, version, revision, created_at, updated_at) "
                    "VALUES ('old-card', '老卡', 6, '{double_points,live_replay}', false, 2, 5, now(), now())"
                )
            )
        await upgrade("billing", url)
        await upgrade("billing", url)
        async with engine.connect() as connection:
            [row] = (await connection.execute(text("SELECT event_id, type, body::text AS body FROM outbox"))).all()
    finally:
        await engine.dispose()
    stores.postgres.drop_database(name)
    told = PlanChanged.model_validate_json(row.body)
    assert (told.id, row.type) == (row.event_id, "billing.plan.changed")
    benefits = ("double_points", "live_replay")
    expected = {
        "plan_code": "old-card",
        "revision": 5,
        "name": "老卡",
        "months": 6,
        "benefits": benefits,
        "active": False,
    }
    assert told.model_dump(exclude={"id", "at"}) == expected
