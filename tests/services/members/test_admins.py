"""Admins: logging in by password at the OAuth2 token endpoint, and the first of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kit.auth import SCOPES
from services.members.admins import create_admin
from services.members.app import service
from tests.harness import Api, Run

EMAIL, PASSWORD = "admin@heika.test", "correct horse battery"


@pytest.fixture
async def api(run: Run) -> AsyncIterator[Api]:
    """The service with a first admin."""
    async with run(service, admin_email=EMAIL, admin_password=PASSWORD) as api:
        yield api


async def token(api: Api, **form: Any) -> Any:
    return await api.client.post("/v1/auth/token", data=form)


async def log_in(api: Api, username: str = EMAIL, password: str = PASSWORD, **more: Any) -> Any:
    return await token(api, grant_type="password", username=username, password=password, **more)


async def test_the_first_admin_logs_in_and_may_do_everything(api: Api) -> None:
    answer = await log_in(api)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)
    assert set(body["scope"].split()) == set(SCOPES)
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await api.client.get("/v1/admin/members", headers=headers)).status_code == 200


async def test_asking_for_scopes_narrows_the_token(api: Api) -> None:
    body = (await log_in(api, EMAIL.upper(), scope="plans:read orders:read nonsense")).json()
    assert set(body["scope"].split()) == {"plans:read", "orders:read"}
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    refused = await api.client.get("/v1/admin/members", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_an_admin_with_scopes_gets_no_others(api: Api) -> None:
    await create_admin(api.rt, "desk@heika.test", "a password", ["members:read"])
    assert (await log_in(api, "desk@heika.test", "a password")).json()["scope"] == "members:read"
    refused = await log_in(api, "desk@heika.test", "a password", scope="members:write")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


async def test_a_wrong_password_and_an_unknown_email_look_the_same(api: Api) -> None:
    wrong, unknown = await log_in(api, password="wrong"), await log_in(api, "nobody@heika.test")
    for answer in (wrong, unknown):
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.json()["code"], answer.json()["error"]) == ("invalid_credentials", "invalid_grant")
    assert wrong.json()["detail"] == unknown.json()["detail"]


NO_REQUESTS: tuple[tuple[dict[str, str], str], ...] = (
    ({}, "invalid_request"),
    ({"grant_type": "password"}, "invalid_request"),
    ({"grant_type": "password", "username": EMAIL}, "invalid_request"),
    ({"grant_type": "refresh_token"}, "invalid_request"),
    ({"grant_type": "client_credentials", "client_id": "x"}, "invalid_request"),
    ({"grant_type": "authorization_code", "code": "x"}, "unsupported_grant_type"),
)


async def test_what_is_no_token_request_is_named(api: Api) -> None:
    for form, error in NO_REQUESTS:
        answer = await token(api, **form)
        assert (answer.status_code, answer.json()["error"]) == (400, error), form


async def test_bodies_that_are_no_form_are_refused(api: Api) -> None:
    for content, kind in (
        (b"{}", "application/json"),
        (b"\xff\xfe=\x00", "application/x-www-form-urlencoded"),
        (b"", ""),
    ):
        answer = await api.client.post("/v1/auth/token", content=content, headers={"content-type": kind})
        assert answer.status_code in {400, 422}


async def test_the_token_endpoint_refreshes_too(api: Api) -> None:
    first = (await log_in(api, scope="plans:read")).json()
    second = await token(api, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert second.status_code == 200
    reused = await token(api, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert reused.status_code == 401
    assert (reused.json()["code"], reused.json()["error"]) == ("refresh_token_reused", "invalid_grant")


async def test_twenty_failures_from_an_address_close_it_for_ten_minutes(run: Run) -> None:
    async with run(service, admin_email=EMAIL, admin_password=PASSWORD, limits_mode="strict") as api:
        assert (await log_in(api)).status_code == 200
        for number in range(20):
            assert (await log_in(api, f"a{number}@heika.test")).status_code == 400
        refused = await log_in(api)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) <= 600
        code = await api.client.post("/v1/auth/otp/verify", json={"phone": "+8613800138000", "code": "1"})
        assert code.status_code == 429


async def test_ten_failures_close_an_account_wherever_they_come_from(api: Api) -> None:
    for _ in range(10):
        assert (await log_in(api, password="wrong")).status_code == 400
    assert (await log_in(api)).status_code == 429


async def test_successes_use_up_no_limit(run: Run) -> None:
    async with run(service, admin_email=EMAIL, admin_password=PASSWORD, limits_mode="strict") as api:
        for _ in range(25):
            assert (await log_in(api)).status_code == 200


async def test_a_changed_password_ends_the_sessions_and_the_same_one_does_not(api: Api) -> None:
    pair = (await log_in(api)).json()
    await create_admin(api.rt, EMAIL, PASSWORD)
    assert await api.sql("SELECT id FROM login_session WHERE revoked_at IS NOT NULL") == []
    await create_admin(api.rt, EMAIL, "another")
    assert (await token(api, grant_type="refresh_token", refresh_token=pair["refresh_token"])).status_code == 401
    assert (await log_in(api)).status_code == 400
    assert (await log_in(api, password="another")).status_code == 200


async def test_processes_that_start_together_make_one_admin(api: Api) -> None:
    await asyncio.gather(*(create_admin(api.rt, "one@heika.test", "a password") for _ in range(4)))
    assert len(await api.sql("SELECT id FROM admin")) == 2


async def test_a_member_is_no_admin(api: Api) -> None:
    for path in ("/v1/admin/members", "/v1/admin/audit"):
        assert (await api.client.get(path)).status_code == 401
        assert (await api.client.get(path, headers=api.member())).status_code == 403
        assert (await api.client.get(path, headers=api.admin("plans:read"))).status_code == 403
