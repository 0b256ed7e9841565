"""Steps that many tests of members begin with."""

from typing import Any
from uuid import UUID

import httpx

from tests.harness import Api

PHONE = "+8613800138000"


async def send_code(api: Api, phone: str = PHONE) -> httpx.Response:
    """Ask for a code."""
    return await api.client.post("/v1/auth/otp", json={"phone": phone})


async def code_of(api: Api, phone: str = PHONE) -> str:
    """The code last sent."""
    answer = await api.client.get("/v1/sandbox/otp", params={"phone": phone})
    assert answer.status_code == 200
    return str(answer.json()["code"])


async def verify(api: Api, code: str, phone: str = PHONE, **more: Any) -> httpx.Response:
    """Try a code."""
    return await api.client.post("/v1/auth/otp/verify", json={"phone": phone, "code": code} | more)


async def sign_in(api: Api, phone: str = PHONE, **more: Any) -> dict[str, Any]:
    """Log in by phone; what the verification answered."""
    assert (await send_code(api, phone)).status_code == 202
    answer = await verify(api, await code_of(api, phone), phone, **more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(signed_in: dict[str, Any]) -> dict[str, str]:
    """Headers with the access token of a pair."""
    return {"Authorization": f"Bearer {signed_in['access_token']}"}


async def a_member(api: Api, phone: str = PHONE) -> tuple[UUID, dict[str, str]]:
    """A registered member's id and headers; what was emitted so far is forgotten."""
    signed_in = await sign_in(api, phone)
    await api.emitted()
    return UUID(signed_in["member"]["id"]), bearer(signed_in)
