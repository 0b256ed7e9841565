"""What admins do: campaigns, grants, figures."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from contracts.billing import CouponRedeemed, CouponReserved
from contracts.referrals import CouponIssued
from kit.ids import new_id
from services.referrals import newcomers
from services.referrals.app import service
from services.referrals.models import Model
from services.referrals.seed import seed
from tests.harness import Api, Run
from tests.services.referrals.conftest import KEYS
from tests.services.referrals.world import campaign, claim, coupons, member

CAMPAIGNS = "/v1/admin/coupon-campaigns"
CHANNELS = "/v1/admin/channels"


async def test_a_campaign_is_made_read_changed_and_closed(api: Api) -> None:
    made = await campaign(api, code="spring", kind="percent", value=20)
    path, admin = f"{CAMPAIGNS}/{made['id']}", api.admin()
    assert (made["code"], made["claimed"], made["version"]) == ("SPRING", 0, 1)

    read = await api.client.get(path, headers=admin)
    assert (read.json(), read.headers["ETag"]) == (made, '"1"')
    changed = await api.client.patch(path, headers=admin | {"If-Match": '"1"'}, json={"value": 30, "code": None})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert changed.json() == made | {"value": 30, "code": None, "version": 2}
    stale = await api.client.patch(path, headers=admin | {"If-Match": '"1"'}, json={"value": 40})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    assert (await api.client.delete(path, headers=admin | {"If-Match": '"1"'})).status_code == 412
    assert (await api.client.delete(path, headers=admin | {"If-Match": '"2"'})).status_code == 204

    assert (await api.client.get(path, headers=admin)).status_code == 404
    gone = await claim(api, made["id"], new_id())
    assert (gone.status_code, gone.json()["code"]) == (404, "coupon_unknown")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "percent", "value": 101},
        {"value": 0},
        {"value": True},
        {"value": "500"},
        {"value": 1.5},
        {"total": 0},
        {"total": 2**53 + 1},
        {"ends_at": "2020-01-01T00:00:00Z"},
        {"ends_at": None, "valid_days": None},
        {"audience": "friends"},
        {"audience": "tier:"},
        {"audience": "tier:champion"},
        {"title": " "},
        {"title": "a\x00b"},
        {"min_amount": -1},
        {"starts_at": 0},
        {"starts_at": "0001-01-01T00:00:00Z"},
        {"ends_at": "9999-12-31T23:59:59Z"},
        {"surprise": 1},
    ],
)
async def test_impossible_terms_are_refused_when_made_and_when_changed(api: Api, wrong: dict[str, Any]) -> None:
    made = await campaign(api)
    usual = {name: made[name] for name in made if name not in {"id", "claimed", "version", "created_at"}}

    created = await api.client.post(CAMPAIGNS, headers=api.admin(), json=usual | wrong)
    changed = await api.client.patch(f"{CAMPAIGNS}/{made['id']}", headers=api.admin(), json=wrong)

    assert (created.status_code, created.json()["code"]) == (422, "validation_failed")
    assert (changed.status_code, changed.json()["code"]) == (422, "validation_failed")
    assert created.json()["errors"]
    assert changed.json()["errors"]


async def test_a_field_that_must_have_a_value_is_not_taken_away(api: Api) -> None:
    made = await campaign(api)

    answer = await api.client.patch(f"{CAMPAIGNS}/{made['id']}", headers=api.admin(), json={"title": None})

    assert answer.status_code == 422


async def test_a_code_belongs_to_one_campaign_until_that_is_closed(api: Api) -> None:
    made = await campaign(api, code="ONCE")
    taken = await api.client.post(
        CAMPAIGNS,
        headers=api.admin(),
        json={"title": "又", "code": "once", "kind": "amount", "value": 1, "total": 1, "valid_days": 1},
    )
    assert (taken.status_code, taken.json()["code"]) == (409, "campaign_code_taken")

    await api.client.delete(f"{CAMPAIGNS}/{made['id']}", headers=api.admin())

    assert (await campaign(api, code="once"))["code"] == "ONCE"


async def test_a_total_never_falls_below_what_was_given_and_held_coupons_keep_their_terms(api: Api) -> None:
    made = await campaign(api, total=2, value=300)
    holder = await member(api)
    await claim(api, made["id"], holder)
    await claim(api, made["id"], new_id())
    path = f"{CAMPAIGNS}/{made['id']}"

    low = await api.client.patch(path, headers=api.admin(), json={"total": 1})
    high = await api.client.patch(path, headers=api.admin(), json={"total": 3, "value": 900})

    assert (low.status_code, low.json()["code"]) == (409, "total_below_claimed")
    assert high.status_code == 200
    assert [coupon["value"] for coupon in await coupons(api, holder)] == [300]
    assert (await claim(api, made["id"], new_id())).json()["value"] == 900
    assert (await claim(api, made["id"], new_id())).json()["code"] == "coupon_exhausted"


async def test_the_campaign_of_a_rule_cannot_be_deleted(api: Api) -> None:
    (rule,) = (await api.client.get("/v1/admin/referral-rules", headers=api.admin())).json()["items"]

    answer = await api.client.delete(f"{CAMPAIGNS}/{rule['newcomer_campaign_id']}", headers=api.admin())

    assert (answer.status_code, answer.json()["code"]) == (409, "campaign_in_use")


async def test_grants_reach_whom_they_name_and_stop_at_the_total(api: Api) -> None:
    made = await campaign(api, total=3, audience="tier:expert")
    members = [await member(api) for _ in range(4)]
    await api.emitted()
    path = f"{CAMPAIGNS}/{made['id']}/grants"

    first = await api.client.post(path, headers=api.admin(), json={"member_ids": [str(one) for one in members[:2]]})
    second = await api.client.post(path, headers=api.admin(), json={"member_ids": [str(one) for one in members]})

    assert (first.status_code, second.status_code) == (201, 201)
    assert [item["member_id"] for item in first.json()["granted"]] == [str(one) for one in members[:2]]
    assert [item["member_id"] for item in second.json()["granted"]] == [str(members[2])]
    assert [(item["member_id"], item["code"]) for item in second.json()["refused"]] == [
        (str(members[0]), "coupon_already_claimed"),
        (str(members[1]), "coupon_already_claimed"),
        (str(members[3]), "coupon_exhausted"),
    ]
    assert len([event for event in await api.emitted() if isinstance(event, CouponIssued)]) == 3
    assert len(await coupons(api, members[0])) == 1


async def test_nobody_gets_no_coupon(api: Api) -> None:
    made = await campaign(api, total=3)
    somebody, nobody = await member(api), new_id()
    path = f"{CAMPAIGNS}/{made['id']}/grants"

    answer = await api.client.post(path, headers=api.admin(), json={"member_ids": [str(nobody), str(somebody)]})

    assert [item["member_id"] for item in answer.json()["granted"]] == [str(somebody)]
    assert answer.json()["refused"] == [{"member_id": str(nobody), "code": "member_unknown"}]
    assert (await api.client.get(f"{CAMPAIGNS}/{made['id']}/stats", headers=api.admin())).json()["claimed"] == 1


async def test_who_registered_just_now_is_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomers, "WAITS_S", (0.01,) * 500)
    made, here = await campaign(api, total=9), await campaign(api, total=9, audience="channel:douyin", per_member=2)
    somebody = new_id()
    key = {"Idempotency-Key": str(new_id())}
    file = {"file": ("a.csv", f"member_id\n{somebody}\n")}
    waiting = [
        api.client.post(f"{CAMPAIGNS}/{made['id']}/grants", headers=api.admin(), json={"member_ids": [str(somebody)]}),
        api.client.post(f"{CAMPAIGNS}/{here['id']}/grant-batches", headers=api.admin(), files=file),
        claim(api, here["id"], somebody),
        api.client.post(f"/v1/coupon-campaigns/{here['id']}/claims", headers=api.member(somebody) | key),
    ]
    asked = [asyncio.create_task(one) for one in waiting]
    await asyncio.sleep(0.1)
    assert not any(one.done() for one in asked)
    await member(api, member_id=somebody, channel="douyin")

    granted, batch, *claimed = await asyncio.gather(*asked)
    assert [item["member_id"] for item in granted.json()["granted"]] == [str(somebody)]
    assert (batch.status_code, [answer.status_code for answer in claimed]) == (202, [201, 201])


async def test_figures_say_what_became_of_the_coupons(api: Api) -> None:
    made = await campaign(api, total=9, valid_days=5)
    ids = [(await claim(api, made["id"], new_id())).json()["id"] for _ in range(4)]
    told: dict[str, Any] = {"order_id": new_id(), "member_id": new_id()}
    await api.handle(CouponReserved(coupon_id=ids[0], **told), CouponRedeemed(coupon_id=ids[1], **told))
    await api.client.delete(f"{CAMPAIGNS}/{made['id']}/coupons/{ids[2]}", headers=api.admin())
    path = f"{CAMPAIGNS}/{made['id']}/stats"

    now = (await api.client.get(path, headers=api.admin())).json()
    admin_later = api.clock
    admin_later.advance(timedelta(days=6))
    later = (await api.client.get(path, headers=api.admin())).json()

    expected = {"total": 9, "claimed": 4, "issued": 1, "reserved": 1, "redeemed": 1, "expired": 0, "revoked": 1}
    assert now == expected
    assert later == expected | {"issued": 0, "expired": 1}


@pytest.mark.parametrize("path", [CAMPAIGNS, CHANNELS, "/v1/admin/referral-rules", f"{CHANNELS}/stats"])
async def test_only_admins_with_the_right_scope_look(api: Api, path: str) -> None:
    assert (await api.client.get(path)).status_code == 401
    assert (await api.client.get(path, headers=api.member())).status_code == 403
    assert (await api.client.get(path, headers=api.admin("plans:read"))).status_code == 403
    assert (await api.client.get(path, headers=api.admin("coupons:read"))).status_code == 200


async def test_only_admins_with_the_right_scope_change(api: Api) -> None:
    made = await campaign(api)
    reader = api.admin("coupons:read")
    for method, path in [
        ("POST", CAMPAIGNS),
        ("PATCH", f"{CAMPAIGNS}/{made['id']}"),
        ("DELETE", f"{CAMPAIGNS}/{made['id']}"),
        ("POST", f"{CAMPAIGNS}/{made['id']}/grants"),
        ("POST", CHANNELS),
        ("PATCH", f"{CHANNELS}/douyin"),
        ("DELETE", f"{CHANNELS}/douyin"),
    ]:
        assert (await api.client.request(method, path, headers=reader, json={})).status_code in {403, 422}, path
        assert (await api.client.request(method, path, json={})).status_code in {401, 422}, path
    assert (await api.client.get(f"{CAMPAIGNS}/{made['id']}", headers=reader)).json() == made


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
async def test_the_migrations_make_exactly_the_declared_tables(api: Api) -> None:
    async with api.rt.db.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), Model.metadata)
        )

    assert differences == []


async def test_due_work_run_again_does_nothing(api: Api) -> None:
    await campaign(api)

    assert await api.run_due() == 0
    assert await api.run_due() == 0


async def test_without_a_key_the_service_does_not_start(run: Run) -> None:
    with pytest.raises(RuntimeError, match="HEIKA_COUPON_KEY"):
        async with run(service, coupon_keys=()):
            pass


async def test_production_knows_the_channels_and_the_rule_but_opens_no_campaign(run: Run) -> None:
    async with run(service, env="production", coupon_keys=KEYS, sealing_key=KEYS[0]) as api:
        listed = (await api.client.get(CHANNELS, headers=api.admin(), params={"limit": 100})).json()["items"]
        rules = (await api.client.get("/v1/admin/referral-rules", headers=api.admin())).json()["items"]
        campaigns = (await api.client.get("/v1/coupon-campaigns")).json()["items"]

    assert (len(listed), len(rules), campaigns) == (16, 1, [])


async def test_the_seed_leaves_an_admins_edit_alone(api: Api) -> None:
    (rule,) = (await api.client.get("/v1/admin/referral-rules", headers=api.admin())).json()["items"]
    path = f"{CAMPAIGNS}/{rule['newcomer_campaign_id']}"
    assert (await api.client.get(path, headers=api.admin())).json()["claimable"] is True
    await api.client.patch(path, headers=api.admin(), json={"claimable": False})

    await seed(api.rt)

    assert (await api.client.get(path, headers=api.admin())).json()["claimable"] is False
