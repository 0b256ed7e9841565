"""Limits that gateways share: exact for strict classes, within a hundredth for others, local while Redis is away."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import redis

from gateway import limits as module
from gateway import shared_limits
from gateway.limits import Limits, class_of
from gateway.routes import find
from kit import auth
from kit.errors import TooManyRequests
from tests import harness
from tests.gateway.conftest import Start
from tests.gateway.test_front import MEMBER, bearer
from tests.harness import Stores


@pytest.fixture
async def pair(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Limits, Limits]]:
    """Two gateways' limits on one empty Redis, which on a busy machine may take its time and is not away."""
    monkeypatch.setattr(shared_limits, "TAKE_SECONDS", 5.0)
    with redis.Redis.from_url(stores.valkey.url) as client:
        client.flushall()
    both = Limits("strict", stores.valkey.url), Limits("strict", stores.valkey.url)
    yield both
    for one in both:
        await one.close()


async def tries(limits: Limits, limit_class: str, count: int, caller: str | None = None) -> list[bool]:
    """Which of so many requests at once are let through."""

    async def one() -> bool:
        try:
            await limits.admit(limit_class, "1.2.3.4", caller)
        except TooManyRequests:
            return False
        return True

    return await asyncio.gather(*(one() for _ in range(count)))


def let_through(limits: Limits) -> bool:
    try:
        limits.use("general", "1.2.3.4", "ann")
    except TooManyRequests:
        return False
    return True


def trips(limits: Limits) -> int:
    assert limits._shared is not None
    return limits._shared.trips


async def test_two_gateways_together_let_through_what_one_may(pair: tuple[Limits, Limits]) -> None:
    first, second = pair
    began = asyncio.get_running_loop().time()
    passed = sum(await tries(first, "auth", 100)) + sum(await tries(second, "auth", 100))
    # Two a second come back while the test runs.
    assert 120 <= passed <= 121 + 2 * (asyncio.get_running_loop().time() - began)
    assert trips(first) <= 3
    with pytest.raises(TooManyRequests) as refused:
        await second.admit("auth", "1.2.3.4", None)
    assert refused.value.policy == ("login", 120, 60.0)
    assert 0 < (refused.value.retry_after or 0) <= 1
    assert await second.admit("auth", "5.6.7.8", None) == [
        (b"ratelimit-policy", b'"login";q=120;w=60'),
        (b"ratelimit", b'"login";r=119;t=1'),
    ]


async def test_a_refusal_by_one_bucket_takes_nothing_from_the_other(pair: tuple[Limits, Limits]) -> None:
    limits = pair[0]
    assert sum(await tries(limits, "votes", 300, "ann")) in (120, 121)
    with pytest.raises(TooManyRequests) as refused:
        await limits.admit("votes", "1.2.3.4", "ann")
    assert refused.value.policy == ("votes", 120, 60.0)
    # 1,200 for the address, of which ann's refused ones used none.
    passed = sum([sum(await tries(limits, "votes", 120, f"caller {number}")) for number in range(9)])
    assert passed == 9 * 120


async def test_general_requests_are_told_by_the_hundredth(
    pair: tuple[Limits, Limits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXCHANGE_S", 0.0)
    first, second = pair
    for _ in range(29):
        first.use("general", "1.2.3.4", "ann")
    await asyncio.sleep(0)
    assert trips(first) == 0
    for _ in range(29):
        for _ in range(100):
            first.use("general", "1.2.3.4", "ann")
        await asyncio.sleep(0)
    await asyncio.wait_for(first._telling, 3)  # type: ignore[arg-type]
    assert 0 < trips(first) < 30
    # The second hears with its first exchange that ann has next to nothing left, though itself it let through 30.
    for _ in range(30):
        second.use("general", "1.2.3.4", "ann")
    await asyncio.wait_for(second._telling, 3)  # type: ignore[arg-type]
    more = [let_through(second) for _ in range(130)]
    assert more.count(True) < 100
    assert not more[-1]


async def test_while_redis_is_away_each_gateway_counts_by_itself(
    pair: tuple[Limits, Limits], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = pair[0]
    stores.valkey.stop()
    try:
        assert sum(await tries(limits, "auth", 130)) in (120, 121)
        assert sum(await tries(limits, "auth", 30)) <= 1
        assert trips(limits) <= 1
        monkeypatch.setattr(shared_limits, "RETRY_SECONDS", 0.0)
    finally:
        stores.valkey.start()
    assert limits._shared is not None
    limits._shared._away_until = 0.0
    assert await tries(limits, "auth", 10) == [True] * 10


@pytest.mark.parametrize(
    ("method", "path", "limit_class"),
    [
        ("POST", "/v1/auth/otp", "auth"),
        ("POST", "/v1/redemptions", "codes"),
        ("POST", "/v1/coupons/claim", "codes"),
        ("POST", "/v1/coupon-campaigns/1/claims", "coupons"),
        ("GET", "/v1/coupon-campaigns", "general"),
        ("POST", "/v1/entries/1/votes", "votes"),
        ("DELETE", "/v1/entries/1/votes", "votes"),
        ("PUT", "/v1/lesson-requests/1/vote", "votes"),
        ("PUT", "/v1/questions/1/upvote", "votes"),
        ("POST", "/v1/entries/1/comments", "general"),
        ("GET", "/v1/entries/1", "general"),
        ("POST", "/v1/orders", "general"),
        ("POST", "/v1/webhooks/stripe", "webhook"),
        ("GET", "/healthz", "none"),
    ],
)
def test_what_can_be_guessed_or_stuffed_is_limited_more_strictly(method: str, path: str, limit_class: str) -> None:
    route = find(path)
    assert route is not None
    assert class_of(route, method, path) == limit_class


async def test_a_refusal_over_http_names_the_limit_and_reaches_no_service(start_here: Start, stores: Stores) -> None:
    auth.keys.publish({"keys": [harness.signing_key().as_dict(private=False)]})
    with redis.Redis.from_url(stores.valkey.url) as client:
        client.flushall()
    async with start_here(limits_mode="strict", redis_url=stores.valkey.url) as front:
        headers = bearer(harness.sign(MEMBER))

        async def ask(forged: int = 0) -> httpx.Response:
            claimed = {"X-Forwarded-For": f"7.7.7.{forged}"} if forged else {}
            return await front.client.post("/v1/redemptions/echo", headers=headers | claimed)

        answers = await asyncio.gather(*(ask() for _ in range(120)))
        passed = [answer for answer in answers if answer.status_code == 200]
        refused = next(answer for answer in answers if answer.status_code != 200)
        assert len(passed) == len(front.toy.seen)
        assert 60 <= len(passed) < 120
        assert passed[0].headers["ratelimit-policy"] == '"codes";q=60;w=60'
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["ratelimit"] == '"codes";r=0;t=1'
        assert refused.headers["retry-after"] == "1"
        # A forged address changes nothing: no proxy is trusted here.
        forged = await asyncio.gather(*(ask(number) for number in range(1, 61)))
        assert 429 in {answer.status_code for answer in forged}
        await front.gateway._limits.close()
