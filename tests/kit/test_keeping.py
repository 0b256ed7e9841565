"""What every service keeps for a while: it is forgotten in portions, to the end, and never before its time."""

import asyncio
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

import kit.due
import kit.forgetting
import kit.relay
from kit.app import Due, Runtime
from kit.consume import Letter
from kit.due import keep_running
from kit.events import emit
from kit.ids import new_id
from tests.harness import Api, Run
from tests.kit.conftest import NoteWritten, service

DAY_MS = 24 * 3600 * 1000


def id_of(age: timedelta) -> UUID:
    """A UUIDv7 as it would have been made so long ago."""
    made = int((time.time() - age.total_seconds()) * 1000)
    return UUID(int=(made << 80) | (new_id().int & ((1 << 80) - 1)))


async def count(api: Api, table: str) -> int:
    return int((await api.sql(f"SELECT count(*) FROM {table}"))[0][0])  # noqa: S608 - our own names


async def test_events_that_can_be_told_no_more_leave_the_inbox_in_portions(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(kit.forgetting, "AT_ONCE", 10)
    for age, rows in ((31, 25), (29, 3)):
        for _ in range(rows):
            await api.sql(
                "INSERT INTO inbox VALUES (:id, clock_timestamp() - make_interval(days => :age))",
                id=id_of(timedelta(days=age)),
                age=age,
            )
    # Told long after it was written, as after an outage: whoever sent it may send it again.
    late = Letter(
        id_of(timedelta(days=40)), NoteWritten.wire_type, NoteWritten(words="late").model_dump_json(), None, None
    )
    await api.rt.consumer.deliver(late)
    assert [await api.rt.consumer.forget() for _ in range(4)] == [10, 10, 5, 0]
    assert await count(api, "inbox") == 4
    await api.rt.consumer.deliver(late)
    assert await api.sql("SELECT count(*) FROM note WHERE words = 'heard late'") == [(1,)]


async def test_what_was_handled_is_not_forgotten_before_it_is_acknowledged(api: Api) -> None:
    """Stopped between the commit and the acknowledgement, and started again forty days later."""
    old = id_of(timedelta(days=40))
    event = NoteWritten(words="once", id=old)
    consumer, redis = api.rt.consumer, api.rt.redis
    stream = consumer.streams[0]
    await consumer._join()
    told_at = int((time.time() - 40 * 86_400) * 1000)
    fields = {"id": str(old), "type": event.wire_type, "body": event.model_dump_json()}
    fields["context"] = '{"request_id": null, "traceparent": null}'
    await redis.xadd(stream, fields, id=f"{told_at}-0")  # type: ignore[arg-type]
    await consumer.deliver(Letter(old, event.wire_type, event.model_dump_json(), None, None))
    await api.sql("UPDATE inbox SET handled_at = clock_timestamp() - interval '40 days'")
    assert await consumer.forget() == 0
    await redis.xreadgroup(consumer.group, consumer.name, {stream: ">"})
    assert await consumer.forget() == 0
    await consumer._read("0")
    assert await api.sql("SELECT count(*) FROM note WHERE words = 'heard once'") == [(1,)]
    assert [await consumer.forget(), await consumer.forget()] == [1, 0]


async def test_told_events_leave_the_outbox_in_portions_and_untold_ones_never(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(kit.relay, "FORGET_AT_ONCE", 2)
    async with api.rt.db.session() as session, session.begin():
        await emit(session, *(NoteWritten(words=str(number)) for number in range(7)))
    assert await api.rt.relay.publish() == 7
    await api.sql("UPDATE outbox SET published_at = clock_timestamp() - interval '49 hours' WHERE id % 7 < 5")
    async with api.rt.db.session() as session, session.begin():
        await emit(session, NoteWritten(words="new"))
    await api.sql("UPDATE outbox SET written_at = clock_timestamp() - interval '1 year' WHERE published_at IS NULL")
    assert [await api.rt.relay._trim() for _ in range(4)] == [2, 2, 1, 0]
    assert await count(api, "outbox") == 3


async def test_kept_answers_are_forgotten_after_two_days(api: Api) -> None:
    for _ in range(3):
        answer = await api.client.post("/v1/notes", json={"words": "x"}, headers={"Idempotency-Key": str(new_id())})
        assert answer.status_code == 201
    api.clock.advance(timedelta(hours=47, minutes=59))
    assert await api.run_due() == 0
    api.clock.advance(timedelta(minutes=2))
    assert await api.run_due() == 3
    assert await api.run_due() == 0
    assert await count(api, "idempotency_key") == 0


async def test_processes_that_are_gone_leave_the_list_of_consumers(api: Api, monkeypatch: Any) -> None:
    redis, consumer = api.rt.redis, api.rt.consumer
    await consumer._join()
    stream = consumer.streams[0]
    await redis.xadd(stream, {"x": "y"})
    await redis.xgroup_createconsumer(stream, consumer.group, "gone")
    await redis.xreadgroup(consumer.group, "fell with work in hand", {stream: ">"})
    await consumer.forget()
    assert len(await redis.xinfo_consumers(stream, consumer.group)) == 2
    monkeypatch.setattr(kit.forgetting, "DEAD_AFTER_MS", -1)
    await consumer.forget()
    left = await redis.xinfo_consumers(stream, consumer.group)
    assert [(one["name"], one["pending"]) for one in left] == [(b"fell with work in hand", 1)]


async def test_a_job_by_portions_that_found_something_looks_again_soon(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    portions = [5000, 5000, 12]
    done: list[int] = []

    async def some(_: Runtime) -> int:
        done.append(portions[len(done)] if len(done) < len(portions) else 0)
        return done[-1]

    rests: list[float] = []

    class Over(BaseException):
        pass

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 4:
            raise Over

    async with run(service) as api:
        with monkeypatch.context() as quick:
            quick.setattr(asyncio, "sleep", rest)
            [loop] = keep_running(api.rt, [Due("purge", some, every_s=300.0, by_portions=True)])
            with pytest.raises(Over):
                await loop
    assert done == [5000, 5000, 12, 0]
    assert rests == [1.0, 1.0, 1.0, 300.0]


async def test_one_look_for_all_calls_those_that_have_something_to_do(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(kit.due, "LOOK_EVERY_S", 0.01)
    done: list[str] = []
    again = asyncio.Event()

    def job(name: str) -> Due:
        async def work(_: Runtime) -> int:
            done.append(name)
            if done.count(name) == 1:
                raise RuntimeError
            again.set()
            # It waits still, and is not called while it is at work.
            await asyncio.sleep(0.1)
            return 1

        return Due(name, work, waits=f"SELECT FROM note WHERE words = '{name}' AND $1 > '2000-01-01'")

    await api.sql("INSERT INTO note (id, words, weight) VALUES (:id, 'b', 0)", id=new_id())
    loops = [asyncio.create_task(loop) for loop in keep_running(api.rt, [job(name) for name in "abc"])]
    await asyncio.wait_for(again.wait(), 10)
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
    assert done == ["b", "b"]


async def test_a_look_that_fails_keeps_no_job_from_its_work(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(kit.due, "LOOK_EVERY_S", 0.01)
    done: list[str] = []
    both = asyncio.Event()

    def job(name: str, waits: str) -> Due:
        async def work(_: Runtime) -> int:
            done.append(name)
            if {"a", "b"} <= set(done):
                both.set()
            return 0

        return Due(name, work, waits=waits)

    jobs = [job("a", "SELECT FROM nowhere"), job("b", "SELECT FROM note")]
    loops = [asyncio.create_task(loop) for loop in keep_running(api.rt, jobs)]
    await asyncio.wait_for(both.wait(), 10)
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
    assert set(done) == {"a", "b"}


async def test_nothing_is_told_while_it_cannot_be_noted_that_it_was(api: Api) -> None:
    async with api.rt.db.session() as session, session.begin():
        await emit(session, NoteWritten(words="once"))
    for statement in (
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END'",
        "CREATE TRIGGER full_disk BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION full_disk()",
    ):
        await api.sql(statement)
    for _ in range(3):
        with pytest.raises(DBAPIError):
            await api.rt.relay.publish()
    assert await api.rt.redis.xlen(api.rt.relay.stream) == 0
    await api.sql("DROP TRIGGER full_disk ON outbox")
    await api.sql("DROP FUNCTION full_disk")
    assert await api.rt.relay.publish() == 1
    assert await api.rt.redis.xlen(api.rt.relay.stream) == 1
