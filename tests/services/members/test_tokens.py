"""Tokens: rotation, reuse, ending sessions, and tokens that were not ours."""

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey
from joserfc.jws import extract_compact
from sqlalchemy import text

from kit import auth, clock
from kit.revocations import FROZEN_KEY, NOBODY, REVOKED_KEY, revocations
from services.members import sessions
from services.members.app import service
from services.members.revocations import mirror_revocations
from services.members.signing import refresh_keys, rotate_now
from tests.harness import Api, Run, sign
from tests.services.members.steps import PHONE, a_member, bearer, sign_in

OTHER_PHONE = "+8613900139000"


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unchecked."""
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


async def refresh(api: Api, refresh_token: str) -> Any:
    return await api.client.post("/v1/auth/refresh", json={"refresh_token": refresh_token})


async def hear_revocations(api: Api) -> None:
    await mirror_revocations(api.rt)
    await revocations.poll(api.rt.redis)


async def me(api: Api, pair: dict[str, Any]) -> Any:
    return await api.client.get("/v1/me", headers=bearer(pair))


async def test_an_access_token_says_what_everybody_reads(api: Api) -> None:
    signed_in = await sign_in(api)
    claims = claims_of(signed_in["access_token"])
    assert set(claims) == {"iss", "aud", "sub", "role", "scope", "sid", "iat", "exp", "jti"}
    assert (claims["aud"], claims["role"], claims["scope"]) == ("heika", "member", "")
    assert claims["sub"] == signed_in["member"]["id"]
    assert claims["exp"] - claims["iat"] == 900


async def test_an_access_token_ends_after_fifteen_minutes_of_the_products_clock(api: Api) -> None:
    signed_in = await sign_in(api)
    api.clock.advance(timedelta(minutes=14))
    assert (await me(api, signed_in)).status_code == 200
    api.clock.advance(timedelta(minutes=1))
    refused = await me(api, signed_in)
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")


async def test_a_refresh_token_is_exchanged_for_a_new_pair(api: Api) -> None:
    first = await sign_in(api)
    answer = await refresh(api, first["refresh_token"])
    assert answer.status_code == 200
    second = answer.json()
    assert set(second) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert second["refresh_token"] != first["refresh_token"]
    assert claims_of(second["access_token"])["sid"] == claims_of(first["access_token"])["sid"]
    assert (await refresh(api, second["refresh_token"])).status_code == 200


async def test_a_used_refresh_token_ends_the_whole_family_and_no_other(api: Api) -> None:
    first = await sign_in(api)
    other = await sign_in(api)
    second = (await refresh(api, first["refresh_token"])).json()
    refused = await refresh(api, first["refresh_token"])
    assert (refused.status_code, refused.json()["code"]) == (401, "refresh_token_reused")
    assert (await refresh(api, second["refresh_token"])).status_code == 401
    assert (await me(api, second)).status_code == 401
    assert (await me(api, other)).status_code == 200
    assert (await refresh(api, other["refresh_token"])).status_code == 200


async def test_of_twenty_refreshes_at_once_one_wins(api: Api) -> None:
    pair = await sign_in(api)
    answers = await asyncio.gather(*(refresh(api, pair["refresh_token"]) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 401}
    assert codes == {"refresh_token_reused"}
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    assert (await refresh(api, winner["refresh_token"])).status_code == 401


async def test_many_devices_refresh_at_once_and_each_has_its_own(api: Api) -> None:
    pairs = [await sign_in(api) for _ in range(8)]
    # Two of them, and one token that nobody has, come twice.
    asked = [*(pair["refresh_token"] for pair in pairs), pairs[0]["refresh_token"], "nonsense", "nonsense"]
    *answers, unknown, too = await asyncio.gather(*(refresh(api, token) for token in asked))
    assert {answer.json()["code"] for answer in (unknown, too)} == {"not_authenticated"}
    first, rest, again = answers[0], answers[1:8], answers[8]
    assert sorted([first.status_code, again.status_code]) == [200, 401]
    for pair, answer in zip(pairs[1:], rest, strict=True):
        assert answer.status_code == 200
        assert claims_of(answer.json()["access_token"])["sid"] == claims_of(pair["access_token"])["sid"]
        assert (await refresh(api, answer.json()["refresh_token"])).status_code == 200


async def test_a_refresh_that_would_wait_for_another_process_is_judged_after_it(api: Api) -> None:
    pair = await sign_in(api)
    async with api.rt.db.session() as other, other.begin():
        # What ending a session does, not committed yet.
        await other.execute(text("UPDATE login_session SET revoked_at = now()"))
        waiting = asyncio.create_task(refresh(api, pair["refresh_token"]))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    refused = await waiting
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")


async def test_a_refresh_token_lives_sixty_days(api: Api) -> None:
    first, second = await sign_in(api), await sign_in(api)
    api.clock.advance(timedelta(days=60, seconds=-10))
    assert (await refresh(api, first["refresh_token"])).status_code == 200
    api.clock.advance(timedelta(seconds=11))
    refused = await refresh(api, second["refresh_token"])
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")


async def test_a_refresh_token_that_was_never_given_is_refused(api: Api) -> None:
    for token in ("nonsense", "x" * 512, "éß", "eyJhbGciOiJub25lIn0.e30."):
        refused = await refresh(api, token)
        assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated"), token


async def test_logging_out_ends_this_session_only(api: Api) -> None:
    here, there = await sign_in(api), await sign_in(api)
    assert (await api.client.post("/v1/auth/logout", headers=bearer(here))).status_code == 204
    assert (await me(api, here)).status_code == 401
    assert (await refresh(api, here["refresh_token"])).status_code == 401
    await revocations.poll(api.rt.redis)
    assert (await me(api, here)).status_code == 401
    assert (await me(api, there)).status_code == 200


async def test_devices_are_listed_and_can_be_ended(api: Api) -> None:
    here, there = await sign_in(api), await sign_in(api)
    listed = (await api.client.get("/v1/me/sessions", headers=bearer(here))).json()
    assert [item["current"] for item in listed["items"]] == [False, True]
    assert set(listed["items"][0]) == {"id", "device", "created_at", "last_seen_at", "current"}
    assert listed["items"][0]["device"].startswith("python-httpx")
    other = listed["items"][0]["id"]
    assert (await api.client.delete(f"/v1/me/sessions/{other}", headers=bearer(here))).status_code == 204
    gone = await api.client.delete(f"/v1/me/sessions/{other}", headers=bearer(here))
    assert (gone.status_code, gone.json()["code"]) == (404, "session_not_found")
    assert (await refresh(api, there["refresh_token"])).status_code == 401
    assert len((await api.client.get("/v1/me/sessions", headers=bearer(here))).json()["items"]) == 1


async def test_somebody_elses_session_is_not_there(api: Api) -> None:
    mine = await sign_in(api)
    _, others = await a_member(api, OTHER_PHONE)
    session_id = claims_of(mine["access_token"])["sid"]
    assert (await api.client.delete(f"/v1/me/sessions/{session_id}", headers=others)).status_code == 404
    assert (await refresh(api, mine["refresh_token"])).status_code == 200


async def test_a_frozen_account_is_refused_everywhere_and_opens_again(api: Api) -> None:
    pair = await sign_in(api)
    path = f"/v1/admin/members/{pair['member']['id']}"
    assert (await api.client.patch(path, json={"frozen": True}, headers=api.admin())).status_code == 200
    refused = await me(api, pair)
    assert (refused.status_code, refused.json()["code"]) == (403, "account_frozen")
    refused = await refresh(api, pair["refresh_token"])
    assert (refused.status_code, refused.json()["code"]) == (403, "account_frozen")
    await api.client.post("/v1/auth/otp", json={"phone": PHONE})
    code = (await api.client.get("/v1/sandbox/otp", params={"phone": PHONE})).json()["code"]
    refused = await api.client.post("/v1/auth/otp/verify", json={"phone": PHONE, "code": code})
    assert (refused.status_code, refused.json()["code"]) == (403, "account_frozen")

    await hear_revocations(api)
    assert (await api.client.patch(path, json={"frozen": False}, headers=api.admin())).status_code == 200
    assert (await me(api, pair)).status_code == 200
    assert (await refresh(api, pair["refresh_token"])).status_code == 200


async def test_a_session_that_goes_on_for_a_year_leaves_no_trail_of_tokens(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(sessions, "TOKENS_AT_ONCE", 2)
    first = pair = await sign_in(api)
    for _ in range(18):
        first, pair = pair, (await refresh(api, pair["refresh_token"])).json()
        api.clock.advance(timedelta(days=20))
    await api.run_due()
    assert await api.run_due() == 0
    # Of the last ninety days: sixty for which a token lives, and a month beyond.
    assert await api.sql("SELECT count(*), count(used_at) FROM refresh_token") == [(4, 3)]
    assert (await refresh(api, pair["refresh_token"])).status_code == 200
    reused = await refresh(api, first["refresh_token"])
    assert (reused.status_code, reused.json()["code"]) == (401, "refresh_token_reused")
    api.clock.advance(timedelta(days=91))
    assert await api.run_due() > 0
    assert await api.sql("SELECT FROM login_session") == await api.sql("SELECT FROM refresh_token") == []


async def test_a_session_that_was_ended_stops_working_within_five_seconds(run: Run) -> None:
    async with run(service, background=True) as api:
        here, there = await sign_in(api), await sign_in(api)
        assert (await api.client.post("/v1/auth/logout", headers=bearer(here))).status_code == 204
        async with asyncio.timeout(5):
            while (await me(api, here)).status_code != 401:  # noqa: ASYNC110 - it is HTTP that is watched
                await asyncio.sleep(0.05)
        assert (await me(api, there)).status_code == 200


async def test_revocations_hold_while_redis_has_lost_them_and_come_back(api: Api) -> None:
    pair = await sign_in(api)
    await api.client.post("/v1/auth/logout", headers=bearer(pair))
    member_id, frozen = await a_member(api, OTHER_PHONE)
    patched = await api.client.patch(f"/v1/admin/members/{member_id}", json={"frozen": True}, headers=api.admin())
    assert patched.status_code == 200
    await hear_revocations(api)
    # What this process did itself it need not hear of; the others have only what they read.
    revocations._gone_here, revocations._frozen_here = {}, {}
    for lost in (REVOKED_KEY, FROZEN_KEY, None):
        await (api.rt.redis.delete(lost) if lost else api.rt.redis.flushall())
        for again in (revocations.poll(api.rt.redis), hear_revocations(api)):
            await again
            assert (await me(api, pair)).status_code == 401
            assert (await api.client.get("/v1/me", headers=frozen)).json()["code"] == "account_frozen"
    # What is as it was is not written again: the disk of an idle house stays still.
    changes = [(await api.rt.redis.info("persistence"))["rdb_changes_since_last_save"]]
    await mirror_revocations(api.rt)
    changes.append((await api.rt.redis.info("persistence"))["rdb_changes_since_last_save"])
    assert changes[0] == changes[1]
    thawed = await api.client.patch(f"/v1/admin/members/{member_id}", json={"frozen": False}, headers=api.admin())
    assert thawed.status_code == 200
    revocations._frozen_here = {}
    api.clock.advance(timedelta(hours=1))
    await hear_revocations(api)
    assert (revocations.gone, revocations.frozen) == (frozenset({NOBODY}), frozenset({NOBODY}))


async def test_forged_tokens_are_refused(api: Api) -> None:
    member_id, headers = await a_member(api)
    good = headers["Authorization"].removeprefix("Bearer ")
    subject = {"sub": str(member_id), "role": "member", "scope": "", "sid": str(UUID(int=1))}
    usual = {"iss": "heika", "aud": "heika", "iat": 0, "exp": 2**33, **subject}
    public = (await api.client.get("/.well-known/jwks.json")).json()["keys"][0]

    def unsigned(header: dict[str, Any]) -> str:
        parts = (json.dumps(header).encode(), json.dumps(usual).encode())
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."

    def with_hmac(secret: bytes) -> str:
        key = OctKey.import_key(secret)
        return jwt.encode({"alg": "HS256", "kid": public["kid"]}, usual, key, algorithms=["HS256"])

    stranger = OKPKey.generate_key("Ed25519", {"kid": public["kid"]})
    unknown = OKPKey.generate_key("Ed25519", {"kid": "unknown"})
    now = int(clock.now().timestamp())
    forged = {
        "none": unsigned({"alg": "none", "kid": public["kid"]}),
        "None": unsigned({"alg": "None"}),
        "HS256 over the public key": with_hmac(json.dumps(public).encode()),
        "HS256 over x": with_hmac(base64.urlsafe_b64decode(public["x"] + "=")),
        "another key under our id": sign(subject, stranger),
        "unknown key": sign(subject, unknown),
        "expired": sign(subject | {"exp": now}),
        "another audience": sign(subject | {"aud": "other"}),
        "another issuer": sign(subject | {"iss": "other"}),
        "unknown role": sign(subject | {"role": "root"}),
        "no subject": sign(subject | {"sub": "nobody"}),
        "cut": good[:-6],
        "changed": good[:-6] + ("AAAAAA" if good[-6:] != "AAAAAA" else "BBBBBB"),
        "empty": "",
        "long": "x" * 5000,
    }
    for name, token in forged.items():
        answer = await api.client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), name


async def test_the_public_keys_are_published_without_their_private_halves(api: Api) -> None:
    answer = await api.client.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    unchanged = await api.client.get("/.well-known/jwks.json", headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.status_code == 304
    assert len({key["kid"] for key in answer.json()["keys"]}) == 2
    for key in answer.json()["keys"]:
        assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    for row in await api.sql("SELECT sealed, public::text AS public FROM signing_key"):
        assert '"d"' not in row.public
        assert row.sealed.startswith("ey")


async def test_processes_that_start_together_make_two_keys(api: Api) -> None:
    await api.sql("DELETE FROM signing_key")
    await asyncio.gather(*(refresh_keys(api.rt) for _ in range(5)))
    assert len(await api.sql("SELECT kid FROM signing_key")) == 2


async def kids(api: Api) -> list[str]:
    return [key["kid"] for key in (await api.client.get("/.well-known/jwks.json")).json()["keys"]]


def kid_of(pair: dict[str, Any]) -> Any:
    return extract_compact(pair["access_token"].encode()).headers()["kid"]


async def test_after_a_rotation_old_and_new_tokens_work_until_the_old_are_over(api: Api) -> None:
    first, second = await kids(api)
    old = await sign_in(api)
    await rotate_now(api.rt)
    new = await sign_in(api)
    assert (kid_of(old), kid_of(new)) == (first, second)
    assert (await kids(api))[:2] == [first, second]
    assert len(await kids(api)) == 3
    assert (await me(api, old)).status_code == (await me(api, new)).status_code == 200
    api.clock.advance(timedelta(minutes=41))
    assert second in await kids(api)
    assert len(await kids(api)) == 2
    auth.verified.clear()
    assert (await refresh(api, old["refresh_token"])).status_code == 200


async def test_keys_take_turns_every_thirty_days_and_each_was_published_before_it_signs(api: Api) -> None:
    seen = await kids(api)
    for _ in range(3):
        in_force, following = await kids(api)
        assert kid_of(await sign_in(api)) == in_force
        api.clock.advance(timedelta(days=29, hours=23))
        await refresh_keys(api.rt)
        assert await kids(api) == [in_force, following]
        api.clock.advance(timedelta(hours=1, minutes=1))
        await refresh_keys(api.rt)
        await refresh_keys(api.rt)
        assert kid_of(await sign_in(api)) == following
        assert (await kids(api))[:2] == [in_force, following]
        api.clock.advance(timedelta(minutes=41))
        seen.append((await kids(api))[-1])
    assert len(set(seen)) == len(await api.sql("SELECT kid FROM signing_key")) == 5
