"""The sandbox's clock, over small services that remember what they were told."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from starlette.types import Receive, Scope, Send

from gateway import clock as gateway_clock
from gateway.routes import SERVICES
from kit import clock
from tests.gateway.conftest import Front, Start


class Clocked:
    """A service's internal endpoints.

    `work` is what its next rounds of settling will have done, `due` the instants at which it has something to do, and
    `done_at` those at which it did it; a `stuck` one is never done with the first of them.
    """

    def __init__(self, work: list[int]) -> None:
        self.offset = 0.0
        self.work = work
        self.rounds = 0
        self.due: list[datetime] = []
        self.done_at: list[datetime] = []
        self.stuck = False

    def settled(self) -> dict[str, object]:
        """What a round of settling answers."""
        now = datetime.now(UTC) + timedelta(seconds=self.offset)
        ripe = [] if self.stuck else [instant for instant in self.due if instant <= now]
        self.due = [instant for instant in self.due if instant not in ripe]
        self.done_at += [now] * len(ripe)
        done = len(ripe) + (self.work.pop(0) if self.work else 0)
        return {"done": done, "next_at": None if done or not self.due else self.due[0].isoformat()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: dict[str, object] = {"offset_s": self.offset}
        if scope["path"] == "/internal/settle":
            self.rounds += 1
            answer = self.settled()
        elif scope["method"] == "POST":
            self.offset = orjson.loads((await receive())["body"])["offset_s"]
            answer = {"offset_s": self.offset}
        body = orjson.dumps(answer)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


Clocks = Callable[[], AbstractAsyncContextManager[Front]]


@pytest.fixture
def services() -> dict[str, Clocked]:
    return {name: Clocked([]) for name in SERVICES}


async def move(front: Front, **wanted: object) -> tuple[int, dict[str, object]]:
    answer = await front.client.post("/v1/sandbox/clock", json=wanted)
    return answer.status_code, answer.json()


async def test_every_service_is_moved_to_the_same_instant(start_here: Start, services: dict[str, Clocked]) -> None:
    async with start_here(upstreams=services) as front:
        before = datetime.now(UTC)
        status, answer = await move(front, advance="P31D")
        assert status == 200
        reached = datetime.fromisoformat(str(answer["now"]))
        assert timedelta(0) <= reached - before - timedelta(days=31) < timedelta(seconds=5)
        assert len({service.offset for service in services.values()}) == 1
        assert clock.offset() == timedelta(seconds=services["members"].offset)
        again = datetime.fromisoformat((await front.client.get("/v1/sandbox/clock")).json()["now"])
        assert timedelta(0) <= again - reached < timedelta(seconds=5)
        status, answer = await move(front, now="2035-03-01T00:00:00+08:00")
        assert status == 200
        assert str(answer["now"]).startswith("2035-02-28T16:00:0")


async def test_a_month_is_a_month_of_the_calendar(start_here: Start, services: dict[str, Clocked]) -> None:
    async with start_here(upstreams=services) as front:
        await move(front, now="2035-01-31T23:30:00+08:00")
        _, answer = await move(front, advance="P1M")
        assert str(answer["now"]).startswith("2035-02-28T15:3")
        _, answer = await move(front, advance="P1Y1DT1H")
        assert str(answer["now"]).startswith("2036-02-29T16:3")


async def test_settling_goes_on_until_a_whole_round_is_quiet(start_here: Start, services: dict[str, Clocked]) -> None:
    services["billing"].work = [2, 0, 1]
    services["members"].work = [0, 5, 0]
    async with start_here(upstreams=services) as front:
        assert (await move(front, advance="PT1H"))[0] == 200
    assert {service.rounds for service in services.values()} == {5}


async def test_a_move_stops_at_each_instant_at_which_a_service_has_something_to_do(
    start_here: Start, services: dict[str, Clocked]
) -> None:
    start = datetime.now(UTC)
    monthly = [start + timedelta(days=30 * month) for month in range(1, 13)]
    services["billing"].due = list(monthly)
    services["courses"].due = [start + timedelta(days=45), start + timedelta(days=400)]
    async with start_here(upstreams=services) as front:
        status, _ = await move(front, advance="P365D")
        assert status == 200
        late = [done - due for done, due in zip(services["billing"].done_at, monthly, strict=True)]
        assert all(timedelta(0) <= each < timedelta(seconds=5) for each in late), late
        [lesson] = services["courses"].done_at
        assert timedelta(0) <= lesson - start - timedelta(days=45) < timedelta(seconds=5)
        assert len({service.offset for service in services.values()}) == 1
        assert services["courses"].due == [start + timedelta(days=400)]


async def test_what_is_due_and_never_done_does_not_hold_up_time(
    start_here: Start, services: dict[str, Clocked]
) -> None:
    services["billing"].stuck = True
    services["billing"].due = [datetime.now(UTC) + timedelta(days=1)]
    async with start_here(upstreams=services) as front:
        status, answer = await move(front, advance="P365D")
    assert status == 200
    reached = datetime.fromisoformat(str(answer["now"])) - datetime.now(UTC)
    assert timedelta(days=365) <= reached + timedelta(seconds=5) < timedelta(days=366)
    assert services["billing"].rounds < 40


async def test_of_very_many_instants_a_move_takes_several_at_once(
    start_here: Start, services: dict[str, Clocked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_clock, "EXACT_STOPS", 10)
    monkeypatch.setattr(gateway_clock, "COARSE_STOPS", 20)
    start = datetime.now(UTC)
    services["billing"].due = [start + timedelta(hours=hour) for hour in range(1, 1000)]
    async with start_here(upstreams=services) as front:
        assert (await move(front, advance="P42D"))[0] == 200
    done_at = services["billing"].done_at
    assert len(done_at) == 999
    exact = [done - start for done in done_at[:10]]
    assert all(abs(each - timedelta(hours=hour + 1)) < timedelta(seconds=5) for hour, each in enumerate(exact))
    assert len(set(done_at)) <= 30
    assert services["billing"].rounds <= 62


async def test_work_without_end_is_given_up(
    start_here: Start, services: dict[str, Clocked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_clock, "MAX_ROUNDS", 5)
    services["billing"].work = [1] * 10
    async with start_here(upstreams=services) as front:
        status, answer = await move(front, advance="PT1H")
    assert (status, answer["code"]) == (503, "upstream_unavailable")
    assert services["billing"].rounds == 5


async def test_the_clock_does_not_go_back(start_here: Start, services: dict[str, Clocked]) -> None:
    async with start_here(upstreams=services) as front:
        await move(front, advance="P1D")
        held = services["members"].offset
        for wanted in ({"now": "2020-01-01T00:00:00Z"}, {"advance": "-PT1S"}):
            status, answer = await move(front, **wanted)
            assert (status, answer["code"]) == (409, "clock_backward")
        assert services["members"].offset == held


NO_MOVES = [
    "{}",
    "[]",
    "null",
    "",
    "{",
    '{"advance": "P1D", "now": "2035-01-01T00:00:00Z"}',
    '{"advance": "31 days"}',
    '{"advance": "P"}',
    '{"advance": "PT"}',
    '{"advance": 31}',
    '{"advance": "P999999W"}',
    '{"advance": "P9999Y"}',
    '{"advance": "P1Y1W"}',
    '{"advance": "P1D", "other": 1}',
    '{"advance": "P1D\\u0000"}',
    '{"advance": "\\ud800"}',
    '{"now": "yesterday"}',
    '{"now": 4102444800}',
    '{"now": "2035-01-01T00:00:00"}',
    '{"now": "9999-12-31T23:59:59Z"}',
    '{"now": "0001-01-01T00:00:00+14:00"}',
    '{"now": NaN}',
]


async def test_what_is_no_move_is_422_and_moves_nothing(start_here: Start, services: dict[str, Clocked]) -> None:
    async with start_here(upstreams=services) as front:
        for body in NO_MOVES:
            answer = await front.client.post("/v1/sandbox/clock", content=body)
            assert answer.status_code == 422, body
            assert answer.json()["errors"] != []
    assert {service.offset for service in services.values()} == {0.0}


async def test_there_is_no_clock_in_production(start_here: Start, services: dict[str, Clocked]) -> None:
    async with start_here(upstreams=services, env="production") as front:
        assert (await front.client.get("/v1/sandbox/clock")).status_code == 404
        assert (await move(front, advance="P1D"))[0] == 404
    assert services["members"].rounds == 0
