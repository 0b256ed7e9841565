"""Certificates: one open application, a decision with its reason, and the instructor it makes."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from contracts.members import MemberChanged
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_merging import a_wechat_member, bind

PROOF = {"title": "中式面点师 三级", "issuer": "人社部", "proof_url": "https://proofs.example/1.jpg"}


async def apply(api: Api, headers: dict[str, str], **more: Any) -> httpx.Response:
    return await api.client.post("/v1/me/certificates", json=PROOF | more, headers=headers)


async def decide(api: Api, certificate_id: Any, admin_id: UUID | None = None, **body: Any) -> httpx.Response:
    path = f"/v1/admin/certificates/{certificate_id}/decision"
    return await api.client.post(path, json=body, headers=api.admin("members:write", admin_id=admin_id))


async def waiting(api: Api, **params: Any) -> list[dict[str, Any]]:
    answer = await api.client.get("/v1/admin/certificates", params=params, headers=api.admin("members:read"))
    assert answer.status_code == 200
    return list(answer.json()["items"])


async def test_an_approved_certificate_makes_an_instructor(api: Api) -> None:
    member_id, headers = await a_member(api)
    made = await apply(api, headers)
    assert (made.status_code, made.json()["status"], made.json()["decided_at"]) == (201, "pending", None)
    certificate_id = made.json()["id"]
    assert [item["member"]["id"] for item in await waiting(api)] == [str(member_id)]
    assert await api.emitted() == []

    admin_id = new_id()
    answer = await decide(api, certificate_id, admin_id, decision="approve")
    assert (answer.status_code, answer.json()["status"]) == (200, "approved")
    assert answer.json()["member"]["tier"] == "instructor"
    [told] = await api.emitted()
    assert isinstance(told, MemberChanged)
    assert (told.member_id, told.tier) == (member_id, "instructor")

    again = await decide(api, certificate_id, decision="approve")
    assert again.json() == answer.json()
    assert await api.emitted() == []
    assert await waiting(api) == []
    member = (await api.client.get(f"/v1/admin/members/{member_id}", headers=api.admin())).json()
    assert (member["tier"], member["evidence"]["certificate"]["id"]) == ("instructor", certificate_id)
    audit = await api.client.get("/v1/admin/audit", params={"target": str(member_id)}, headers=api.admin("audit:read"))
    [noted] = audit.json()["items"]
    assert (noted["actor"], noted["action"]) == (str(admin_id), "certificate.approved")
    assert (noted["before"], noted["after"]["tier"]) == ({"tier": "potential"}, "instructor")


async def test_a_rejection_says_why_and_another_application_may_follow(api: Api) -> None:
    member_id, headers = await a_member(api)
    certificate_id = (await apply(api, headers)).json()["id"]
    assert (await decide(api, certificate_id, decision="reject")).status_code == 422
    answer = await decide(api, certificate_id, decision="reject", reason="看不清")
    assert (answer.status_code, answer.json()["reason"], answer.json()["member"]["tier"]) == (
        200,
        "看不清",
        "potential",
    )
    other_way = await decide(api, certificate_id, decision="approve")
    assert (other_way.status_code, other_way.json()["code"]) == (409, "certificate_decided")
    assert (await apply(api, headers, title="西式面点师")).status_code == 201
    mine = (await api.client.get("/v1/me/certificates", headers=headers)).json()["items"]
    assert [(item["title"], item["status"], item["reason"]) for item in mine] == [
        ("西式面点师", "pending", None),
        ("中式面点师 三级", "rejected", "看不清"),
    ]
    assert await api.emitted() == []
    assert len(await waiting(api, status="rejected", member_id=str(member_id))) == 1


async def test_of_many_applications_at_once_one_is_open(api: Api) -> None:
    _, headers = await a_member(api)
    answers = await asyncio.gather(*(apply(api, headers) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"certificate_open"}
    assert len(await waiting(api)) == 1


async def test_of_two_decisions_at_once_one_counts(api: Api) -> None:
    _, headers = await a_member(api)
    certificate_id = (await apply(api, headers)).json()["id"]
    answers = await asyncio.gather(
        decide(api, certificate_id, decision="approve"), decide(api, certificate_id, decision="reject", reason="no")
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


@pytest.mark.parametrize(
    "body",
    [
        {"title": ""},
        {"title": "x" * 121},
        {"proof_url": "javascript:alert(1)"},
        {"proof_url": "http://proofs.example/1"},
        {"proof_url": "https://proofs.example/a b"},
        {"proof_url": None},
        {"title": "a\u0000"},
    ],
)
async def test_a_bad_application_is_refused(api: Api, body: dict[str, Any]) -> None:
    _, headers = await a_member(api)
    assert (await apply(api, headers, **body)).status_code == 422
    assert await waiting(api) == []


async def test_certificates_are_private_and_go_with_their_member(api: Api) -> None:
    _, headers = await a_member(api)
    certificate_id = (await apply(api, headers)).json()["id"]
    assert (await api.client.get("/v1/me/certificates", headers=api.member())).json()["items"] == []
    assert (await apply(api, api.member())).status_code == 404
    assert (await api.client.get("/v1/admin/certificates", headers=headers)).status_code == 403
    path = f"/v1/admin/certificates/{certificate_id}/decision"
    reader = api.admin("members:read")
    assert (await api.client.post(path, json={"decision": "approve"}, headers=reader)).status_code == 403
    assert (await api.client.delete("/v1/me", headers=headers)).status_code == 204
    gone = await decide(api, certificate_id, decision="approve")
    assert (gone.status_code, gone.json()["code"]) == (404, "certificate_not_found")
    assert await api.sql("SELECT id FROM certificate") == []


async def test_certificates_follow_a_merged_account(api: Api) -> None:
    _, headers = await a_member(api)
    certificate_id = (await apply(api, headers)).json()["id"]
    await decide(api, certificate_id, decision="approve")
    assert (await apply(api, headers, title="西式面点师")).status_code == 201
    wechat_id, wechat = await a_wechat_member(api)
    assert (await apply(api, wechat, title="裱花师")).status_code == 201
    merged = await bind(api, wechat)
    assert merged.status_code == 200
    kept_id = merged.json()["member"]["id"]
    kept = {"Authorization": f"Bearer {merged.json()['access_token']}"}
    mine = (await api.client.get("/v1/me/certificates", headers=kept)).json()["items"]
    own = "裱花师" if kept_id == str(wechat_id) else "西式面点师"
    assert [(item["title"], item["status"]) for item in mine] == [(own, "pending"), ("中式面点师 三级", "approved")]
    member = (await api.client.get(f"/v1/admin/members/{kept_id}", headers=api.admin())).json()
    assert (member["tier"], member["evidence"]["certificate"]["id"]) == ("instructor", certificate_id)
