"""Partners' webhooks on their way: signed, tried again by the schedule, kept in order, and in nobody else's way."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import orjson
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from kit.text import dump_json
from services.referrals.webhook_sending import LEASE, WRITE_EVERY_S, Sender
from services.referrals.webhook_tries import ANSWER_S
from services.referrals.webhook_upkeep import give_up
from tests.harness import BEGINNING, Api
from tests.services.referrals.hooks import Receiver, deliveries, endpoint, listening, verified
from tests.services.referrals.test_partners import brought, by, partner, refunded
from tests.services.referrals.world import lesson, paid


async def test_what_is_told_is_signed_as_the_reference_library_wants_it(api: Api, receiver: Receiver) -> None:
    who = await partner(api)
    made = await endpoint(api, who, receiver.url)
    assert made["secret"].startswith("whsec_")

    newcomer = await brought(api, who)
    await api.handle(lesson(newcomer), paid(newcomer, total=4900))
    await api.run_due()

    assert receiver.types() == ["member.registered", "commission.created", "order.paid", "commission.created"]
    for heard in receiver.heard:
        told = verified(made["secret"], heard)
        assert set(told) == {"type", "timestamp", "data"}
    assert orjson.loads(receiver.heard[2][1])["data"]["total"] == 4900
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 44).verify(receiver.heard[0][1], receiver.heard[0][0])
    log = await deliveries(api, who, made)
    assert [item["status"] for item in log] == ["succeeded"] * 4
    assert {UUID(item["id"]).version for item in log} == {7}
    assert log[-1]["webhook_id"] == receiver.heard[0][0]["webhook-id"]
    assert dump_json(log[-1]["body"]) == receiver.heard[0][1]
    (attempt,) = log[-1]["attempts"]
    assert (attempt["url"], attempt["response_status"], attempt["response_body"]) == (receiver.url, 200, "ok")
    assert attempt["request_headers"].items() <= receiver.heard[0][0].items()
    assert (attempt["error"], attempt["duration_ms"] >= 0) == (None, True)
    assert await api.run_due() == 0
    assert len(receiver.heard) == 4


async def test_a_failure_is_tried_again_by_the_schedule_under_the_same_id(api: Api, receiver: Receiver) -> None:
    who = await partner(api)
    made = await endpoint(api, who, receiver.url, "member.registered")
    receiver.answers = ["500 No", "302 Found|location: http://127.0.0.1/", "200 OK"]
    await brought(api, who)
    await api.run_due()
    (item,) = await deliveries(api, who, made, status="pending")
    assert [attempt["response_status"] for attempt in item["attempts"]] == [500]

    api.clock.advance(timedelta(seconds=5))
    await api.run_due()
    assert len(receiver.heard) == 2
    # A wait is at most a tenth shorter than the schedule.
    api.clock.advance(timedelta(minutes=4))
    await api.run_due()
    assert len(receiver.heard) == 2
    api.clock.advance(timedelta(minutes=1))
    await api.run_due()

    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    (item,) = await deliveries(api, who, made)
    assert (item["status"], item["next_attempt_at"]) == ("succeeded", None)
    assert [attempt["response_status"] for attempt in item["attempts"]] == [500, 302, 200]
    # The signature's time is the real one, however far the product's clock is ahead.
    assert abs(int(receiver.heard[2][0]["webhook-timestamp"]) - time.time()) < 60


async def test_ten_tries_fail_and_five_days_of_failure_disable_the_endpoint(api: Api, receiver: Receiver) -> None:
    who = await partner(api)
    made = await endpoint(api, who, receiver.url, "member.registered")
    path = f"/v1/partner/webhook-endpoints/{made['id']}"
    receiver.answers = ["500 No"] * 20
    await brought(api, who)
    for wait in (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400):
        api.clock.advance(timedelta(seconds=wait))
        await api.run_due()
    (item,) = await deliveries(api, who, made)
    assert (item["status"], len(item["attempts"])) == ("failed", 10)
    assert (await api.client.get(path, headers=by(api, who))).json()["status"] == "active"

    # Nobody need send anything for it: five days without a success are five days.
    api.clock.advance(timedelta(days=2))
    assert await api.run_due() == 1
    assert await api.run_due() == 0

    shown = (await api.client.get(path, headers=by(api, who))).json()
    assert (shown["status"], shown["reason"]) == ("disabled", "failing")
    notices = (await api.client.get("/v1/partner/me", headers=by(api, who))).json()["notices"]
    assert [(notice["endpoint_id"], notice["reason"]) for notice in notices] == [(made["id"], "failing")]
    # Started again, it is sent what had failed and what it missed, when asked.
    receiver.answers.clear()
    await brought(api, who)
    await api.client.patch(path, headers=by(api, who), json={"status": "active"})
    since = (BEGINNING - timedelta(days=1)).isoformat()
    for replayed in (2, 0):
        replay = await api.client.post(f"{path}/replay", headers=by(api, who), json={"since": since})
        assert (replay.status_code, replay.json()) == (202, {"replayed": replayed})
    await api.run_due()
    assert [item["status"] for item in await deliveries(api, who, made)] == ["succeeded", "succeeded"]
    assert (await api.client.get(path, headers=by(api, who))).json()["failing_since"] is None


async def test_what_waited_while_nobody_sent_is_tried_before_the_endpoint_is_given_up(
    api: Api, receiver: Receiver
) -> None:
    mended, broken = await partner(api), await partner(api)
    async with listening() as silent:
        for who, where in ((mended, receiver), (broken, silent)):
            await endpoint(api, who, where.url, "member.registered")
            await brought(api, who)
            where.answers = ["500 No"]
        await api.run_due()
        # Nothing ran for five days, and the job that gives up comes first.
        api.clock.advance(timedelta(days=5))
        assert await give_up(api.rt) == 0
        silent.answers = ["500 No"]
        await api.run_due()

        assert (len(receiver.heard), len(silent.heard)) == (2, 2)
        for who, stands in ((mended, ("active", None)), (broken, ("disabled", "failing"))):
            answer = await api.client.get("/v1/partner/webhook-endpoints", headers=by(api, who))
            assert [(one["status"], one["reason"]) for one in answer.json()["items"]] == [stands]
        assert await api.run_due() == 0


async def test_gone_disables_at_once_and_retry_after_is_honoured(api: Api, receiver: Receiver) -> None:
    who = await partner(api)
    made = await endpoint(api, who, receiver.url, "member.registered")
    receiver.answers = ["503 Later|retry-after: 3600", "410 Gone"]
    await brought(api, who)
    await api.run_due()
    api.clock.advance(timedelta(minutes=50))
    await api.run_due()
    assert len(receiver.heard) == 1
    api.clock.advance(timedelta(minutes=10))
    await api.run_due()

    assert len(receiver.heard) == 2
    (item,) = await deliveries(api, who, made)
    assert item["status"] == "failed"
    (shown,) = (await api.client.get("/v1/partner/webhook-endpoints", headers=by(api, who))).json()["items"]
    assert (shown["status"], shown["reason"]) == ("disabled", "gone")


async def test_for_a_day_after_a_rotation_both_secrets_verify(api: Api, receiver: Receiver) -> None:
    who = await partner(api)
    made = await endpoint(api, who, receiver.url, "member.registered")
    path = f"/v1/partner/webhook-endpoints/{made['id']}"
    secrets = [made["secret"]]
    # A second rotation within the day cuts nobody off who still verifies by the first secret.
    for _ in range(2):
        rotated = (await api.client.post(f"{path}/rotate-secret", headers=by(api, who))).json()
        assert rotated["secret"] not in secrets
        secrets.append(rotated["secret"])

    test = await api.client.post(f"{path}/test", headers=by(api, who))
    assert (test.status_code, test.json()["type"]) == (202, "endpoint.test")
    await api.run_due()
    for secret in secrets:
        verified(secret, receiver.heard[0])

    api.clock.advance(timedelta(hours=24, seconds=1))
    await api.client.post(f"/v1/partner/deliveries/{test.json()['id']}/replay", headers=by(api, who))
    await api.run_due()
    verified(secrets[-1], receiver.heard[1])
    for secret in secrets[:-1]:
        with pytest.raises(WebhookVerificationError):
            verified(secret, receiver.heard[1])
    assert receiver.heard[0][0]["webhook-id"] == receiver.heard[1][0]["webhook-id"]
    # More than ten in a day would fill the header.
    answers = [await api.client.post(f"{path}/rotate-secret", headers=by(api, who)) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [409]
    assert (answers[-1].json()["code"], "retry-after" in answers[-1].headers) == ("rotated_too_often", True)


async def test_a_partner_hears_of_their_own_members_and_of_what_they_asked_for(api: Api, receiver: Receiver) -> None:
    who, other = await partner(api), await partner(api)
    await endpoint(api, who, receiver.url, "order.refunded", "payout.paid", "commission.due", "commission.voided")
    order = paid(await brought(api, other), total=1990)
    mine = paid(await brought(api, who), total=1990)
    await api.handle(order, mine, refunded(order, 1990), refunded(mine, 1990), refunded(mine, 1990))
    await api.run_due()
    assert receiver.types() == ["commission.voided", "order.refunded", "order.refunded"]
    assert {orjson.loads(body)["data"]["order_id"] for _, body in receiver.heard} == {str(mine.order_id)}


async def test_a_hanging_endpoint_delays_no_other(api: Api, receiver: Receiver) -> None:
    slow, quick = await partner(api), await partner(api)
    async with listening(hang=True) as hanging:
        await endpoint(api, slow, hanging.url, "member.registered")
        await endpoint(api, quick, receiver.url, "member.registered")
        await brought(api, slow)
        await brought(api, quick)

        started = time.monotonic()
        await api.run_due()

        assert receiver.types() == ["member.registered"]
        assert time.monotonic() - started < 5
        # Nor does whoever moves the clock wait for it at every stop.
        sender: Sender = api.rt.state["webhooks"]
        started = time.monotonic()
        for _ in range(20):
            await sender.settle(1.0)
        assert time.monotonic() - started < 5


async def test_however_many_are_slow_half_of_the_places_are_not_theirs(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.referrals.webhook_sending.AT_ONCE", 4)
    who = await partner(api)
    sender: Sender = api.rt.state["webhooks"]
    async with listening(hang=True) as hanging:
        for _ in range(6):
            made = await endpoint(api, who, hanging.url, "member.registered")
            sender._slow.add(UUID(made["id"]))
        await endpoint(api, who, receiver.url, "member.registered")
        await brought(api, who)

        assert await sender.start_due() == 3
        assert len(sender._under_way.keys() & sender._slow) == 2
        for _ in range(2):
            await hanging.arrivals.get()
        await asyncio.wait(sender._under_way.values(), return_when=asyncio.FIRST_COMPLETED)
        assert receiver.types() == ["member.registered"]
        await _cut(sender)


async def test_an_endpoint_has_one_sender_and_a_dead_one_keeps_it_for_a_short_time_only(api: Api) -> None:
    assert timedelta(seconds=ANSWER_S + WRITE_EVERY_S + 10) < LEASE < timedelta(minutes=1)
    who = await partner(api)
    first, second = Sender(api.rt), Sender(api.rt)
    async with listening(hang=True) as hanging:
        await endpoint(api, who, hanging.url, "member.registered")
        await brought(api, who)
        assert [await first.start_due(), await second.start_due()] == [1, 0]
        await hanging.arrivals.get()
        await api.sql("UPDATE webhook_endpoint SET busy_until = now() - interval '1 second'")
        assert [await first.start_due(), await second.start_due()] == [0, 1]
        await hanging.arrivals.get()
        # Whoever lost the endpoint does not give away what is another's now.
        await _cut(first)
        assert await api.sql("SELECT busy_until > now() FROM webhook_endpoint") == [(True,)]
        await _cut(second)
        assert await api.sql("SELECT busy_until FROM webhook_endpoint") == [(None,)]


async def test_an_address_that_turned_private_is_not_called(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = await partner(api)
    made = await endpoint(api, who, "https://hooks.example.com/", "member.registered")

    async def rebound(_: str, __: int) -> list[str]:
        return ["10.1.2.3"]

    monkeypatch.setattr("kit.outbound.resolve", rebound)
    await brought(api, who)
    await api.run_due()
    (item,) = await deliveries(api, who, made)
    assert [attempt["error"] for attempt in item["attempts"]] == ["address_refused"]
    assert receiver.heard == []


async def _cut(sender: Sender) -> None:
    """End what it has under way, as a process that dies does."""
    tasks = list(sender._under_way.values())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
