"""The partners' client, and the guide that shows it: every block is run, every call made, every field known."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID

import heika_partner
import httpx
import pytest
from heika_partner import Event, Heika, Refused, Webhook, WebhookRefused
from standardwebhooks import Webhook as TheirWebhook

from tests.onebox.conftest import Heika as Server
from tests.onebox.conftest import eventually, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
BODY = b'{"type":"order.paid","timestamp":"2026-03-01T02:30:01Z","data":{"total":4900}}'
SENT_AT = 1_772_332_201


def signed(body: bytes = BODY, secret: str = SECRET, sent_at: int = SENT_AT) -> dict[str, str]:
    signature = TheirWebhook(secret).sign("msg_1", datetime.fromtimestamp(sent_at, tz=UTC), body.decode())
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(sent_at), "Webhook-Signature": signature}


def test_what_another_library_signs_is_verified_and_nothing_else() -> None:
    webhook = Webhook(SECRET)
    headers = signed()
    event = webhook.verify(BODY, headers, now=SENT_AT + 299)
    assert event == Event("msg_1", "order.paid", datetime(2026, 3, 1, 2, 30, 1, tzinfo=UTC), {"total": 4900})
    assert Webhook("whsec_" + base64.b64encode(b"o" * 32).decode(), SECRET).verify(BODY, headers, now=SENT_AT) == event
    both = headers["Webhook-Signature"] + " v1,AAAA v2,x v1 v1,é"
    assert webhook.verify(BODY, headers | {"Webhook-Signature": both}, now=SENT_AT) == event

    def refused(body: bytes, headers: dict[str, str], now: float = SENT_AT) -> None:
        with pytest.raises(WebhookRefused):
            webhook.verify(body, headers, now=now)

    refused(BODY + b" ", headers)
    refused(BODY, headers, SENT_AT + 301)
    refused(BODY, headers, SENT_AT - 301)
    refused(BODY, headers | {"Webhook-Id": "msg_2"})
    refused(BODY, headers | {"Webhook-Timestamp": str(SENT_AT + 1)})
    refused(BODY, signed(secret="whsec_" + base64.b64encode(b"x" * 32).decode()))
    for name in headers:
        refused(BODY, {other: value for other, value in headers.items() if other != name})
    for stamp in ("", "now", "-1", "1e9", "１７", "9" * 5000):
        refused(BODY, headers | {"Webhook-Timestamp": stamp})
    for signature in ("", "v1", "v1,", "v1,é", "v1,!", "v2" + headers["Webhook-Signature"][2:]):
        refused(BODY, headers | {"Webhook-Signature": signature})
    for strange in (b"{}", b"[]", b"1", b"not json", b'{"type":"a","timestamp":5,"data":{}}'):
        refused(strange, signed(strange))
    # Without `now` it is the clock's, and these were sent long ago or will be.
    with pytest.raises(WebhookRefused):
        webhook.verify(BODY, signed(sent_at=int(time.time()) + 3600))
    assert webhook.verify(BODY, signed(sent_at=int(time.time()))).id == "msg_1"
    for secret in ("", "whsec_", "whsec_not base64", "whsec_é"):
        with pytest.raises(ValueError, match="whsec_"):
            Webhook(secret)
    with pytest.raises(ValueError, match="a secret is needed"):
        Webhook()


def client(handler: Callable[[httpx.Request], httpx.Response]) -> Heika:
    return Heika("http://heika.test", "client", "secret", transport=httpx.MockTransport(handler))


def test_a_call_is_tried_again_under_one_key_and_a_token_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    heard: list[tuple[str, str | None, str | None]] = []
    page: dict[str, Any] = {"items": [], "next_cursor": None}
    in_flight = httpx.Response(409, json={"code": "idempotency_in_flight", "detail": "still running"})
    endpoint: dict[str, Any] = {"id": str(UUID(int=1)), "url": "https://a.example/b", "events": [], "status": "active"}
    endpoint |= {"created_at": "2026-03-01T02:30:01Z", "secret": SECRET, "new_field": 1}
    answers: list[httpx.Response | httpx.TransportError] = []

    def answer(request: httpx.Request) -> httpx.Response:
        heard.append((request.url.path, request.headers.get("authorization"), request.headers.get("idempotency-key")))
        if request.url.path == "/v1/auth/token":
            number = sum(path == "/v1/auth/token" for path, *_ in heard)
            return httpx.Response(200, json={"access_token": f"t{number}", "expires_in": 900})
        given = answers.pop(0)
        if isinstance(given, httpx.TransportError):
            raise given
        return given

    with client(answer) as heika:
        # Lost, still at work, then done: one key throughout, and a field that this client does not know is left aside.
        answers += [httpx.ReadTimeout("lost"), in_flight, httpx.Response(201, json=endpoint)]
        assert heika.create_endpoint("https://a.example/b", ["order.paid"]).secret == SECRET
        assert [path for path, *_ in heard] == ["/v1/auth/token", *["/v1/partner/webhook-endpoints"] * 3]
        assert len({key for *_, key in heard[1:]}) == 1
        assert heard[1][2]
        assert waits == [0.5, 1.0]

        # Asked to wait, and taken back early.
        answers += [
            httpx.Response(503, headers={"Retry-After": "7"}),
            httpx.Response(401),
            httpx.Response(200, json=page),
        ]
        assert list(heika.links()) == []
        assert waits == [0.5, 1.0, 7.0]
        assert [token for _, token, _ in heard if token] == [*["Bearer t1"] * 5, "Bearer t2"]

        # Longer than anybody waits: told at once.
        answers += [httpx.Response(429, headers={"Retry-After": "3600"}, json={"code": "too_many_requests"})]
        with pytest.raises(Refused) as told:
            list(heika.links())
        assert (told.value.code, told.value.status, told.value.retry_after) == ("too_many_requests", 429, 3600.0)
        # What is no problem+json is a refusal, too.
        answers += [httpx.Response(502, html="<h1>proxy</h1>")] * 3
        with pytest.raises(Refused, match="http_502"):
            list(heika.links())
        answers += [httpx.ConnectError("nobody")] * 3
        with pytest.raises(httpx.ConnectError):
            list(heika.links())
        # Lost, and deleted all the same.
        gone = httpx.Response(404, json={"code": "webhook_endpoint_not_found", "detail": "gone"})
        answers += [httpx.ReadTimeout("lost"), gone]
        heika.delete_endpoint(UUID(int=1))
        assert answers == []


def test_the_client_knows_every_field_of_what_it_reads() -> None:
    names = {
        "Partner": "PartnerMe",
        "Terms": "TermsOut",
        "Notice": "PartnerNoticeOut",
        "Attempt": "WebhookAttemptOut",
        "Statement": "Statement",
        "PayoutItem": "PayoutItem",
        "PartnerLink": "LinkOut",
        "EndpointWithSecret": "EndpointWithSecret",
    }
    shapes = {name: shape for name, shape in vars(heika_partner).items() if hasattr(shape, "__dataclass_fields__")}
    for name in shapes.keys() - {"Event"}:
        schema = DOCUMENT["components"]["schemas"][names.get(name, f"{name}Out")]
        assert {field.name for field in fields(shapes[name])} == schema["properties"].keys(), name
        hints = get_type_hints(shapes[name])
        for field, told in schema["properties"].items():
            null = any(one.get("type") == "null" for one in told.get("anyOf", ()))
            assert (type(None) in getattr(hints[field], "__args__", ())) == null, f"{name}.{field}"


def blocks(kind: str) -> list[str]:
    """The guide's blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / "docs" / "partners.md").read_text(), re.DOTALL | re.MULTILINE)


