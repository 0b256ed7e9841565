"""The sandbox provider on a fresh database, the official SDK in front of it, and a receiver for its webhooks."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from kit.app import Service
from services.billing.registry import Model
from services.billing.sandbox import cashier, courier, disputes, faults, payers
from services.billing.sandbox.provider import provider_app, serving
from services.billing.settings import Settings
from tests.harness import Api, Run

SECRET = "whsec_of_the_tests"
KEY = "sk_test_of_the_tests"

service = Service(
    name="sandbox_provider",
    title="The sandbox provider alone",
    settings=Settings,
    metadata=Model.metadata,
    routers=[],
    sandbox_routers=[cashier.router, faults.router, payers.router, disputes.router],
    due=[courier.due],
)


class Receiver:
    """Somebody's webhook: takes what is signed well, and answers the statuses it was told to answer first."""

    def __init__(self) -> None:
        self.events: list[stripe.Event] = []
        self.refusals: list[int] = []
        self.heard = 0
        self.url = ""

    @property
    def types(self) -> list[str]:
        """The types of what was taken, in order."""
        return [event.type for event in self.events]

    async def take(self, request: Request) -> Response:
        """Verify and keep."""
        self.heard += 1
        event = stripe.Webhook.construct_event(await request.body(), request.headers["stripe-signature"], SECRET)
        if self.refusals:
            return Response(status_code=self.refusals.pop(0))
        self.events.append(event)
        return Response(status_code=200)


class Sandbox:
    """The provider at an address, the SDK's client for it, and billing's side with the cashier."""

    def __init__(self, api: Api, address: str, receiver: Receiver) -> None:
        self.api = api
        self.address = address
        self.receiver = receiver
        self.http = stripe.HTTPXClient(timeout=httpx.Timeout(5))
        self.stripe = self.client()
        self.v1 = self.stripe.v1

    def client(self, key: str = KEY, **options: Any) -> stripe.StripeClient:
        """A client of the official SDK."""
        options = {"max_network_retries": 0} | options
        return stripe.StripeClient(key, base_addresses={"api": self.address}, http_client=self.http, **options)

    async def open(self, **changes: Any) -> stripe.checkout.Session:
        """A session over ¥44.00, as billing opens it."""
        params: Any = {
            "mode": "payment",
            "allowed_payment_method_types": ["card"],
            "client_reference_id": "order-1",
            "metadata": {"order_id": "order-1", "member_id": "member-1"},
            "payment_intent_data": {"metadata": {"order_id": "order-1"}},
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {"currency": "cny", "unit_amount": 4400, "product_data": {"name": "黑卡 3 个月"}},
                }
            ],
        }
        return await self.v1.checkout.sessions.create_async(params | changes)

    async def press(self, session_id: str, button: str = "pay", /, **body: Any) -> httpx.Response:
        """Press a button of the cashier."""
        return await self.api.client.post(f"/v1/sandbox/checkout/{session_id}/{button}", json=body)

    async def paid(self, **changes: Any) -> stripe.PaymentIntent:
        """A session that was opened and paid, as its payment."""
        session = await self.open(**changes)
        answer = await self.press(session.id)
        assert answer.status_code == 200, answer.text
        return await self.v1.payment_intents.retrieve_async(answer.json()["payment_intent"])

    async def keep_card(self, member_id: str, **how: Any) -> tuple[str, str]:
        """A customer and their card, kept by a payment at the cashier."""
        customer = await self.v1.customers.create_async({"metadata": {"member_id": member_id}})
        kept = {"metadata": {"order_id": "order-1"}, "setup_future_usage": "off_session"}
        opened = await self.open(customer=customer.id, metadata={"member_id": member_id}, payment_intent_data=kept)
        answer = await self.press(opened.id, **how)
        assert answer.status_code == 200, answer.text
        intent = await self.v1.payment_intents.retrieve_async(answer.json()["payment_intent"])
        return customer.id, str(intent.payment_method)

    async def charge(
        self, customer: str, card: str, /, *, key: str | None = None, **changes: Any
    ) -> stripe.PaymentIntent:
        """Charge a kept card while its owner is away."""
        params: Any = {
            "amount": 1990,
            "currency": "cny",
            "customer": customer,
            "payment_method": card,
            "confirm": True,
            "off_session": True,
            "metadata": {"order_id": "order-2", "member_id": "m"},
        }
        options: Any = {"idempotency_key": key} if key else {}
        return await self.v1.payment_intents.create_async(params | changes, options)

    async def raw(self, method: str, path: str, content: bytes | str = b"", **headers: str) -> httpx.Response:
        """A request as no SDK would send it."""
        usual = {"authorization": f"Bearer {KEY}", "content-type": "application/x-www-form-urlencoded"}
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.request(method, self.address + path, content=content, headers=usual | headers)

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        return int((await self.api.sql(f"SELECT count(*) FROM {table}"))[0][0])  # noqa: S608 - our own words


@pytest.fixture
async def sandbox(run: Run) -> AsyncIterator[Sandbox]:
    """The provider, its webhooks going to the receiver when due work is run."""
    receiver = Receiver()
    async with run(service, stripe_webhook_secrets=(SECRET,)) as api:
        hook = Route("/hook", receiver.take, methods=["POST"])
        async with serving(Starlette(routes=[hook, Mount("/", provider_app(api.rt))])) as address:
            receiver.url = api.rt.settings.sandbox_webhook_url = f"{address}/hook"
            sandbox = Sandbox(api, address, receiver)
            yield sandbox
            await sandbox.http.close_async()  # type: ignore[no-untyped-call]


WALLETS: list[dict[str, Any]] = [
    {"allowed_payment_method_types": ["alipay"]},
    {
        "allowed_payment_method_types": ["wechat_pay"],
        "payment_method_options": {"wechat_pay": {"client": "web"}},
    },
]
