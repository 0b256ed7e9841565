"""Partners' webhook endpoints: whose they are, where they may lead, what they are told, and how long that is kept."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import orjson
import pytest

from kit import clock
from kit.openapi import service_document
from services.referrals.app import app
from services.referrals.webhook_events import TOLD, example_of
from tests.harness import Api
from tests.services.referrals.hooks import Receiver, deliveries, endpoint, verified
from tests.services.referrals.test_partners import brought, by, partner, refunded, run_payouts
from tests.services.referrals.world import lesson, paid

BASE = "/v1/partner/webhook-endpoints"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:a00:1::]/",
        "https://2852039166/",
        "https://012.0.0.1/",
        "https://user:pass@example.com/",
        "https://example.com/#x",
    ],
)
async def test_private_and_plain_addresses_are_refused(api: Api, url: str) -> None:
    who = await partner(api)
    answer = await api.client.post(BASE, headers=by(api, who), json={"url": url, "events": ["order.paid"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_url_refused"), answer.text
    made = await endpoint(api, who, "https://hooks.example.com/")
    answer = await api.client.patch(f"{BASE}/{made['id']}", headers=by(api, who), json={"url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_url_refused"), answer.text
    read = (await api.client.get(f"{BASE}/{made['id']}", headers=by(api, who))).json()
    assert read == {name: value for name, value in made.items() if name != "secret"}


async def test_endpoints_are_their_owners_and_types_must_exist(api: Api, receiver: Receiver) -> None:
    who, other = await partner(api), await partner(api)
    made = await endpoint(api, who, receiver.url)
    test = (await api.client.post(f"{BASE}/{made['id']}/test", headers=by(api, who))).json()
    for method, path in (
        ("GET", f"{BASE}/{made['id']}"),
        ("PATCH", f"{BASE}/{made['id']}"),
        ("DELETE", f"{BASE}/{made['id']}"),
        ("POST", f"{BASE}/{made['id']}/rotate-secret"),
        ("POST", f"{BASE}/{made['id']}/test"),
        ("POST", f"{BASE}/{made['id']}/replay"),
        ("GET", f"{BASE}/{made['id']}/deliveries"),
        ("POST", f"/v1/partner/deliveries/{test['id']}/replay"),
    ):
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        body = {"json": {"since": clock.now().isoformat()}} if path == f"{BASE}/{made['id']}/replay" else body
        assert (await api.client.request(method, path, headers=by(api, other), **body)).status_code == 404
        assert (await api.client.request(method, path, headers=api.member(UUID(who["id"])), **body)).status_code == 403
        assert (await api.client.request(method, path, **body)).status_code == 401
    unknown = {"url": receiver.url, "events": ["order.shipped"]}
    answer = await api.client.post(BASE, headers=by(api, who), json=unknown)
    assert (answer.status_code, answer.json()["code"]) == (422, "event_type_unknown")
    assert answer.json()["errors"][0]["loc"] == ["body", "events"]
    types = (await api.client.get("/v1/partner/event-types", headers=by(api, who))).json()["items"]
    assert [item["type"] for item in types] == list(TOLD)
    assert (await api.client.delete(f"{BASE}/{made['id']}", headers=by(api, who))).status_code == 204
    assert (await api.client.get(BASE, headers=by(api, who))).json()["items"] == []
    for _ in range(20):
        await endpoint(api, who, receiver.url)
    answer = await api.client.post(BASE, headers=by(api, who), json={"url": receiver.url, "events": ["order.paid"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_endpoints")


def test_the_published_document_has_every_event() -> None:
    assert list(orjson.loads(Path("docs/openapi.json").read_bytes())["webhooks"]) == list(TOLD)


async def test_every_event_is_documented_and_sent_as_documented(api: Api, receiver: Receiver) -> None:
    document = service_document(app())
    assert list(document["webhooks"]) == list(TOLD)

    def check(body: dict[str, Any]) -> None:
        operation = document["webhooks"][body["type"]]["post"]
        headers = [parameter["name"] for parameter in operation["parameters"]]
        assert headers == ["webhook-id", "webhook-timestamp", "webhook-signature"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        resolvable = schema | {"components": document["components"]}
        jsonschema.Draft202012Validator(resolvable, format_checker=checker).validate(body)

    for kind in TOLD:
        check(example_of(kind))
        shown = document["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["examples"]
        check(shown["event"]["value"])
    with pytest.raises(jsonschema.ValidationError):
        check(example_of("payout.paid") | {"data": {}})

    who = await partner(api)
    made = await endpoint(api, who, receiver.url, *TOLD)
    first, second, newcomer = await brought(api, who), await brought(api, who), await brought(api, who)
    orders = [paid(first, total=4900), paid(second, total=1990)]
    await api.handle(lesson(newcomer), *orders, refunded(orders[1], 1990))
    api.clock.advance(timedelta(days=8))
    await api.run_due()
    run = (await run_payouts(api)).json()
    await api.client.post(f"/v1/admin/payout-runs/{run['id']}/paid", headers=api.admin())
    await api.handle(refunded(orders[0], 900))
    await api.client.post(f"{BASE}/{made['id']}/test", headers=by(api, who))
    await api.run_due()

    assert set(receiver.types()) == set(TOLD)
    for heard in receiver.heard:
        check(verified(made["secret"], heard))
        assert set(orjson.loads(heard[1])["data"]) == set(example_of(orjson.loads(heard[1])["type"])["data"])


async def test_who_was_shut_off_hears_nothing_and_may_ask_for_it_once_back(api: Api, receiver: Receiver) -> None:
    who = await partner(api)
    made = await endpoint(api, who, receiver.url, "order.paid")
    newcomer = await brought(api, who)
    path = f"/v1/admin/partners/{who['id']}"
    await api.handle(paid(newcomer))
    await api.client.patch(path, headers=api.admin(), json={"active": False})
    await api.handle(paid(newcomer))
    await api.run_due()
    assert receiver.heard == []

    await api.client.patch(path, headers=api.admin(), json={"active": True})
    await api.run_due()
    assert receiver.types() == ["order.paid"]
    since = (clock.now() - timedelta(days=1)).isoformat()
    for body, replayed in (
        ({"since": since, "until": since}, 0),
        ({"since": since, "status": "failed"}, 0),
        ({"since": since, "status": "missed"}, 1),
        ({"since": since, "status": "missed"}, 0),
        ({"since": since, "status": "succeeded"}, 1),
    ):
        answer = await api.client.post(f"{BASE}/{made['id']}/replay", headers=by(api, who), json=body)
        assert answer.json() == {"replayed": replayed}
    await api.run_due()
    assert receiver.types() == ["order.paid"] * 3
    assert {UUID(item["id"]).version for item in await deliveries(api, who, made)} == {7}
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 2


async def test_the_log_is_kept_for_thirty_days_and_nothing_is_told_twice_after_them(
    api: Api, receiver: Receiver
) -> None:
    who = await partner(api)
    made = await endpoint(api, who, receiver.url, "member.registered", "order.paid")
    stopped = await endpoint(api, who, receiver.url, "order.paid")
    newcomer = await brought(api, who)
    order = paid(newcomer)
    await api.handle(order)
    await api.client.post(f"{BASE}/{made['id']}/test", headers=by(api, who))
    await api.client.patch(f"{BASE}/{stopped['id']}", headers=by(api, who), json={"status": "disabled"})
    await api.run_due()
    assert len(receiver.heard) == 3
    api.clock.advance(timedelta(days=29, hours=23))
    await api.run_due()
    assert (len(await deliveries(api, who, made)), len(await deliveries(api, who, stopped))) == (3, 1)

    api.clock.advance(timedelta(hours=2))
    assert await api.run_due() > 0
    assert await api.run_due() == 0

    assert await deliveries(api, who, made) == await deliveries(api, who, stopped) == []
    rows = await api.sql("SELECT type, body FROM webhook_message ORDER BY type")
    assert [row.type for row in rows if row.body is None] == ["commission.created", "member.registered", "order.paid"]
    assert [row.type for row in rows if row.body is not None] == ["commission.due"]
    # What is heard again of the same is known still.
    await api.handle(lesson(newcomer), refunded(order, 1))
    await api.run_due()
    assert len(receiver.heard) == 3
