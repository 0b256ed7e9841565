"""The caller's profile, and being forgotten."""

from typing import Any

from contracts.members import MemberChanged, MemberErased, MemberRegistered
from kit.revocations import revocations
from services.members.profile import ERASED_NAME
from services.members.revocations import mirror_revocations
from tests.harness import Api
from tests.services.members.steps import PHONE, a_member, bearer, sign_in
from tests.services.members.test_membership import paid


async def test_a_profile_has_what_the_api_promises(api: Api) -> None:
    _, headers = await a_member(api)
    answer = await api.client.get("/v1/me", headers=headers)
    assert set(answer.json()) == {
        "id", "nickname", "avatar_url", "phone_masked", "city", "bio", "tier", "roles", "labels", "language",
        "created_at",
    }  # fmt: skip


async def test_a_changed_profile_is_told_once(api: Api) -> None:
    member_id, headers = await a_member(api)
    wanted = {"nickname": "面包师小王", "city": "上海", "bio": "爱吐司", "avatar_url": "https://img.example/a.png"}
    for _ in range(2):
        answer = await api.client.patch("/v1/me", json=wanted, headers=headers)
        assert answer.status_code == 200
        assert {name: answer.json()[name] for name in wanted} == wanted
    [told] = await api.emitted()
    assert isinstance(told, MemberChanged)
    assert (told.member_id, told.nickname, told.tier) == (member_id, "面包师小王", "potential")
    cleared = await api.client.patch("/v1/me", json={"bio": None}, headers=headers)
    assert (cleared.json()["bio"], cleared.json()["city"]) == (None, "上海")


NO_PROFILES: tuple[dict[str, Any], ...] = (
    {"nickname": ""},
    {"nickname": None},
    {"nickname": " "},
    {"nickname": "x" * 31},
    {"nickname": "nul\u0000"},
    {"nickname": 5},
    {"avatar_url": "javascript:alert(1)"},
    {"avatar_url": "https://a b"},
    {"bio": "x" * 501},
    {"city": ["x"]},
)


async def test_what_a_profile_cannot_hold_is_refused(api: Api) -> None:
    _, headers = await a_member(api)
    before = (await api.client.get("/v1/me", headers=headers)).json()
    for patch in NO_PROFILES:
        refused = await api.client.patch("/v1/me", json=patch, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed"), patch
    assert (await api.client.get("/v1/me", headers=headers)).json() == before
    assert await api.emitted() == []


async def test_a_member_cannot_raise_their_own_tier(api: Api) -> None:
    _, headers = await a_member(api)
    answer = await api.client.patch("/v1/me", json={"tier": "expert", "roles": ["organizer"]}, headers=headers)
    assert (answer.json()["tier"], answer.json()["roles"]) == ("potential", [])


async def test_an_erased_member_leaves_nothing_that_names_them_and_the_phone_is_free(api: Api) -> None:
    signed_in = await sign_in(api)
    headers, member_id = bearer(signed_in), signed_in["member"]["id"]
    await api.client.patch("/v1/me", json={"nickname": "王小明", "bio": "电话 138"}, headers=headers)
    await api.client.post("/v1/me/check-ins", headers=headers)
    order = paid(signed_in["member"]["id"])
    await api.handle(order)
    await api.emitted()

    assert (await api.client.delete("/v1/me", headers=headers)).status_code == 204
    changed, erased = await api.emitted()
    assert isinstance(changed, MemberChanged)
    assert changed.nickname == ERASED_NAME
    assert isinstance(erased, MemberErased)
    assert str(erased.member_id) == member_id
    for table in ("identity", "otp", "sandbox_sms", "check_in", "point_entry"):
        assert await api.sql(f"SELECT 1 FROM {table}") == [], table  # noqa: S608 - the names above
    [row] = await api.sql("SELECT member::text AS row FROM member")
    assert "王小明" not in row.row
    assert len(await api.sql("SELECT 1 FROM segment")) == 1

    assert (await api.client.get("/v1/me", headers=headers)).status_code == 401
    refused = await api.client.post("/v1/auth/refresh", json={"refresh_token": signed_in["refresh_token"]})
    assert refused.status_code == 401
    await mirror_revocations(api.rt)
    await revocations.poll(api.rt.redis)
    assert (await api.client.get("/v1/me", headers=headers)).status_code == 401

    again = await sign_in(api, PHONE)
    assert again["created"] is True
    assert again["member"]["id"] != member_id
    [registered] = await api.emitted()
    assert isinstance(registered, MemberRegistered)


async def test_what_admins_wrote_about_somebody_goes_with_them(api: Api) -> None:
    member_id, headers = await a_member(api)
    path = f"/v1/admin/members/{member_id}"
    patch = {"note": "王小明，面包店老板", "labels": ["面包店"], "tier": "beginner"}
    assert (await api.client.patch(path, json=patch, headers=api.admin())).status_code == 200
    assert (await api.client.delete("/v1/me", headers=headers)).status_code == 204
    acts = (await api.client.get(f"/v1/admin/audit?target={member_id}", headers=api.admin())).json()["items"]
    assert [(act["action"], act["before"], act["after"]) for act in acts] == [
        ("member.changed", {"tier": "potential"}, {"tier": "beginner"})
    ]


async def test_the_tiers_and_roles_have_rules_in_both_languages(api: Api) -> None:
    answer = await api.client.get("/v1/tiers")
    body = answer.json()
    assert [tier["code"] for tier in body["tiers"]] == ["potential", "beginner", "enthusiast", "expert", "instructor"]
    assert [role["code"] for role in body["roles"]] == [
        "organizer", "influencer", "seeker", "sharer", "challenger", "lurker",
    ]  # fmt: skip
    for item in body["tiers"] + body["roles"]:
        assert all(item[field][language] for field in ("name", "rule") for language in ("zh", "en"))
    unchanged = await api.client.get("/v1/tiers", headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.status_code == 304
