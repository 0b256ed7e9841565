"""The composites, over small services that answer, fail or sleep."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest
from starlette.types import Receive, Scope, Send

from gateway import public_parts
from kit import auth, clock
from kit.errors import Internal
from kit.ids import new_id
from tests import harness
from tests.gateway.conftest import Front, Start

MEMBER = {"sub": str(new_id()), "role": "member", "scope": "", "sid": str(new_id())}


@pytest.fixture(autouse=True)
def _published_key() -> None:
    auth.keys.publish({"keys": [harness.signing_key().as_dict(private=False)]})


class Answers:
    """A service with these answers by path, 404 for others; `asleep` never answers, `status` is what it answers with."""

    def __init__(self, answers: dict[str, Any], *, asleep: bool = False, status: int = 200) -> None:
        self.answers = answers
        self.asleep = asleep
        self.status = status
        self.asked: list[str] = []
        self.with_token: list[bool] = []

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer from the table."""
        self.asked.append(f"{scope['path']}?{scope['query_string'].decode()}".rstrip("?"))
        self.with_token.append(any(name == b"authorization" for name, _ in scope["headers"]))
        if scope["path"].endswith("/crash"):
            raise Internal
        if self.asleep:
            await asyncio.sleep(30)
        known = scope["path"] in self.answers
        body = orjson.dumps(self.answers.get(scope["path"], {}))
        await send({"type": "http.response.start", "status": self.status if known else 404, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def world() -> dict[str, Answers]:
    today = clock.today().isoformat()
    return {
        "members": Answers(
            {
                "/v1/me/membership": {"status": "active"},
                "/v1/me/check-ins": {"streak": 3, "items": [{"day": today, "streak": 3, "points": 3}]},
            }
        ),
        "billing": Answers({"/v1/plans": {"items": [{"code": "black-card-1m"}]}}),
        "courses": Answers(
            {
                "/v1/live-lessons": {"items": [{"id": "l"}]},
                "/v1/courses": {"items": [{"id": "c"}]},
                "/v1/me/learning": {"items": [{"percent": 40}]},
            }
        ),
        "referrals": Answers(
            {"/v1/me/coupons": {"items": [{"id": "k"}]}, "/v1/me/invitees": {"items": [{"stage": "registered"}]}}
        ),
        "showcase": Answers(
            {
                "/v1/contests": {"items": [{"id": "x", "title": "饼干"}]},
                "/v1/contests/x/leaderboard": {"items": [{"rank": 1}]},
                "/v1/entries": {"items": [{"id": "e"}]},
            }
        ),
    }


PUBLIC = {
    "plans": [{"code": "black-card-1m"}],
    "live_lessons": [{"id": "l"}],
    "courses": [{"id": "c"}],
    "contest": {"id": "x", "title": "饼干", "top": [{"rank": 1}]},
    "degraded": [],
}


def logged_in() -> dict[str, str]:
    return {"Authorization": f"Bearer {harness.sign(MEMBER)}"}


async def test_home_shows_everybody_the_public_parts_with_a_tag(start_here: Start, world: dict[str, Answers]) -> None:
    async with start_here(upstreams=world) as front:
        answer = await front.client.get("/v1/home")
        assert (answer.status_code, answer.json()) == (200, PUBLIC)
        again = await front.client.get("/v1/home", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert answer.headers["cache-control"] == "public, max-age=5"
        assert "Authorization" in answer.headers["vary"]
    assert world["members"].asked == []
    assert "/v1/contests?phase=open&limit=1" in world["showcase"].asked
    assert "/v1/live-lessons?coming=true&limit=5" in world["courses"].asked


async def test_home_shows_a_member_their_own_parts(start_here: Start, world: dict[str, Answers]) -> None:
    async with start_here(upstreams=world) as front:
        answer = await front.client.get("/v1/home", headers=logged_in())
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.json() == PUBLIC | {
        "membership": {"status": "active"},
        "coupons": [{"id": "k"}],
        "check_in": {"streak": 3, "today": {"day": clock.today().isoformat(), "streak": 3, "points": 3}},
    }


@pytest.mark.parametrize("trouble", ["asleep", "failing"])
async def test_a_stopped_service_costs_home_its_part_and_less_than_3_s(
    start_here: Start, world: dict[str, Answers], trouble: str
) -> None:
    world["showcase"].asleep = trouble == "asleep"
    world["showcase"].status = 503
    async with start_here(upstreams=world) as front:
        began = asyncio.get_running_loop().time()
        answer = await front.client.get("/v1/home")
        assert asyncio.get_running_loop().time() - began < 3
    assert answer.status_code == 200
    assert answer.json() == PUBLIC | {"contest": None, "degraded": ["showcase"]}
    assert "etag" not in answer.headers


async def test_the_public_parts_are_asked_once_for_everybody_until_something_changes(
    start_here: Start, world: dict[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_parts, "FRESH_S", 0.2)
    async with start_here(upstreams=world) as front:

        async def home(**headers: str) -> httpx.Response:
            return await front.client.get("/v1/home", headers=headers)

        answers = await asyncio.gather(*(home() for _ in range(20)), *(home(**logged_in()) for _ in range(20)))
        assert [answer.status_code for answer in answers] == [200] * 40
        assert world["billing"].asked == ["/v1/plans?limit=100"]
        assert len(world["courses"].asked) == len(world["showcase"].asked) == 2
        assert world["members"].asked.count("/v1/me/membership") == 20
        # A member's token goes to the member's parts only.
        assert [any(world[name].with_token) for name in ("billing", "courses", "showcase")] == [False] * 3
        assert all(world["members"].with_token)
        world["billing"].answers["/v1/plans"] = {"items": [{"code": "new"}]}
        await front.client.post("/v1/admin/plans", headers=logged_in())
        assert (await home()).json()["plans"] == [{"code": "new"}]
        # A change that failed behind its commit, or got no answer, is a change.
        world["billing"].answers["/v1/plans"] = {"items": [{"code": "failed"}]}
        assert (await front.client.post("/v1/admin/plans/crash", headers=logged_in())).status_code == 500
        assert (await home()).json()["plans"] == [{"code": "failed"}]
        world["billing"].answers["/v1/plans"] = {"items": [{"code": "later"}]}
        clock.set_offset(timedelta(days=1))
        assert (await home()).json()["plans"] == [{"code": "later"}]
        world["billing"].answers["/v1/plans"] = {"items": [{"code": "last"}]}
        async with asyncio.timeout(3):
            while (await home()).json()["plans"] != [{"code": "last"}]:
                pass


async def test_a_part_is_shown_while_it_is_asked_for_again_and_not_much_longer(
    start_here: Start, world: dict[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("FRESH_S", 0.05), ("STALE_S", 0.4), ("PART_S", 0.6)):
        monkeypatch.setattr(public_parts, name, seconds)
    async with start_here(upstreams=world) as front:
        assert (await front.client.get("/v1/home")).json() == PUBLIC
        world["billing"].asleep = True
        await asyncio.sleep(0.1)
        for _ in range(2):
            assert (await front.client.get("/v1/home")).json() == PUBLIC
        # One question for both; when it has failed, or the part is too old, nobody is shown it any more.
        assert world["billing"].asked == ["/v1/plans?limit=100"] * 2
        await asyncio.sleep(0.4)
        assert (await front.client.get("/v1/home")).json() == PUBLIC | {"plans": [], "degraded": ["billing"]}


async def test_parts_that_somebody_wanted_lately_are_renewed_before_the_next_one_comes(
    start_here: Start, world: dict[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("FRESH_S", 0.02), ("RENEWED_S", 0.05), ("STALE_S", 0.5), ("WANTED_S", 0.5)):
        monkeypatch.setattr(public_parts, name, seconds)
    async with start_here(upstreams=world) as front:
        await front.client.get("/v1/home")
        world["billing"].answers["/v1/plans"] = {"items": [{"code": "new"}]}
        async with asyncio.timeout(3):
            while len(world["billing"].asked) < 3:  # noqa: ASYNC110 - of another server
                await asyncio.sleep(0.01)
        # What was asked without anybody is what the next is shown, in no more than a step of the loop.
        assert (await front.client.get("/v1/home")).json()["plans"] == [{"code": "new"}]
        await asyncio.sleep(0.7)
        asked = len(world["billing"].asked)
        await asyncio.sleep(0.2)
        # Nobody came for so long: its services are left in peace.
        assert len(world["billing"].asked) == asked


async def test_a_service_that_sleeps_holds_up_only_the_first_who_come(
    start_here: Start, world: dict[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_parts, "PART_S", 0.2)
    world["showcase"].asleep = True
    async with start_here(upstreams=world) as front:
        first = await asyncio.gather(*(front.client.get("/v1/home") for _ in range(10)))
        began = asyncio.get_running_loop().time()
        answers = [*first, await front.client.get("/v1/home")]
        assert asyncio.get_running_loop().time() - began < 0.2
        assert [answer.json() for answer in answers] == [PUBLIC | {"contest": None, "degraded": ["showcase"]}] * 11
        assert len(world["showcase"].asked) == 1


async def test_the_dashboard_is_the_callers(start_here: Start, world: dict[str, Answers]) -> None:
    world["referrals"].status = 500
    async with start_here(upstreams=world) as front:
        answer = await front.client.get("/v1/me/dashboard", headers=logged_in())
        assert answer.json() == {
            "membership": {"status": "active"},
            "learning": [{"percent": 40}],
            "coupons": [],
            "invitees": [],
            "entries": [{"id": "e"}],
            "degraded": ["referrals"],
        }
        await _refused(front, {}, 401, "not_authenticated")
        admin = harness.sign(MEMBER | {"role": "admin"})
        await _refused(front, {"Authorization": f"Bearer {admin}"}, 403, "forbidden")
        world["members"].status = 401
        await _refused(front, logged_in(), 401, "not_authenticated")


async def _refused(front: Front, headers: dict[str, str], status: int, code: str) -> None:
    answer = await front.client.get("/v1/me/dashboard", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
