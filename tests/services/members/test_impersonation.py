"""Impersonation: an admin sees what the member sees, changes nothing, is in the audit, and can be sent away."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from joserfc import jws

from kit.ids import new_id
from kit.revocations import revocations
from services.courses.app import service as courses
from tests.harness import Api, Run
from tests.services.members.steps import a_member


async def look(api: Api, member_id: Any, admin_id: UUID | None = None, *scopes: str, **body: Any) -> httpx.Response:
    path = f"/v1/admin/members/{member_id}/impersonation"
    headers = api.admin(*(scopes or ("members:write",)), admin_id=admin_id)
    return await api.client.post(path, json={"reason": "ticket 7"} | body, headers=headers)


def bearer(answer: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def mirror(api: Api) -> None:
    await api.run_due()
    await revocations.poll(api.rt.redis)


async def test_an_admin_sees_what_the_member_sees_and_changes_nothing(api: Api) -> None:
    member_id, headers = await a_member(api)
    admin_id = new_id()
    answer = await look(api, member_id, admin_id)
    assert (answer.status_code, answer.json()["expires_in"]) == (201, 1800)
    assert answer.headers["cache-control"] == "no-store"
    claims = jws.extract_compact(answer.json()["access_token"].encode()).payload
    assert f'"act":{{"sub":"{admin_id}"}}'.encode() in claims
    assert b'"role":"member"' in claims
    assert b'"scope":"read-only"' in claims

    seen = bearer(answer)
    assert (await api.client.get("/v1/me", headers=seen)).json()["id"] == str(member_id)
    for method, path, body in (
        ("PATCH", "/v1/me", {"nickname": "Mallory"}),
        ("DELETE", "/v1/me", None),
        ("POST", "/v1/me/check-ins", None),
        ("POST", "/v1/auth/logout", None),
        ("POST", "/v1/me/certificates", {"title": "x", "proof_url": "https://x"}),
    ):
        for key in ({}, {"Idempotency-Key": "k"}):
            refused = await api.client.request(method, path, json=body, headers=seen | key)
            assert (refused.status_code, refused.json()["code"]) == (403, "read_only_session"), path
    assert (await api.client.get("/v1/admin/members", headers=seen)).status_code == 403
    assert (await api.client.get("/v1/me", headers=headers)).json()["nickname"] != "Mallory"
    assert await api.emitted() == []

    audit = await api.client.get("/v1/admin/audit", params={"actor": str(admin_id)}, headers=api.admin("audit:read"))
    [noted] = audit.json()["items"]
    assert (noted["action"], noted["target"]) == ("member.impersonated", str(member_id))
    assert (noted["after"]["reason"], noted["after"]["session"]) == ("ticket 7", answer.json()["session_id"])


async def test_a_look_ends_after_half_an_hour(api: Api) -> None:
    member_id, _ = await a_member(api)
    seen = bearer(await look(api, member_id))
    api.clock.advance(timedelta(minutes=29))
    assert (await api.client.get("/v1/me", headers=seen)).status_code == 200
    api.clock.advance(timedelta(minutes=1, seconds=1))
    assert (await api.client.get("/v1/me", headers=seen)).status_code == 401


async def test_the_member_sees_the_look_and_ends_it_for_good(api: Api) -> None:
    member_id, headers = await a_member(api)
    answer = await look(api, member_id)
    seen, session_id = bearer(answer), answer.json()["session_id"]
    sessions = (await api.client.get("/v1/me/sessions", headers=headers)).json()["items"]
    assert [item["device"] for item in sessions if item["id"] == session_id] == ["客服只读查看 / support, read only"]
    assert (await api.client.delete(f"/v1/me/sessions/{session_id}", headers=headers)).status_code == 204
    for wait in (timedelta(0), timedelta(minutes=16), timedelta(minutes=13)):
        # Also when it ended longer ago than an ordinary token lives.
        api.clock.advance(wait)
        await mirror(api)
        assert (await api.client.get("/v1/me", headers=seen)).status_code == 401


async def test_only_writers_look_and_only_with_a_reason_at_somebody(api: Api) -> None:
    member_id, headers = await a_member(api)
    assert (await look(api, member_id, None, "members:read")).status_code == 403
    assert (await look(api, member_id, reason=" ")).status_code == 422
    assert (await look(api, new_id())).status_code == 404
    await api.client.delete("/v1/me", headers=headers)
    assert (await look(api, member_id)).status_code == 404
    audit = await api.client.get("/v1/admin/audit", headers=api.admin("audit:read"))
    assert audit.json()["items"] == []


def a_look(api: Api) -> dict[str, str]:
    return api.member(scope="read-only", act={"sub": str(new_id())})


async def test_every_service_refuses_writes_of_one_who_looks(run: Run) -> None:
    async with run(courses, seed=True) as api:
        [[lesson_id]] = await api.sql("SELECT id FROM lesson LIMIT 1")
        seen = a_look(api)
        assert (await api.client.get("/v1/me/learning", headers=seen)).status_code == 200
        body = {"position_s": 1, "watched": [[0, 1]]}
        refused = await api.client.put(f"/v1/lessons/{lesson_id}/progress", json=body, headers=seen)
        assert (refused.status_code, refused.json()["code"]) == (403, "read_only_session")


@pytest.mark.parametrize("claims", [{"act": {"sub": str(new_id())}}, {"scope": "read-only"}])
async def test_either_mark_is_enough_and_a_broken_one_is_no_token(api: Api, claims: dict[str, Any]) -> None:
    _, headers = await a_member(api)
    assert headers
    refused = await api.client.patch("/v1/me", json={}, headers=api.member(**claims))
    assert (refused.status_code, refused.json()["code"]) == (403, "read_only_session")
    broken = await api.client.get("/v1/me", headers=api.member(act={"sub": "x"}))
    assert broken.status_code == 401
