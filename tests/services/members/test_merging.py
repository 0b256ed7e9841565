"""Binding a phone: a free one is taken, one with an account makes the two one, and nothing is lost or counted twice."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from contracts.billing import OrderRefunded
from contracts.members import MemberChanged, MemberMerged, MembershipChanged
from kit import clock
from kit.ids import new_id
from kit.revocations import revocations
from tests.harness import Api
from tests.services.members.steps import PHONE, a_member, bearer, code_of, send_code, sign_in
from tests.services.members.test_evidence import approved, finished
from tests.services.members.test_membership import paid
from tests.services.members.test_wechat import log_in, wechat_user


async def a_wechat_member(api: Api, openid: str = "openid-1") -> tuple[UUID, dict[str, str]]:
    await wechat_user(api, openid, f"code of {openid}")
    signed_in = (await log_in(api, f"code of {openid}")).json()
    await api.emitted()
    return UUID(signed_in["member"]["id"]), bearer(signed_in)


async def bind(api: Api, headers: dict[str, str], phone: str = PHONE) -> httpx.Response:
    api.clock.advance(timedelta(minutes=1))
    assert (await send_code(api, phone)).status_code == 202
    body = {"phone": phone, "code": await code_of(api, phone)}
    return await api.client.post("/v1/me/phone", json=body, headers=headers)


async def mirror(api: Api) -> None:
    """What every process does within five seconds."""
    await api.run_due()
    await revocations.poll(api.rt.redis)


async def test_a_free_phone_is_bound_and_leads_to_the_same_account(api: Api) -> None:
    member_id, headers = await a_wechat_member(api)
    answer = await bind(api, headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["member"]["id"] == str(member_id)
    assert answer.json()["member"]["phone_masked"] == "138****8000"
    assert await api.emitted() == []
    api.clock.advance(timedelta(minutes=1))
    assert (await sign_in(api))["member"]["id"] == str(member_id)
    again = await bind(api, headers)
    assert (again.status_code, again.json()["member"]["id"]) == (200, str(member_id))
    assert await api.emitted() == []


async def test_a_wrong_code_binds_nothing(api: Api) -> None:
    _, headers = await a_wechat_member(api)
    await send_code(api)
    refused = await api.client.post("/v1/me/phone", json={"phone": PHONE, "code": "no"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_code")
    assert (await api.client.post("/v1/me/phone", json={"phone": PHONE, "code": "no"})).status_code == 401
    assert await api.sql("SELECT 1 FROM identity WHERE kind = 'phone'") == []


async def test_a_phone_with_an_account_makes_the_two_one(api: Api) -> None:
    kept_id, kept = await a_member(api)
    merged_id, merged = await a_wechat_member(api)
    months = [paid(kept_id, months=1), paid(merged_id, months=3)]
    await api.handle(*months)
    await api.emitted()

    answer = await bind(api, merged)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["member"]["id"], answer.json()["created"]) == (str(kept_id), False)
    told: dict[type, list[Any]] = {}
    for event in await api.emitted():
        told.setdefault(type(event), []).append(event)
    assert told.keys() == {MemberMerged, MemberChanged, MembershipChanged}
    assert [(event.kept_id, event.merged_id) for event in told[MemberMerged]] == [(kept_id, merged_id)]
    assert [event.member_id for event in told[MemberChanged]] == [kept_id]
    pictures = {event.member_id: event for event in told[MembershipChanged]}
    assert {event.source_id for event in pictures[kept_id].segments} == {order.order_id for order in months}
    assert pictures[merged_id].segments == ()
    assert pictures[merged_id].access_until is None

    membership = (await api.client.get("/v1/me/membership", headers=bearer(answer.json()))).json()
    segments = (await api.client.get("/v1/me/membership/segments", headers=kept)).json()["items"]
    # What ran side by side runs one after the other.
    assert sorted(segment["months"] for segment in segments) == [1, 3]
    assert segments[0]["ends_at"] == segments[1]["starts_at"]
    assert membership["ends_at"] == segments[1]["ends_at"]
    by_wechat = (await log_in(api, "code of openid-1")).json()
    assert by_wechat["member"]["id"] == str(kept_id)


async def test_the_merged_accounts_tokens_stop_working(api: Api) -> None:
    await a_member(api)
    await wechat_user(api)
    signed_in = (await log_in(api)).json()
    await bind(api, bearer(signed_in))
    await mirror(api)
    refused = await api.client.get("/v1/me", headers=bearer(signed_in))
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    refused = await api.client.post("/v1/auth/refresh", json={"refresh_token": signed_in["refresh_token"]})
    assert refused.status_code == 401


async def test_points_check_ins_and_evidence_follow_and_count_once(api: Api) -> None:
    kept_id, kept = await a_member(api)
    merged_id, merged = await a_wechat_member(api)
    both, own = new_id(), new_id()
    await api.handle(
        finished(kept_id, lesson_id=both), finished(merged_id, lesson_id=both), finished(merged_id, lesson_id=own)
    )
    await api.handle(approved(merged_id))
    await api.client.post("/v1/me/check-ins", headers=kept)
    await api.client.post("/v1/me/check-ins", headers=merged)
    api.clock.advance(timedelta(days=1))
    # A day later their old tokens are over.
    await api.client.post("/v1/me/check-ins", headers=api.member(merged_id))
    assert (await bind(api, api.member(merged_id))).status_code == 200
    body = (await api.client.get(f"/v1/admin/members/{kept_id}", headers=api.admin())).json()
    assert body["evidence"] == {"lesson_finished": 2, "work_approved": 1}
    # Two lessons, a work, two days of check-ins worth 1 and 2.
    assert body["points"] == 5 + 5 + 10 + 1 + 2
    assert body["tier"] == "beginner"
    items = (await api.client.get("/v1/me/check-ins", headers=api.member(kept_id))).json()
    assert [item["streak"] for item in items["items"]] == [1, 2]
    assert items["streak"] == 2


async def test_days_of_both_make_one_streak(api: Api) -> None:
    kept_id, kept = await a_member(api)
    merged_id, _ = await a_wechat_member(api)
    await api.client.post("/v1/me/check-ins", headers=kept)
    for _ in range(2):
        api.clock.advance(timedelta(days=1))
        await api.client.post("/v1/me/check-ins", headers=api.member(merged_id))
    await bind(api, api.member(merged_id))
    api.clock.advance(timedelta(days=1))
    answer = await api.client.post("/v1/me/check-ins", headers=api.member(kept_id))
    assert (answer.json()["streak"], answer.json()["points"]) == (4, 4)


async def test_what_is_told_late_of_the_merged_goes_to_the_kept(api: Api) -> None:
    kept_id, _ = await a_member(api)
    merged_id, merged = await a_wechat_member(api)
    order = paid(merged_id, months=3)
    await bind(api, merged)
    await api.handle(order, finished(merged_id))
    path = f"/v1/admin/members/{kept_id}"
    body = (await api.client.get(path, headers=api.admin())).json()
    assert (body["membership"]["status"], body["evidence"]) == ("active", {"lesson_finished": 1})
    assert await api.sql("SELECT 1 FROM segment WHERE member_id = :id", id=merged_id) == []
    gone: dict[str, Any] = {
        "refund_id": new_id(),
        "amount": 4900,
        "currency": "CNY",
        "full": True,
        "removes_time": True,
    }
    await api.handle(OrderRefunded(order_id=order.order_id, member_id=merged_id, refunded_at=clock.now(), **gone))
    assert (await api.client.get(path, headers=api.admin())).json()["membership"]["status"] == "expired"


async def test_money_told_of_while_the_accounts_merge_is_never_lost(api: Api) -> None:
    for turn in range(4):
        phone = f"+861380013800{turn}"
        kept_id, _ = await a_member(api, phone)
        merged_id, merged = await a_wechat_member(api, f"openid-{turn}")
        orders = [paid(merged_id, months=1) for _ in range(4)]
        await asyncio.gather(bind(api, merged, phone), *(api.handle(order) for order in orders))
        held = await api.sql(
            "SELECT member_id FROM segment WHERE source_id = ANY(:ids)", ids=[o.order_id for o in orders]
        )
        assert [row.member_id for row in held] == [kept_id] * 4


async def test_two_bindings_at_once_merge_once(api: Api) -> None:
    kept_id, _ = await a_member(api)
    _, merged = await a_wechat_member(api)
    api.clock.advance(timedelta(minutes=1))
    await send_code(api)
    body = {"phone": PHONE, "code": await code_of(api)}
    answers = await asyncio.gather(*(api.client.post("/v1/me/phone", json=body, headers=merged) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 4
    assert [event for event in await api.emitted() if isinstance(event, MemberMerged)] != []
    assert len(await api.sql("SELECT 1 FROM identity WHERE member_id = :id", id=kept_id)) == 2


async def test_who_has_a_phone_or_another_wechat_is_refused(api: Api) -> None:
    _, merged = await a_wechat_member(api)
    await bind(api, merged)
    refused = await bind(api, merged, "+8613900139000")
    assert (refused.status_code, refused.json()["code"]) == (409, "phone_already_bound")
    _, other = await a_wechat_member(api, "openid-2")
    refused = await bind(api, other)
    assert (refused.status_code, refused.json()["code"]) == (409, "wechat_already_bound")
    assert await api.sql("SELECT 1 FROM member WHERE merged_into IS NOT NULL") == []


async def test_a_frozen_account_is_not_thawed_by_merging(api: Api) -> None:
    kept_id, _ = await a_member(api)
    await api.client.patch(f"/v1/admin/members/{kept_id}", json={"frozen": True}, headers=api.admin())
    await api.emitted()
    _, merged = await a_wechat_member(api)
    refused = await bind(api, merged)
    assert (refused.status_code, refused.json()["code"]) == (403, "account_frozen")
    assert await api.emitted() == []
