"""Who may pass, how often, and what every answer carries."""

import asyncio
from datetime import timedelta
from unittest.mock import ANY

import pytest
from joserfc.jwk import OKPKey

from gateway.identity import KeySource
from gateway.limits import MAX_KEYS, Limits
from kit import auth, clock
from kit.errors import TooManyRequests
from kit.ids import new_id
from kit.log import configure_logs
from kit.revocations import revocations
from kit.settings import Settings
from tests import harness
from tests.gateway.conftest import Front, Start
from tests.harness import sign

MEMBER = {"sub": str(new_id()), "role": "member", "scope": "", "sid": str(new_id())}


@pytest.fixture(autouse=True)
def _published_key() -> None:
    auth.keys.publish({"keys": [harness.signing_key().as_dict(private=False)]})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_good_token_passes_and_goes_on_unchanged(front: Front) -> None:
    token = sign(MEMBER)
    answer = await front.client.get("/v1/orders/echo", headers=bearer(token))
    assert answer.status_code == 200
    assert dict(answer.json()["headers"])["authorization"] == f"Bearer {token}"


async def test_in_one_process_a_caller_is_judged_once(start_here: Start) -> None:
    asked: tuple[tuple[str, dict[str, str]], ...] = (
        ("/v1/orders/echo", bearer(sign(MEMBER))),
        ("/v1/orders/echo", {}),
        # Where the front does not judge, the service does.
        ("/v1/auth/echo", bearer("stale")),
        ("/v1/orders/echo", {"Authorization": "Basic eA=="}),
    )
    async with start_here() as front:
        for path, headers in asked:
            assert (await front.client.get(path, headers=headers)).status_code == 200
        known, *others = front.toy.callers
    assert isinstance(known, auth.Caller)
    assert (known.name, others) == (MEMBER["sub"], [None, "unknown", "unknown"])


async def test_a_bad_token_is_401_before_any_service_hears_of_it(front: Front) -> None:
    other = OKPKey.generate_key("Ed25519", parameters={"kid": "test", "use": "sig", "alg": "EdDSA"})
    expired = sign(MEMBER | {"exp": int(clock.now().timestamp()) - 1})
    tokens = ["nonsense", "a.b.c", "x" * 5000, "é", sign(MEMBER, other), expired, sign(MEMBER | {"aud": "x"})]
    for token in ["", *(f" {token}" for token in tokens)]:
        answer = await front.client.get("/v1/plans/small", headers=[(b"Authorization", f"Bearer{token}".encode())])
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), token
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["action"] == "log_in"
    assert front.toy.seen == []


async def test_a_token_expires_by_the_products_clock(front: Front) -> None:
    headers = bearer(sign(MEMBER))
    assert (await front.client.get("/v1/orders/small", headers=headers)).status_code == 200
    clock.set_offset(timedelta(seconds=auth.TOKEN_SECONDS + 1))
    assert (await front.client.get("/v1/orders/small", headers=headers)).status_code == 401


async def test_a_stale_token_does_not_stop_logging_in_again_or_looking_at_pictures(front: Front) -> None:
    for path in ("/v1/auth/refresh", "/v1/auth/logout", "/v1/uploads/files/a.jpg", "/healthz", "/docs"):
        method = "POST" if "auth" in path else "GET"
        answer = await front.client.request(method, path, headers=bearer("stale"))
        assert answer.status_code == 200, path


async def test_two_authorization_headers_are_refused(front: Front) -> None:
    headers = [("Authorization", f"Bearer {sign(MEMBER)}"), ("Authorization", "Bearer other")]
    answer = await front.client.get("/v1/orders/echo", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "ambiguous_authorization")
    assert front.toy.seen == []


async def test_without_keys_the_service_decides(start_here: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "keys", auth.Keys())
    async with start_here() as front:
        assert isinstance(front.gateway.keys, KeySource)
        # The toy answers something, though no keys: the service cannot be asked.
        front.gateway.keys.fetch_through(front.toy)
        answer = await front.client.get("/v1/orders/echo", headers=bearer(sign(MEMBER)))
        assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
        assert answer.headers["retry-after"] == "2"

        async def away(*_: object) -> None:
            raise ConnectionError

        monkeypatch.setattr(auth, "keys", auth.Keys())
        front.gateway.keys.fetch_through(away)
        answer = await front.client.get("/v1/orders/echo", headers=bearer(sign(MEMBER)))
        assert answer.status_code == 200


async def test_a_frozen_account_is_403(front: Front) -> None:
    revocations.frozen = frozenset({MEMBER["sub"]})
    answer = await front.client.get("/v1/orders/echo", headers=bearer(sign(MEMBER)))
    assert (answer.status_code, answer.json()["code"]) == (403, "account_frozen")


async def test_whoever_knocks_in_vain_is_counted_as_well(start_here: Start) -> None:
    revocations.frozen = frozenset({MEMBER["sub"]})
    async with start_here(limits_mode="strict") as front:
        frozen = await front.client.get("/v1/orders/echo", headers=bearer(sign(MEMBER)))
        nowhere = await front.client.get("/v1/nowhere")
        trick = await front.client.get("/v1//plans")
        assert [answer.status_code for answer in (frozen, nowhere, trick)] == [403, 404, 400]
        # How many are left is refilled a hundred times a second, so only the policy is the same on every machine.
        policies = {answer.headers["ratelimit-policy"] for answer in (frozen, nowhere, trick)}
        assert policies == {'"address";q=6000;w=60'}
        assert all(answer.headers["ratelimit"].startswith('"address";r=59') for answer in (frozen, nowhere, trick))