# Somebody who reads along sees the last message arrive; the test's receiver ends with the script.
WAIT = """
import os, time
from heika_partner import Heika

with Heika("http://127.0.0.1:8000", os.environ["HEIKA_CLIENT_ID"], os.environ["HEIKA_CLIENT_SECRET"]) as heika:
    while len(list(heika.deliveries(os.environ["HEIKA_ENDPOINT_ID"], status="succeeded"))) < 2:
        time.sleep(0.05)
"""


class Watched(httpx.HTTPTransport):
    """Notes which operations of the document were called."""

    def __init__(self, called: set[str]) -> None:
        super().__init__()
        self.called = called

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for path, item in DOCUMENT["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[0-9a-f-]{36}", path), request.url.path):
                self.called.add(item[request.method.lower()]["operationId"])
        return super().handle_request(request)


def test_the_guide_works_as_it_stands_and_the_client_makes_every_call(
    heika: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOW_CIDRS", "127.0.0.1/32")
    heika.start()
    port = free_port()

    def here(text: str) -> str:
        return re.sub(r"\b9000\b", str(port), text.replace("http://127.0.0.1:8000", heika.address))

    for block in blocks("python"):
        name, _, code = block.partition("\n")
        (tmp_path / name.removeprefix("# ")).write_text(here(code))
    (tmp_path / "wait.py").write_text(here(WAIT))
    script = "set -eu\ntrap 'kill $!' EXIT\n" + here("".join(blocks("sh")))
    script += "python wait.py\necho client $HEIKA_CLIENT_ID $HEIKA_CLIENT_SECRET $HEIKA_ENDPOINT_ID\n"
    told = json.loads((heika.data / "secrets.json").read_text())
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "clients" / "python"),
        "HEIKA_ADMIN_PASSWORD": told["HEIKA_ADMIN_PASSWORD"],
    }
    ran = subprocess.run(
        ["sh", "-c", script], check=False, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=90
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    *said, credentials = ran.stdout.splitlines()
    assert sorted(said) == [
        "endpoint.test succeeded 204",
        "registered 0",
        "verified endpoint.test",
        "verified member.registered",
    ]
    _, client_id, client_secret, endpoint_id = credentials.split()

    called: set[str] = set()
    with Heika(heika.address, client_id, client_secret, language="en", transport=Watched(called)) as partner:
        me = partner.me()
        assert (me.client_id, me.commission.percent, me.hold_days, me.notices) == (client_id, 20, 14, [])
        (link,) = partner.links()
        (brought,) = partner.referrals()
        assert (brought.link_id, brought.stage) == (link.id, "registered")
        assert partner.create_link("抖音", channel="douyin").channel == "douyin"
        assert (list(partner.commissions(status="due")), list(partner.payouts())) == ([], [])
        assert partner.statement(datetime(2026, 1, 1, tzinfo=UTC).date()).closing == 0
        assert "endpoint.test" in [one.type for one in partner.event_types()]

        (endpoint,) = partner.endpoints()
        assert (endpoint.id, partner.endpoint(endpoint.id)) == (UUID(endpoint_id), endpoint)
        heard = list(partner.deliveries(endpoint.id, status="succeeded"))
        assert [one.type for one in heard] == ["member.registered", "endpoint.test"]
        # Nobody listens any more: what is sent again is on its way.
        again = partner.replay(heard[0].id)
        assert (again.webhook_id, again.status) == (heard[0].webhook_id, "pending")
        assert eventually(lambda: len(next(partner.deliveries(endpoint.id)).attempts) > 1, 15)
        assert partner.rotate_secret(endpoint.id).secret.startswith("whsec_")
        stopped = partner.change_endpoint(endpoint.id, events=["payout.paid"], status="disabled")
        assert (stopped.status, stopped.reason, stopped.events) == ("disabled", "by_partner", ["payout.paid"])
        assert partner.replay_since(endpoint.id, endpoint.created_at - timedelta(days=1), status="failed") == 0
        assert partner.test_endpoint(endpoint.id).type == "endpoint.test"
        with pytest.raises(Refused, match=r"webhook_url_refused: Webhooks go to public https") as refusal:
            partner.change_endpoint(endpoint.id, url="http://10.0.0.1/")
        assert refusal.value.status == 422
        other = partner.create_endpoint("http://127.0.0.1:9/", ["order.paid"])
        for one in (endpoint, other, other):
            partner.delete_endpoint(one.id)
        assert list(partner.endpoints()) == []
    for_partners = {
        operation["operationId"]
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
        if operation["tags"][0].startswith("partner")
    }
    assert called - {"issue_tokens"} == for_partners
    with Heika(heika.address, client_id, "guessed") as stranger, pytest.raises(Refused, match="invalid_client"):
        stranger.me()
