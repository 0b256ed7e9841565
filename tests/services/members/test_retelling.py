"""Pictures told again: once each after an upgrade, of whoever has time that runs, and of nobody else."""

from datetime import timedelta
from importlib import import_module
from uuid import UUID

import pytest

from contracts.members import MembershipChanged, PointsChanged
from kit import clock
from kit.ids import new_id
from services.members import retelling
from services.members.retelling import AT_ONCE, tell_again, tell_points_again
from tests.harness import Api
from tests.services.members.steps import bearer, sign_in
from tests.services.members.test_membership import paid, refunded

MARK: str = import_module("services.members.migrations.versions.0014_told_again").MARK


async def test_an_upgrade_tells_the_memberships_that_run_once_more(api: Api) -> None:
    now = clock.now()
    running, over, taken, left = new_id(), new_id(), new_id(), await sign_in(api)
    order = paid(taken, at=now)
    await api.handle(paid(running, at=now), paid(over, at=now - timedelta(days=60)), order, refunded(order, now))
    await api.handle(paid(UUID(left["member"]["id"]), at=now))
    assert (await api.client.delete("/v1/me", headers=bearer(left))).status_code == 204
    [before] = [
        event for event in await api.emitted() if isinstance(event, MembershipChanged) and event.member_id == running
    ]
    await api.sql(MARK)
    # Listeners that are replaced one after the other have a while for it.
    assert await api.run_due() == 0
    api.clock.advance(timedelta(minutes=15))
    assert (await api.run_due(), await api.run_due()) == (1, 0)
    [told] = await api.emitted()
    assert isinstance(told, MembershipChanged)
    assert told == before.model_copy(update={"id": told.id, "at": told.at, "version": 2})


async def test_a_crowd_is_told_a_few_at_a_time(api: Api) -> None:
    now = clock.now()
    await api.handle(*(paid(new_id(), at=now) for _ in range(AT_ONCE + 1)))
    await api.emitted()
    await api.sql(MARK)
    await api.sql("UPDATE retelling SET due_at = :now", now=now)
    assert [await tell_again(api.rt) for _ in range(3)] == [AT_ONCE, 1, 0]
    assert len(await api.emitted()) == AT_ONCE + 1


async def test_an_upgrade_tells_everybody_s_points_once_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.sql(MARK)
    assert await api.sql("SELECT topic FROM retelling") == []
    people = sorted([new_id() for _ in range(5)])
    row = "INSERT INTO point_entry (id, member_id, delta, reason, reference, at) VALUES (:id, :member, :delta, 'x', :ref, :now)"
    for delta in (7, -2):
        for member_id in people:
            await api.sql(row, id=new_id(), member=member_id, delta=delta, ref=str(delta), now=clock.now())
    await api.sql(MARK)
    monkeypatch.setattr(retelling, "MANY", 2)
    assert await api.run_due() == 0
    api.clock.advance(timedelta(minutes=15))
    assert [await tell_points_again(api.rt) for _ in range(5)] == [2, 2, 1, 0, 0]
    told = [event for event in await api.emitted() if isinstance(event, PointsChanged)]
    assert [(event.member_id, event.version, event.balance) for event in told] == [(who, 9, 5) for who in people]
    assert await api.sql("SELECT topic FROM retelling") == []