async def test_limits_show_what_is_left_and_refuse_with_the_seconds_to_wait(start_here: Start) -> None:
    async with start_here(limits_mode="strict") as front:
        began = asyncio.get_running_loop().time()
        answer = await front.client.post("/v1/auth/small")
        assert answer.headers["ratelimit-policy"] == '"login";q=120;w=60'
        assert answer.headers["ratelimit"] == '"login";r=119;t=1'
        taken = 1
        while answer.status_code == 200:
            answer = await front.client.post("/v1/auth/small")
            taken += answer.status_code == 200
        # Two a second come back while the test runs.
        assert 120 <= taken <= 120 + 2 * (asyncio.get_running_loop().time() - began + 1)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) == 1
        general = await front.client.get("/v1/plans/small")
        assert general.status_code == 200
        assert general.headers["ratelimit-policy"] == '"address";q=6000;w=60'
        mine = await front.client.get("/v1/plans/small", headers=bearer(sign(MEMBER)))
        assert mine.headers["ratelimit-policy"] == '"caller";q=3000;w=60'


async def test_relaxed_limits_are_a_hundred_times_wider_and_off_shows_none(start_here: Start) -> None:
    async with start_here() as front:
        assert (await front.client.post("/v1/auth/small")).headers["ratelimit-policy"] == '"login";q=12000;w=60'
    async with start_here(limits_mode="off") as front:
        assert "ratelimit" not in (await front.client.post("/v1/auth/small")).headers


def test_limits_off_is_refused_in_production() -> None:
    with pytest.raises(ValueError, match="refused in production"):
        _ = Settings(env="production", limits_mode="off").limits


def test_a_limit_refills_evenly_and_keys_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.limits.time.monotonic", lambda: now)
    limits = Limits("strict")
    for _ in range(120):
        limits.use("auth", "a", None)
    with pytest.raises(TooManyRequests) as refused:
        limits.use("auth", "a", None)
    assert refused.value.retry_after == pytest.approx(0.5)
    assert limits.use("auth", "b", None) != []
    now += 0.5
    limits.use("auth", "a", None)
    with pytest.raises(TooManyRequests):
        limits.use("auth", "a", None)
    for number in range(MAX_KEYS + 1):
        limits.use("auth", str(number), None)
    assert len(limits._policies["auth"][0].buckets) <= MAX_KEYS // 2


async def test_every_answer_is_named_and_guarded(start_here: Start) -> None:
    async with start_here() as front:
        for path, status in (("/v1/plans/small", 200), ("/v1/nowhere", 404), ("/docs", 200), ("/v1//x", 400)):
            answer = await front.client.get(path)
            assert answer.status_code == status
            assert len(answer.headers.get_list("x-request-id")) == 1
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
            assert answer.headers["content-security-policy"].startswith("default-src 'none';")
            assert answer.headers["content-security-policy"].endswith("; frame-ancestors 'none'")
            assert "strict-transport-security" not in answer.headers
    async with start_here(env="production") as front:
        answer = await front.client.get("/v1/plans/small")
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")


async def test_refusals_are_problems_in_the_callers_language(front: Front) -> None:
    chinese = await front.client.get("/v1/nowhere")
    assert chinese.headers["content-type"] == "application/problem+json"
    assert chinese.json() == {
        "type": "/problems/not_found",
        "title": "没有找到",
        "status": 404,
        "detail": "这里没有你要找的内容。",
        "code": "not_found",
        "request_id": ANY,
    }
    english = await front.client.get("/v1/nowhere", headers={"Accept-Language": "en-GB,en;q=0.9,zh;q=0.1"})
    assert english.json()["detail"] == "There is nothing here under this address."


async def test_only_listed_origins_may_read_answers(start_here: Start) -> None:
    async with start_here(allowed_origins=("https://h5.example",)) as front:
        allowed = await front.client.get("/v1/plans/small", headers={"Origin": "https://h5.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://h5.example"
        assert allowed.headers["access-control-allow-credentials"] == "true"
        assert "RateLimit" in allowed.headers["access-control-expose-headers"]
        assert "Content-Disposition" in allowed.headers["access-control-expose-headers"]
        assert "Idempotency-Replayed" in allowed.headers["access-control-expose-headers"]
        stranger = await front.client.get("/v1/plans/small", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers
        assert "Origin" in (await front.client.get("/v1/plans/small")).headers["vary"]
        asked = {
            "Origin": "https://h5.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key,content-type,if-match,last-event-id",
        }
        preflight = await front.client.options("/v1/orders", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://h5.example"
        assert preflight.headers["x-request-id"]
        refused = await front.client.options("/v1/orders", headers=asked | {"Origin": "https://evil.example"})
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
        failed = await front.client.get("/v1/nowhere", headers={"Origin": "https://h5.example"})
        assert failed.headers["access-control-allow-origin"] == "https://h5.example"


async def test_the_request_log_never_holds_the_query(front: Front, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    await front.client.get("/v1/plans/small?phone=13800138000")
    printed = capsys.readouterr()
    assert "13800138000" not in printed.out + printed.err
    assert "/v1/plans" in printed.out + printed.err
