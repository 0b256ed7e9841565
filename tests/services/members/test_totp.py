"""One-time passwords of admins: the RFC's vectors, logins that need one, and accounts that lock."""

import base64
from datetime import timedelta
from typing import Any

import pytest

from kit import clock
from services.members.totp import STEP_S, password_of
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_admins import PASSWORD, api, log_in

__all__ = ["api"]


@pytest.mark.parametrize(
    ("at", "password"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_the_vectors_of_rfc_6238(at: int, password: str) -> None:
    # Appendix B shows eight digits, of which these are the last six.
    assert password_of(b"12345678901234567890", at // STEP_S) == password


def now_of(secret: str, drift: int = 0) -> str:
    return password_of(base64.b32decode(secret), int(clock.now().timestamp()) // STEP_S + drift)


async def headers_of(api: Api, **more: Any) -> dict[str, str]:
    answer = await log_in(api, **more)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def enabled(api: Api) -> tuple[str, dict[str, str]]:
    headers = await headers_of(api)
    begun = await api.client.post("/v1/auth/totp", headers=headers)
    assert begun.status_code == 201
    secret = begun.json()["secret"]
    assert begun.json()["uri"].startswith("otpauth://totp/Heika:admin%40heika.test?secret=")
    # Until it is confirmed, logins go on as they were.
    await headers_of(api)
    path = "/v1/auth/totp/confirmation"
    confirmed = await api.client.post(path, json={"code": now_of(secret)}, headers=headers)
    assert confirmed.status_code == 204, confirmed.text
    api.clock.advance(timedelta(seconds=STEP_S * 2))
    return secret, headers


async def test_a_login_needs_a_password_that_was_not_used(api: Api) -> None:
    secret, _ = await enabled(api)
    missing = await log_in(api)
    assert (missing.status_code, missing.json()["code"]) == (400, "totp_required")
    for wrong in ("000000", "nonsense", now_of(secret, -3), "２２２２２２"):
        refused = await log_in(api, totp=wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_credentials"), wrong
    code = now_of(secret)
    await headers_of(api, totp=code)
    assert (await log_in(api, totp=code)).json()["code"] == "invalid_credentials"
    api.clock.advance(timedelta(seconds=STEP_S))
    await headers_of(api, totp=now_of(secret))
    rows = await api.sql("SELECT totp_secret FROM admin")
    assert secret not in rows[0].totp_secret


async def test_it_may_stand_right_after_the_password(api: Api) -> None:
    code = "123456"
    assert (await log_in(api, password=PASSWORD + code)).json()["code"] == "invalid_credentials"
    secret, _ = await enabled(api)
    for wrong in (PASSWORD + "000000", "wrong" + now_of(secret), now_of(secret), PASSWORD + now_of(secret)[:5]):
        refused = await log_in(api, password=wrong)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_credentials"), wrong
    code = now_of(secret)
    await headers_of(api, password=PASSWORD + code)
    assert (await log_in(api, password=PASSWORD + code)).json()["code"] == "invalid_credentials"


async def test_it_is_removed_by_a_last_password(api: Api) -> None:
    secret, headers = await enabled(api)
    path = "/v1/auth/totp/removal"
    refused = await api.client.post(path, json={"code": "000000"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_totp")
    assert (await api.client.post("/v1/auth/totp", headers=headers)).json()["code"] == "totp_enabled"
    assert (await api.client.post(path, json={"code": now_of(secret)}, headers=headers)).status_code == 204
    await headers_of(api)
    again = await api.client.post(path, json={"code": now_of(secret)}, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "totp_not_begun")
    acts = (await api.client.get("/v1/admin/audit", headers=await headers_of(api))).json()["items"]
    assert [act["action"] for act in acts] == ["admin.totp_removed", "admin.totp_enabled"]


async def test_only_admins_have_one(api: Api) -> None:
    _, member = await a_member(api)
    assert (await api.client.post("/v1/auth/totp", headers=member)).status_code == 403
    assert (await api.client.post("/v1/auth/totp")).status_code == 401
    assert (await api.client.post("/v1/auth/totp/confirmation", json={"code": "1"}, headers=member)).status_code == 403


async def test_ten_failures_lock_the_account_also_when_redis_forgets(api: Api) -> None:
    for _ in range(10):
        assert (await log_in(api, password="wrong")).status_code == 400
    await api.rt.redis.flushall()
    refused = await log_in(api)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 890 <= int(refused.headers["retry-after"]) <= 901
    api.clock.advance(timedelta(minutes=15))
    await api.rt.redis.flushall()
    assert (await log_in(api, password=PASSWORD)).status_code == 200
    assert [row.failures for row in await api.sql("SELECT failures FROM admin")] == [0]
