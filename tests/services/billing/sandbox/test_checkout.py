"""Checkout sessions over the real SDK: opened, shown, listed, ended; and every way of asking wrongly."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import stripe

from kit import clock
from kit.app import create_app
from services.billing.sandbox.parameters import fields_of
from services.billing.sandbox.provider import OPERATIONS, running_provider
from services.billing.sandbox.wire import epoch
from services.billing.settings import Settings
from tests.services.billing.sandbox.conftest import KEY, WALLETS, Sandbox, service

PRICE = {"currency": "cny", "unit_amount": 4400, "product_data": {"name": "黑卡"}}
ITEM = {"quantity": 1, "price_data": PRICE}


async def test_a_session_carries_what_billing_needs(sandbox: Sandbox) -> None:
    now = epoch(clock.now())

    opened = await sandbox.open(expires_at=now + 4500, success_url="https://heika.test/done/{CHECKOUT_SESSION_ID}")

    assert opened.id.startswith("cs_test_")
    assert len(opened.id) > 70
    assert (opened.status, opened.payment_status, opened.mode) == ("open", "unpaid", "payment")
    assert (opened.amount_total, opened.amount_subtotal, opened.currency) == (4400, 4400, "cny")
    assert opened.client_reference_id == "order-1"
    assert opened.metadata is not None
    assert opened.metadata.to_dict() == {"order_id": "order-1", "member_id": "member-1"}
    assert opened.url == f"{sandbox.api.rt.settings.public_url}/v1/sandbox/checkout/{opened.id}"
    assert (opened.expires_at, opened.payment_intent, opened.payment_method_types) == (now + 4500, None, ["card"])
    assert (opened.customer, opened.livemode) == (None, False)
    assert opened.success_url == f"https://heika.test/done/{opened.id}"
    assert 0 <= opened.created - now <= 1
    assert (await sandbox.v1.checkout.sessions.retrieve_async(opened.id)).to_dict() == opened.to_dict()


async def test_what_is_sold_is_listed_when_asked_for(sandbox: Sandbox) -> None:
    two = [
        ITEM,
        {"quantity": 3, "price_data": {"currency": "cny", "unit_amount": 100, "product_data": {"name": "丝带"}}},
    ]
    opened = await sandbox.open(line_items=two, expand=["line_items"])

    assert opened.amount_total == 4700
    assert opened.line_items is not None
    shown = [(item.description, item.quantity, item.amount_total) for item in opened.line_items.data]
    assert shown == [("黑卡", 1, 4400), ("丝带", 3, 300)]
    listed = await sandbox.v1.checkout.sessions.line_items.list_async(opened.id)
    assert [item.description for item in listed.data] == ["黑卡", "丝带"]
    assert "line_items" not in (await sandbox.v1.checkout.sessions.retrieve_async(opened.id))


async def test_a_parameter_that_the_sdk_lost_is_refused_by_its_name(sandbox: Sandbox) -> None:
    # Up to version 15 the filter was spelled payment_method_types.
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await sandbox.open(payment_method_types=["card"])

    assert (refused.value.code, refused.value.param) == ("parameter_unknown", "payment_method_types")
    assert refused.value.http_status == 400
    assert await sandbox.count("sandbox_session") == 0


def test_every_parameter_that_the_sandbox_takes_is_one_of_the_sdks() -> None:
    taken = 0
    for operation in OPERATIONS:
        for name in operation.takes:
            fields = fields_of(operation.shape)
            for word in name.split("."):
                if word == "*":
                    continue
                assert word in fields, f"{operation.method} {operation.path}: {name}"
                nested = [hint for hint in _inner(fields[word]) if hasattr(hint, "__required_keys__")]
                fields = fields_of(nested[0]) if nested else {}
            taken += 1
    assert taken > 80


def _inner(hint: Any) -> list[Any]:
    inner = getattr(hint, "__args__", ())
    return [hint, *(part for argument in inner for part in _inner(argument))]


async def test_what_is_answered_has_the_sdks_fields_and_no_others(sandbox: Sandbox) -> None:
    intent = await sandbox.paid()
    refund = await sandbox.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1})
    answered: list[Any] = [
        (await sandbox.v1.checkout.sessions.list_async()).data[0],
        intent,
        await sandbox.v1.charges.retrieve_async(str(intent.latest_charge)),
        refund,
        (await sandbox.v1.events.list_async()).data[0],
        await sandbox.v1.customers.create_async({"email": "a@heika.test"}),
    ]
    for shape in answered:
        known = type(shape).__annotations__
        required = {
            name for name, hint in known.items() if "NoneType" not in repr(hint) and "Optional" not in repr(hint)
        }
        fields = set(shape.to_dict())
        assert fields <= set(known), (type(shape), fields - set(known))
        assert required - {"OBJECT_NAME"} <= fields, (type(shape), required - fields)


WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({"discounts": [{"coupon": "x"}]}, "parameter_not_in_sandbox", "discounts"),
    ({"mode": "subscription"}, "parameter_not_in_sandbox", "mode"),
    ({"mode": "gift"}, "parameter_invalid", "mode"),
    ({"ui_mode": "embedded_page"}, "parameter_not_in_sandbox", "ui_mode"),
    ({"line_items": []}, "parameter_missing", "line_items"),
    ({"line_items": [{"quantity": 1}]}, "parameter_missing", "line_items[0][price_data]"),
    ({"line_items": [{"price": "price_1"}]}, "parameter_not_in_sandbox", "line_items[0][price]"),
    ({"line_items": [{"price_data": {"unit_amount": 1}}]}, "parameter_missing", "line_items[0][price_data][currency]"),
    ({"line_items": [{"price_data": PRICE | {"unit_amount": 0}}]}, "amount_too_small", "line_items"),
    ({"line_items": [{"price_data": PRICE | {"unit_amount": 10**8}}]}, "amount_too_large", "line_items"),
    (
        {"line_items": [{"price_data": PRICE | {"unit_amount": -5}}]},
        "parameter_invalid_integer",
        "line_items[0][price_data]",
    ),
    (
        {"line_items": [{"price_data": PRICE | {"unit_amount": "1.5"}}]},
        "parameter_invalid_integer",
        "line_items[0][price_data][unit_amount]",
    ),
    (
        {"line_items": [{"price_data": PRICE | {"product_data": {"name": ""}}}]},
        "parameter_invalid_empty",
        "line_items[0][price_data][product_data][name]",
    ),
    ({"line_items": [ITEM, {"price_data": PRICE | {"currency": "usd"}}]}, None, "line_items"),
    ({"allowed_payment_method_types": ["ideal"]}, "parameter_not_in_sandbox", "allowed_payment_method_types"),
    (
        {"allowed_payment_method_types": ["wechat_pay"]},
        "parameter_missing",
        "payment_method_options[wechat_pay][client]",
    ),
    (
        WALLETS[1] | {"payment_method_options": {"wechat_pay": {"client": "watch"}}},
        "parameter_invalid",
        "payment_method_options[wechat_pay][client]",
    ),
    ({"success_url": "javascript:alert(1)"}, "url_invalid", "success_url"),
    ({"cancel_url": "https://"}, "url_invalid", "cancel_url"),
    ({"expires_at": "soon"}, "parameter_invalid_integer", "expires_at"),
    ({"expires_at": 1}, None, "expires_at"),
    ({"expires_at": 10**14}, None, "expires_at"),
    ({"client_reference_id": "x" * 201}, "parameter_invalid", "client_reference_id"),
    ({"metadata": {"k" * 41: "v"}}, "metadata_invalid", "metadata"),
    ({"metadata": {"k": "v" * 501}}, "metadata_invalid", "metadata"),
    ({"metadata": {"k": {"deep": "v"}}}, "parameter_invalid", "metadata"),
    ({"customer": "cus_nobody"}, "resource_missing", "customer"),
    ({"expand": ["invoice"]}, None, "expand"),
]


async def test_a_wrong_request_is_refused_as_stripe_would_and_opens_nothing(sandbox: Sandbox) -> None:
    for changes, code, param in WRONG:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await sandbox.open(**changes)
        assert (refused.value.code, refused.value.param) == (code, param), changes
        assert refused.value.user_message
        assert str(refused.value.request_id).startswith("req_")
    assert await sandbox.count("sandbox_session") == 0


async def test_a_session_lives_from_half_an_hour_to_a_day(sandbox: Sandbox) -> None:
    now = epoch(clock.now())
    for seconds in (1795, 86405):
        with pytest.raises(stripe.InvalidRequestError, match="expires_at"):
            await sandbox.open(expires_at=now + seconds)
    for seconds in (1805, 86395):
        assert (await sandbox.open(expires_at=now + seconds)).expires_at == now + seconds
    assert (await sandbox.open()).expires_at - now in (86400, 86401)


async def test_bytes_that_are_no_form_are_refused_and_never_an_error_of_ours(sandbox: Sandbox) -> None:
    for content in (
        b"\xff\xfe=1", b"mode=%ff", b"mode=%00", b"mode[=payment", b"[x]=1", b"mode[a]=1", b"mode=payment&mode=payment",
        b"line_items=1", b"line_items[x]=1", b"line_items[0]=1", b"line_items[0][quantity]=1&line_items[0]=2",
        b"a" + b"[b]" * 50 + b"=1", b"&".join(b"k%d=1" % n for n in range(2000)), b"x" * (1 << 21), b'{"mode": "payment"}',
        b"metadata[]=1", b"expand=payment_intent", b"expires_at=99999999999999999999",
    ):  # fmt: skip
        answer = await sandbox.raw("POST", "/v1/checkout/sessions", content)
        assert answer.status_code in (400, 413), content[:40]
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_paths_and_ids_that_lead_nowhere_are_404(sandbox: Sandbox) -> None:
    for path in ("/", "/v1/invoices", "/v1/checkout/sessions/cs_none", "/v1/charges/%00", "/v1/payment_intents/你好"):
        answer = await sandbox.raw("GET", path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["type"] == "invalid_request_error"
    missing = (await sandbox.raw("GET", "/v1/payment_intents/pi_none")).json()["error"]
    assert (missing["code"], missing["message"]) == ("resource_missing", "No such payment_intent: 'pi_none'")
    assert (await sandbox.raw("DELETE", "/v1/checkout/sessions")).status_code == 405


async def test_live_keys_are_refused(sandbox: Sandbox) -> None:
    for key in ("sk_live_abc", "rk_live_abc", "sk_test_", "pk_test_abc", ""):
        with pytest.raises(stripe.AuthenticationError) as refused:
            await sandbox.client(key or "x").v1.checkout.sessions.list_async()
        assert refused.value.http_status == 401
    assert (await sandbox.raw("GET", "/v1/events", authorization="")).status_code == 401
    with pytest.raises(stripe.AuthenticationError, match="live"):
        await sandbox.client("sk_live_abc").v1.checkout.sessions.list_async()


async def test_the_provider_does_not_start_in_production(sandbox: Sandbox) -> None:
    sandbox.api.rt.settings = Settings(env="production", database_url="postgresql+asyncpg://")
    with pytest.raises(RuntimeError, match="production"):
        async with running_provider(sandbox.api.rt):
            pass


async def test_the_provider_listens_on_loopback_only(sandbox: Sandbox) -> None:
    async with running_provider(sandbox.api.rt) as address:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
        own = stripe.StripeClient(KEY, base_addresses={"api": address}, http_client=sandbox.http)
        assert (await own.v1.checkout.sessions.list_async()).data == []


async def test_an_open_session_can_be_ended_once(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    await sandbox.press(opened.id, "fail")

    ended = await sandbox.v1.checkout.sessions.expire_async(opened.id)

    assert (ended.status, ended.url) == ("expired", None)
    with pytest.raises(stripe.InvalidRequestError, match='status in \\["open"\\]'):
        await sandbox.v1.checkout.sessions.expire_async(opened.id)
    assert (await sandbox.press(opened.id)).status_code == 409
    await sandbox.api.run_due()
    assert sandbox.receiver.types == [
        "payment_intent.payment_failed", "payment_intent.canceled", "checkout.session.expired"
    ]  # fmt: skip
    assert (await sandbox.v1.payment_intents.retrieve_async(str(ended.payment_intent))).status == "canceled"


async def test_a_paid_session_cannot_be_ended(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    await sandbox.press(opened.id)

    with pytest.raises(stripe.InvalidRequestError, match="status of complete"):
        await sandbox.v1.checkout.sessions.expire_async(opened.id)

    assert (await sandbox.v1.checkout.sessions.retrieve_async(opened.id)).payment_status == "paid"


async def test_a_session_past_its_time_is_expired_and_told_once(sandbox: Sandbox) -> None:
    opened = await sandbox.open()
    sandbox.api.clock.advance(timedelta(hours=24))

    assert (await sandbox.v1.checkout.sessions.retrieve_async(opened.id)).status == "expired"
    assert await sandbox.api.run_due() == 2
    assert await sandbox.api.run_due() == 0

    assert sandbox.receiver.types == ["checkout.session.expired"]
    assert sandbox.receiver.events[0].data.object["id"] == opened.id


async def test_the_sandbox_pages_are_not_found_in_production(sandbox: Sandbox) -> None:
    app = create_app(service, Settings(env="production", database_url="postgresql+asyncpg:///none"))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://heika.test") as client:
        opened = await sandbox.open()
        for method, path in (
            ("GET", f"/v1/sandbox/checkout/{opened.id}"),
            ("POST", f"/v1/sandbox/checkout/{opened.id}/pay"),
            ("POST", f"/v1/sandbox/checkout/{opened.id}/fail"),
            ("PUT", "/v1/sandbox/faults"),
        ):
            assert (await client.request(method, path)).status_code == 404


async def test_a_raw_form_with_open_brackets_is_a_list(sandbox: Sandbox) -> None:
    form = urlencode(
        {
            "mode": "payment",
            "allowed_payment_method_types[]": "card",
            "line_items[0][price_data][currency]": "cny",
            "line_items[0][price_data][unit_amount]": "1990",
            "line_items[0][price_data][product_data][name]": "黑卡",
            "expand[]": "payment_intent",
        }
    )
    answer = await sandbox.raw("POST", "/v1/checkout/sessions", form)

    assert (answer.status_code, answer.json()["amount_total"]) == (200, 1990)
    assert answer.headers["stripe-version"] == stripe.api_version
    assert KEY not in answer.text
