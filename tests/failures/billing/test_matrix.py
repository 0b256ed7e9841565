"""Everything that can go wrong, with everything people do: afterwards every fen and every day is where it belongs."""

from typing import Any
from uuid import UUID

import pytest

from kit.ids import new_id
from services.billing.line import RETRIES
from tests.failures.billing.acts import ACTS
from tests.failures.billing.invariants import check
from tests.failures.billing.world import LATER, SOON, World

DELIVERIES: dict[str, Any] = {"target": "deliveries"}
CALLS: dict[str, Any] = {"target": "calls", "times": 2 * (RETRIES + 1)}

FAULTS: dict[str, dict[str, Any]] = {
    "every webhook comes twice": DELIVERIES | {"kind": "duplicate"},
    "webhooks come in another order": DELIVERIES | {"kind": "reorder"},
    "webhooks come minutes late": DELIVERIES | {"kind": "delay", "seconds": 400.0},
    "webhooks come after days or never": DELIVERIES | {"kind": "delay", "seconds": 86_400.0},
    "the answers to webhooks are lost": DELIVERIES | {"kind": "drop"},
    "the provider answers 500": CALLS | {"kind": "error"},
    "the provider hangs and cuts the line": CALLS | {"kind": "hang", "seconds": 0.05},
    "the provider's answers are lost": CALLS | {"kind": "drop"},
}


# Where what happens to webhooks happens to the news between services, too.
NEWS = {"every webhook comes twice": "duplicate", "webhooks come in another order": "reorder"}
DEATHS = [(1, False), (2, True), (4, False), (6, True)]
"""At which commit the process dies, and whether right after it; an act that has fewer of them is not disturbed."""


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_goes_wrong_on_the_way_loses_and_doubles_nothing(world: World, act: str, fault: str) -> None:
    doing = ACTS[act]
    thing = await doing.prepare(world)
    world.news = NEWS.get(fault, "in order")
    await world.faults(FAULTS[fault])
    await doing.perform(world, thing)
    await world.wait(*SOON)
    await world.faults()
    await world.wait(*LATER)
    await doing.expect(world, thing)
    await check(world)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("act", ACTS)
async def test_a_process_that_dies_between_two_steps_goes_on_afterwards(world: World, act: str) -> None:
    doing = ACTS[act]
    begun: list[tuple[UUID, dict[str, Any]]] = []
    died = 0
    for commit, after in DEATHS:
        world.member = new_id()
        thing = await doing.prepare(world)
        world.crashes.arm(commit, after=after)
        await doing.perform(world, thing)
        await world.wait(SOON[0])
        died += world.crashes.died
        world.crashes.disarm()
        begun.append((world.member, thing))
    assert died > 1
    await world.wait(*SOON, *LATER)
    for member, thing in begun:
        world.member = member
        await doing.expect(world, thing)
    await check(world)
