"""Events: told only if committed, handled exactly once in effect, through failures, flushes and restarts of Redis."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import kit.consume as module
from kit import commands
from kit.consume import Letter
from kit.events import emit
from kit.relay import stream_of
from tests.harness import Api, Run, Stores
from tests.kit.conftest import NoteWritten, heard, service, trouble


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def write(api: Api, words: str) -> None:
    answer = await api.client.post("/v1/notes", json={"words": words})
    assert answer.status_code == 201, answer.text


async def heard_of(api: Api) -> list[str]:
    rows = await api.sql("SELECT words FROM note WHERE words LIKE 'heard %'")
    return sorted(row.words.removeprefix("heard ") for row in rows)


async def test_what_is_committed_is_handled_once_and_quickly(run: Run) -> None:
    async with run(service, background=True) as api:
        await write(api, "first")
        await until(lambda: _is(heard_of(api), ["first"]))
        took = []
        for number in range(20):
            heard.clear()
            started = time.perf_counter()
            await write(api, f"note {number}")
            while not heard:  # noqa: ASYNC110 - a finer clock than a poll of the table
                await asyncio.sleep(0.001)
            took.append(time.perf_counter() - started)
        wanted = sorted(["first", *(f"note {number}" for number in range(20))])
        await until(lambda: _is(heard_of(api), wanted))
        assert statistics.median(took) < 0.5  # a bound for a busy machine; bench/events.py has the figure


async def _is(value: Awaitable[object], wanted: object) -> bool:
    return await value == wanted


async def test_what_is_rolled_back_is_never_told(api: Api) -> None:
    answer = await api.client.post("/v1/notes", json={"words": "refused"})
    assert answer.status_code == 409
    assert await api.emitted() == []
    assert await api.rt.relay.publish() == 0


async def test_a_flushed_redis_is_told_everything_again_and_nothing_is_handled_twice(run: Run) -> None:
    async with run(service, background=True) as api:
        await write(api, "before")
        await until(lambda: _is(heard_of(api), ["before"]))
        await api.rt.redis.flushall()
        await write(api, "after")
        await until(lambda: _is(heard_of(api), ["after", "before"]))
        await until(lambda: _is(_length(api), 2))
        assert await heard_of(api) == ["after", "before"]


async def _length(api: Api) -> int:
    return int(await api.rt.redis.xlen(stream_of("probe")))


async def test_events_told_to_a_redis_that_forgets_them_on_restart_are_told_again(run: Run, stores: Stores) -> None:
    async with run(service, background=False) as api:
        await write(api, "lost")
        assert await api.rt.relay.publish() == 1
        stores.valkey.stop()
        (stores.valkey.folder / "dump.rdb").unlink(missing_ok=True)
        stores.valkey.start()
        await api.rt.redis.connection_pool.disconnect()
        await api.rt.redis.flushall()
        assert await api.rt.relay.publish() == 1
        assert await _length(api) == 1


async def test_the_same_event_delivered_twice_is_handled_once(api: Api) -> None:
    event = NoteWritten(words="twice")
    await api.handle(event, event)
    assert await heard_of(api) == ["twice"]


async def test_a_failing_handler_is_retried_with_growing_waits_until_it_succeeds(api: Api) -> None:
    trouble.extend([ValueError("again"), ValueError("not yet")])
    event = NoteWritten(words="in the end")
    with pytest.raises(AssertionError, match="not yet"):
        await api.handle(event)
    assert await api.run_due() == 0
    api.clock.advance(timedelta(seconds=1))
    assert await api.run_due() == 1
    assert await heard_of(api) == []
    api.clock.advance(timedelta(seconds=5))
    assert await api.run_due() == 1
    assert await heard_of(api) == ["in the end"]
    assert await commands.failures(api.rt) == []
    assert await api.run_due() == 0


async def test_a_dead_letter_is_listed_replayed_and_discarded(api: Api) -> None:
    for words in ("poison", "wine"):
        trouble.append(ValueError("bad"))
        with pytest.raises(AssertionError):
            await api.handle(NoteWritten(words=words))
    for _ in range(9):
        trouble.extend([ValueError("bad")] * 2)
        api.clock.advance(timedelta(days=1))
        await api.run_due()
    dead = await commands.failures(api.rt, dead_only=True)
    assert [(letter.type, letter.attempts) for letter in dead] == [("probe.note.written", 9)] * 2
    trouble.clear()
    assert await commands.discard(api.rt, dead[0].event_id) == 1
    assert await commands.replay(api.rt) == 1
    assert await api.run_due() == 1
    assert await heard_of(api) == ["wine"]
    assert await commands.failures(api.rt) == []


async def test_an_event_behind_an_older_open_transaction_waits_and_keeps_its_order(api: Api) -> None:
    async with api.rt.db.session() as slow, slow.begin():
        await emit(slow, NoteWritten(words="slow"))
        await write(api, "quick")
        assert await api.rt.relay.publish() == 0
    assert await api.rt.relay.publish() == 2
    messages: Any = await api.rt.redis.xrange(stream_of("probe"))
    assert [b"slow" in fields[b"body"] for _, fields in messages] == [True, False]


async def test_two_processes_handle_each_event_once_between_them(run: Run) -> None:
    async with run(service, background=True) as api:
        twin = type(api.rt)(service, api.rt.settings.model_copy(update={"instance": "twin"}))
        task = asyncio.create_task(twin.consumer.run())
        async with api.rt.db.session() as session, session.begin():
            await emit(session, *(NoteWritten(words=f"{number:03}") for number in range(300)))
        wanted = [f"{number:03}" for number in range(300)]
        await until(lambda: _is(heard_of(api), wanted), 30)
        # The drivers may swallow a cancellation before Python 3.12: ask until it has been heard.
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.5)
        await twin.close()
        assert await commands.failures(api.rt) == []


async def test_what_a_dead_consumer_had_taken_is_handled_by_the_next(run: Run) -> None:
    async with run(service, background=False) as api:
        await write(api, "taken")
        await api.rt.relay.publish()
        consumer = api.rt.consumer
        await consumer._join()
        await api.rt.redis.xreadgroup("probe", "dead", {stream_of("probe"): ">"}, count=10)
        await asyncio.sleep(0.01)
        idle, module.CLAIM_IDLE_MS = module.CLAIM_IDLE_MS, 1
        try:
            await consumer._claim()
        finally:
            module.CLAIM_IDLE_MS = idle
        assert await heard_of(api) == ["taken"]
        assert await consumer.lag() == 0


async def test_the_stream_is_trimmed_only_behind_every_listener(run: Run) -> None:
    async with run(service, background=False) as api:
        for number in range(3):
            await write(api, str(number))
        await api.rt.relay.publish()
        await api.rt.relay._trim()
        assert await _length(api) == 3
        await api.rt.consumer._join()
        await api.rt.consumer._read(">")
        assert await api.rt.consumer.lag() == 0
        await api.rt.relay._trim()
        assert await _length(api) <= 3
        assert await heard_of(api) == ["0", "1", "2"]


async def test_republish_tells_again_what_is_kept_and_changes_nothing(run: Run) -> None:
    async with run(service, background=True) as api:
        await write(api, "kept")
        await until(lambda: _is(heard_of(api), ["kept"]))
        await until(lambda: _is(_unpublished(api), 0))
        assert await commands.republish(api.rt) == 1
        await until(lambda: _is(_length(api), 2))
        await until(lambda: _is(api.rt.consumer.lag(), 0))
        assert await heard_of(api) == ["kept"]
        assert (await commands.lag(api.rt))["groups"] == {"probe": 0}


async def test_news_overtakes_a_history_that_is_told_again_and_what_is_known_costs_no_transaction(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run(service, background=False) as api:
        relay, consumer = api.rt.relay, api.rt.consumer
        async with api.rt.db.session() as session, session.begin():
            await emit(session, *(NoteWritten(words=f"{number:03}") for number in range(450)))
        assert await relay.publish() == 450
        await consumer._join()
        while await consumer.lag():
            await consumer._read(">")
        assert len(await heard_of(api)) == 450
        await api.rt.redis.flushall()
        await write(api, "news")
        assert await relay.publish() == 201
        told: Any = await api.rt.redis.xrange(stream_of("probe"), count=1)
        assert b"news" in told[0][1][b"body"]
        assert [await relay.publish() for _ in range(3)] == [200, 50, 0]
        assert (await commands.lag(api.rt))["unpublished"] == 0
        handled: list[str] = []
        deliver = consumer.deliver

        async def noted(letter: Letter) -> None:
            handled.append(letter.body)
            await deliver(letter)

        monkeypatch.setattr(consumer, "deliver", noted)
        await consumer._join()
        while await consumer.lag():
            await consumer._read(">")
        assert len(handled) == 1
        assert len(await heard_of(api)) == 451


async def test_what_listeners_may_have_forgotten_is_not_told_again(run: Run) -> None:
    async with run(service, background=False) as api:
        await write(api, "old")
        await write(api, "new")
        assert await api.rt.relay.publish() == 2
        await api.sql("UPDATE outbox SET written_at = written_at - interval '21 days' WHERE body->>'words' = 'old'")
        assert await commands.republish(api.rt) == 1
        assert await api.rt.relay.publish() == 1


async def _unpublished(api: Api) -> int:
    return int((await commands.lag(api.rt))["unpublished"])


async def test_the_outbox_knows_the_request_that_caused_the_event(api: Api) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"X-Request-Id": "from-the-caller", "traceparent": trace}
    await api.client.post("/v1/notes", json={"words": "traced"}, headers=headers)
    rows = await api.sql("SELECT request_id, traceparent FROM outbox")
    assert rows[0].request_id == "from-the-caller"
    assert rows[0].traceparent.split("-")[1] == "4bf92f3577b34da6a3ce929d0e0e4736"
