"""Partners' webhooks: signed, retried by the schedule, kept in order, and never into a private network."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from services.referrals.app import service
from tests.harness import Api, Run
from tests.services.referrals.conftest import KEYS
from tests.services.referrals.test_partners import brought, by, partner, refunded
from tests.services.referrals.world import lesson, paid


@dataclass
class Receiver:
    """A partner's server on loopback: it keeps what it hears and answers what it is told to, 200 otherwise."""

    url: str = ""
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    hang: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                if self.hang:
                    await asyncio.sleep(60)
                self.heard.append((headers, body))
                answer = self.answers.pop(0) if self.answers else "200 OK"
                status, _, more = answer.partition("|")
                extra = f"{more}\r\n" if more else ""
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n{extra}\r\nok".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def types(self) -> list[str]:
        return [orjson.loads(body)["type"] for _, body in self.heard]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    yield receiver
    server.close()


@pytest.fixture
async def api(run: Run) -> AsyncIterator[Api]:
    """Referrals, allowed to call loopback."""
    allowed = ("127.0.0.0/8", "::1/128")
    async with run(service, seed=True, coupon_keys=KEYS, limits_mode="relaxed", webhook_allow=allowed) as api:
        yield api


async def endpoint(api: Api, who: dict[str, Any], url: str, *events: str) -> dict[str, Any]:
    body = {"url": url, "events": list(events or ["member.registered", "order.paid", "commission.created"])}
    answer = await api.client.post("/v1/partner/webhook-endpoints", headers=by(api, who), json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def deliveries(api: Api, who: dict[str, Any], made: dict[str, Any], **params: str) -> list[dict[str, Any]]:
    path = f"/v1/partner/webhook-endpoints/{made['id']}/deliveries"
    answer = await api.client.get(path, headers=by(api, who), params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def verified(secret: str, heard: tuple[dict[str, str], bytes]) -> Any:
    headers, body = heard
    return Webhook(secret).verify(body, headers)


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
    assert log[-1]["webhook_id"] == receiver.heard[0][0]["webhook-id"]
    assert [attempt["response_status"] for attempt in log[-1]["attempts"]] == [200]
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

    api.clock.advance(timedelta(seconds=4))
    await api.run_due()
    assert len(receiver.heard) == 1
    api.clock.advance(timedelta(seconds=1))
    await api.run_due()
    assert len(receiver.heard) == 2
    api.clock.advance(timedelta(minutes=5))
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
    receiver.answers = ["500 No"] * 20
    await brought(api, who)
    for wait in (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400):
        api.clock.advance(timedelta(seconds=wait))
        await api.run_due()
    (item,) = await deliveries(api, who, made)
    assert (item["status"], len(item["attempts"])) == ("failed", 10)

    api.clock.advance(timedelta(days=2))
    await brought(api, who)
    await api.run_due()

    (shown,) = (await api.client.get("/v1/partner/webhook-endpoints", headers=by(api, who))).json()["items"]
    assert (shown["status"], shown["reason"]) == ("disabled", "failing")
    notices = (await api.client.get("/v1/partner/me", headers=by(api, who))).json()["notices"]
    assert [(notice["endpoint_id"], notice["reason"]) for notice in notices] == [(made["id"], "failing")]
    # Started again, it goes on with what waited; what had failed for good is sent again when asked.
    receiver.answers.clear()
    path = f"/v1/partner/webhook-endpoints/{made['id']}"
    await api.client.patch(path, headers=by(api, who), json={"status": "active"})
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    replay = await api.client.post(f"{path}/replay", headers=by(api, who), json={"since": since})
    assert (replay.status_code, replay.json()) == (202, {"replayed": 1})
    api.clock.advance(timedelta(seconds=5))
    await api.run_due()
    assert [item["status"] for item in await deliveries(api, who, made)] == ["succeeded", "succeeded"]


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
    rotated = (await api.client.post(f"{path}/rotate-secret", headers=by(api, who))).json()
    assert rotated["secret"] != made["secret"]

    test = await api.client.post(f"{path}/test", headers=by(api, who))
    assert (test.status_code, test.json()["type"]) == (202, "endpoint.test")
    await api.run_due()
    for secret in (made["secret"], rotated["secret"]):
        verified(secret, receiver.heard[0])

    api.clock.advance(timedelta(hours=24, seconds=1))
    await api.client.post(f"/v1/partner/deliveries/{test.json()['id']}/replay", headers=by(api, who))
    await api.run_due()
    verified(rotated["secret"], receiver.heard[1])
    with pytest.raises(WebhookVerificationError):
        verified(made["secret"], receiver.heard[1])
    assert receiver.heard[0][0]["webhook-id"] == receiver.heard[1][0]["webhook-id"]


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
    hanging = Receiver(hang=True)
    server = await asyncio.start_server(hanging.serve, "127.0.0.1", 0)
    hanging.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    slow, quick = await partner(api), await partner(api)
    await endpoint(api, slow, hanging.url, "member.registered")
    await endpoint(api, quick, receiver.url, "member.registered")
    await brought(api, slow)
    await brought(api, quick)

    started = time.monotonic()
    await api.run_due()

    assert receiver.types() == ["member.registered"]
    assert time.monotonic() - started < 5
    server.close()


async def test_whoever_sends_slowly_keeps_the_endpoint_to_themselves(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.referrals.webhook_sending.LEASE", timedelta(seconds=2))
    monkeypatch.setattr("services.referrals.webhook_sending.ANSWER_S", 1.5)
    hanging = Receiver(hang=True)
    server = await asyncio.start_server(hanging.serve, "127.0.0.1", 0)
    hanging.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    who = await partner(api)
    await endpoint(api, who, hanging.url, "member.registered")
    for _ in range(3):
        await brought(api, who)
    sending = asyncio.create_task(api.run_due())
    await asyncio.sleep(2.6)
    assert await api.sql("SELECT busy_until > now() FROM webhook_endpoint") == [(True,)]
    await sending
    server.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fe80::1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:a00:1::]/",
        "https://224.0.0.1/",
        "https://user:pass@example.com/",
        "https://example.com/#x",
        "http://192.168.1.1/",
    ],
)
async def test_private_and_plain_addresses_are_refused(api: Api, url: str) -> None:
    who = await partner(api)
    answer = await api.client.post(
        "/v1/partner/webhook-endpoints", headers=by(api, who), json={"url": url, "events": ["order.paid"]}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_url_refused"), answer.text


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


async def test_endpoints_are_their_owners_and_types_must_exist(api: Api, receiver: Receiver) -> None:
    who, other = await partner(api), await partner(api)
    made = await endpoint(api, who, receiver.url)
    base = "/v1/partner/webhook-endpoints"
    test = (await api.client.post(f"{base}/{made['id']}/test", headers=by(api, who))).json()
    for method, path in (
        ("PATCH", f"{base}/{made['id']}"),
        ("DELETE", f"{base}/{made['id']}"),
        ("POST", f"{base}/{made['id']}/rotate-secret"),
        ("POST", f"{base}/{made['id']}/test"),
        ("GET", f"{base}/{made['id']}/deliveries"),
        ("POST", f"/v1/partner/deliveries/{test['id']}/replay"),
    ):
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        assert (await api.client.request(method, path, headers=by(api, other), **body)).status_code == 404
        assert (await api.client.request(method, path, headers=api.member(UUID(who["id"])), **body)).status_code == 403
        assert (await api.client.request(method, path, **body)).status_code == 401
    unknown = {"url": receiver.url, "events": ["order.shipped"]}
    answer = await api.client.post(base, headers=by(api, who), json=unknown)
    assert (answer.status_code, answer.json()["code"]) == (422, "event_type_unknown")
    types = (await api.client.get("/v1/partner/event-types", headers=by(api, who))).json()["items"]
    assert len(types) == 10
    assert (await api.client.delete(f"{base}/{made['id']}", headers=by(api, who))).status_code == 204
    assert (await api.client.get(base, headers=by(api, who))).json()["items"] == []
