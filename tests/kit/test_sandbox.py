"""The sandbox's clock: forward only, remembered by the database, and what is due is done before the answer."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from kit import clock
from kit.app import Runtime, create_app
from kit.due import Due, keep_running
from kit.settings import ServiceSettings
from kit.text import instant
from tests.harness import Run
from tests.kit.conftest import NoteWritten, service


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
        assert (await api.client.post("/internal/settle")).json() == {"done": 2, "next_at": None}
        assert (await api.client.post("/internal/settle")).json() == {"done": 0, "next_at": instant(soon)}


async def test_what_was_quiet_at_a_stop_looks_again_only_at_the_next(run: Run) -> None:
    looked: list[int] = []

    async def work(_: Runtime) -> int:
        looked.append(1)
        return 0

    async with run(replace(service, due=[Due("work", work)])) as api:
        for stop, times in [("one", 1), ("one", 1), ("two", 2), ("two", 2), (None, 3), (None, 4)]:
            answer = await api.client.post("/internal/settle", json={"stop": stop} if stop else None)
            assert (answer.json()["done"], len(looked)) == (0, times), stop
        await api.client.post("/internal/settle", json={"stop": "three"})
        await api.handle(NoteWritten(words="heard"))
        assert (await api.client.post("/internal/settle", json={"stop": "three"})).json()["done"] == 1
        assert len(looked) == 6


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
        [slow, *_] = api.rt.due
        background = asyncio.create_task(keep_running(api.rt, slow))
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
        for path in ("/internal/settle", "/internal/clock"):
            assert (await api.client.post(path, json={"offset_s": 1})).status_code == 404
        assert clock.offset() == timedelta(0)


def test_limits_off_are_refused_in_production() -> None:
    settings = ServiceSettings(env="production", limits_mode="off")
    try:
        mode: str = settings.limits
    except ValueError as refusal:
        mode = str(refusal)
    assert mode == "HEIKA_LIMITS=off is refused in production"
