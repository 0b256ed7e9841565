"""The sandbox's clock: forward only, remembered by the database, and what is due is done before the answer."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from kit import clock, sandbox
from kit.app import Runtime, create_app
from kit.consume import Letter
from kit.due import Due, keep_running
from kit.settings import ServiceSettings
from kit.text import instant
from tests.harness import Run
from tests.kit.conftest import NoteWritten, service, trouble


async def test_the_clock_moves_forward_and_is_remembered(run: Run) -> None:
    async with run(service) as api:
        for wanted, held in [(3600.0, 3600.0), (60.0, 3600.0), (7200.0, 7200.0)]:
            answer = await api.client.post("/internal/clock", json={"offset_s": wanted})
            assert answer.json() == {"offset_s": held}
        assert clock.offset() == timedelta(hours=2)
        clock.set_offset(timedelta(0))
        app = create_app(service, api.rt.settings)
        async with app.router.lifespan_context(app):
            assert clock.offset() == timedelta(hours=2)


async def test_settling_tells_and_handles_all_there_is_and_then_nothing(run: Run) -> None:
    async with run(service, background=True) as api:
        for number in range(5):
            await api.client.post("/v1/notes", json={"words": str(number)})
        while (await api.client.post("/internal/settle")).json()["done"]:
            pass
        heard = await api.sql("SELECT words FROM note WHERE words LIKE 'heard %'")
        assert len(heard) == 5
        assert (await api.client.post("/internal/settle")).json() == {"done": 0, "next_at": None}


async def test_a_quiet_service_says_when_it_will_have_something_to_do(run: Run) -> None:
    soon = clock.now() + timedelta(days=3)
    ripe = [2]

    async def work(_: Runtime) -> int:
        return ripe.pop() if ripe else 0

    async def when(_: Runtime) -> datetime:
        return soon

    async def later(_: Runtime) -> datetime:
        return soon + timedelta(days=1)

    async def never(_: Runtime) -> None:
        return None

    due = [Due("a", work, next_at=never), Due("b", work, next_at=later), Due("c", work, next_at=when), Due("d", work)]
    async with run(replace(service, due=due)) as api:
        assert (await api.client.post("/internal/settle")).json() == {"done": 2, "next_at": instant(soon)}
        assert (await api.client.post("/internal/settle")).json() == {"done": 0, "next_at": instant(soon)}


async def test_on_a_walk_nobody_looks_where_nothing_can_have_changed(run: Run) -> None:
    looked: list[int] = []
    at = [clock.now() + timedelta(days=9)]

    async def work(_: Runtime) -> int:
        looked.append(1)
        return 0

    async def when(_: Runtime) -> datetime:
        return at[0]

    async with run(replace(service, due=[Due("work", work, next_at=when)])) as api:

        async def settled(walk: str, *, last: bool = False) -> int:
            answer = (await api.client.post("/internal/settle", json={"walk": walk, "last": last})).json()
            assert answer["next_at"] == instant(at[0])
            return int(answer["done"])

        # Once at the start, and again only when its moment has come, or something has happened.
        assert ([await settled("one") for _ in range(3)], len(looked)) == ([0, 0, 0], 1)
        api.clock.advance(timedelta(days=5))
        assert (await settled("one"), len(looked)) == (0, 1)
        api.clock.advance(timedelta(days=5))
        at[0] += timedelta(days=9)
        assert (await settled("one"), len(looked)) == (0, 2)
        await api.handle(NoteWritten(words="heard"))
        assert (await settled("one"), await settled("one"), len(looked)) == (1, 0, 3)
        # At the end of the walk everybody looks, once.
        api.clock.advance(timedelta(days=1))
        assert ([await settled("one", last=True) for _ in range(2)], len(looked)) == ([0, 0], 4)
        assert (await settled("two"), len(looked)) == (0, 5)
        await api.client.post("/internal/settle")
        await api.client.post("/internal/settle")
        assert len(looked) == 7


async def test_long_work_is_answered_for_in_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "AT_A_TIME_S", 0.0)
    left = [1, 1, 1]

    async def work(_: Runtime) -> int:
        return left.pop() if left else 0

    async with run(replace(service, due=[Due("work", work)])) as api:
        walk = {"walk": "one", "last": False}
        answers = [(await api.client.post("/internal/settle", json=walk)).json()["done"] for _ in range(5)]
    assert answers == [1, 1, 1, 0, 0]


async def test_a_failed_event_is_an_instant_to_stop_at(run: Run) -> None:
    async with run(service) as api:
        event = NoteWritten(words="unheard")
        trouble.append(ValueError("not yet"))
        await api.rt.consumer.deliver(Letter(event.id, event.wire_type, event.model_dump_json(), None, None))
        later = (
            "UPDATE event_failure SET next_attempt_at = next_attempt_at + interval '1 hour' RETURNING next_attempt_at"
        )
        [(failed_at,)] = await api.sql(later)
        settled = (await api.client.post("/internal/settle")).json()
    assert settled["next_at"] == instant(failed_at)


async def test_settling_waits_for_what_the_background_is_doing(run: Run) -> None:
    begun, over = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def work(_: Runtime) -> int:
        if begun.is_set():
            done.append("settled")
            return 0
        begun.set()
        await over.wait()
        done.append("background")
        return 1

    async with run(replace(service, due=[Due("slow", work)])) as api:
        [background] = [asyncio.create_task(loop) for loop in keep_running(api.rt, api.rt.due[:1])]
        await begun.wait()
        settling = asyncio.create_task(api.client.post("/internal/settle"))
        await asyncio.sleep(0.05)
        assert done == []
        over.set()
        assert (await settling).json()["done"] == 1
        background.cancel()
    assert done[:2] == ["background", "settled"]


async def test_production_has_no_such_door(run: Run) -> None:
    async with run(service, env="production") as api:
        before = clock.offset()
        for path in ("/internal/settle", "/internal/clock"):
            assert (await api.client.post(path, json={"offset_s": 1})).status_code == 404
        assert clock.offset() == before


def test_limits_off_are_refused_in_production() -> None:
    settings = ServiceSettings(env="production", limits_mode="off")
    try:
        mode: str = settings.limits
    except ValueError as refusal:
        mode = str(refusal)
    assert mode == "HEIKA_LIMITS=off is refused in production"
