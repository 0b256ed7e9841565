"""The sandbox's clock: forward only, remembered by the database, and what is due is done before the answer."""

from datetime import timedelta

from kit import clock
from kit.app import create_app
from kit.settings import ServiceSettings
from tests.harness import Run
from tests.kit.conftest import service


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
        assert (await api.client.post("/internal/settle")).json() == {"done": 0}


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
