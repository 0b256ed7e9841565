"""Partners' clients: an id and a secret become a short token, and stop doing so within seconds."""

import asyncio
import base64
import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx import Response

from contracts.referrals import PartnerChanged
from kit import auth
from kit.ids import new_id
from tests.harness import Api

SECRET = "hks_a-secret-of-256-random-bits"


def changed(partner_id: UUID | None = None, **fields: Any) -> PartnerChanged:
    usual: dict[str, Any] = {
        "partner_id": partner_id or new_id(),
        "version": 1,
        "client_id": "hkp_linlaoshi",
        "secret_hash": hashlib.sha256(SECRET.encode()).hexdigest(),
        "active": True,
    }
    return PartnerChanged(**usual | fields)


async def ask(api: Api, client_id: str = "hkp_linlaoshi", secret: str = SECRET) -> Response:
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    return await api.client.post("/v1/auth/token", data=form)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.members.clients.LOOK_AGAIN_S", 0.02)


async def test_a_client_gets_a_short_token_of_its_partner(api: Api) -> None:
    event = changed()
    await api.handle(event)

    answer = await ask(api)

    assert answer.status_code == 200, answer.text
    token = answer.json()
    assert set(token) == {"access_token", "token_type", "expires_in"}
    assert token["expires_in"] == 900
    caller = await auth.verify(token["access_token"])
    assert (caller.id, caller.role, caller.scopes) == (event.partner_id, "partner", frozenset())
    assert answer.headers["cache-control"] == "no-store"
    for path in ("/v1/me", "/v1/admin/members"):
        refused = await api.client.get(path, headers={"Authorization": f"Bearer {token['access_token']}"})
        assert refused.status_code == 403


async def test_the_credentials_may_come_by_http_basic(api: Api) -> None:
    await api.handle(changed())
    basic = base64.b64encode(f"hkp_linlaoshi:{SECRET}".encode()).decode()
    form = {"grant_type": "client_credentials"}
    good = await api.client.post("/v1/auth/token", data=form, headers={"Authorization": f"Basic {basic}"})
    assert good.status_code == 200, good.text
    for broken in ("Basic ", "Basic %%%", "Basic aGVsbG8=", "Bearer x"):
        refused = await api.client.post("/v1/auth/token", data=form, headers={"Authorization": broken})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    for more, status in (
        ({"client_id": "hkp_linlaoshi"}, 200),
        ({"client_id": "x"}, 400),
        ({"client_secret": SECRET}, 400),
    ):
        both = await api.client.post("/v1/auth/token", data=form | more, headers={"Authorization": f"Basic {basic}"})
        assert both.status_code == status
    wrong = base64.b64encode(b"hkp_linlaoshi:wrong").decode()
    refused = await api.client.post("/v1/auth/token", data=form, headers={"Authorization": f"Basic {wrong}"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="heika"')


@pytest.mark.parametrize(("client_id", "secret"), [("hkp_linlaoshi", "wrong"), ("hkp_nobody", SECRET), ("é", "🍰")])
async def test_a_wrong_id_or_secret_is_refused_alike(api: Api, client_id: str, secret: str) -> None:
    await api.handle(changed())
    answer = await ask(api, client_id, secret)
    assert (answer.status_code, answer.json()["code"], answer.json()["error"]) == (
        401,
        "invalid_client",
        "invalid_client",
    )
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_client_made_just_now_is_waited_for(api: Api) -> None:
    asking = asyncio.create_task(ask(api))
    await asyncio.sleep(0.03)
    await api.handle(changed())
    assert (await asking).status_code == 200


async def test_a_rotated_secret_ends_the_old_one_and_its_tokens(api: Api) -> None:
    first = changed()
    await api.handle(first)
    await ask(api)
    new = hashlib.sha256(b"another secret").hexdigest()

    await api.handle(changed(first.partner_id, version=2, secret_hash=new), changed(first.partner_id, version=1))

    assert (await ask(api)).status_code == 401
    assert (await ask(api, secret="another secret")).status_code == 200
    assert await api.sql("SELECT count(*) FROM login_session WHERE revoked_at IS NOT NULL") == [(1,)]
    await api.handle(changed(first.partner_id, version=3, secret_hash=new, active=False))
    assert (await ask(api, secret="another secret")).status_code == 401


async def test_failures_of_a_client_are_limited(api: Api) -> None:
    await api.handle(changed())
    answers = [(await ask(api, secret="guess")).status_code for _ in range(21)]
    assert answers == [401] * 20 + [429]
    api.clock.advance(timedelta(minutes=11))
    assert (await ask(api)).status_code == 200
