"""The payment provider: Stripe's API, or the sandbox's server that speaks it; only the address differs."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import stripe
import structlog

from kit import clock
from kit.app import Runtime
from services.billing.line import RETRIES, Line, PaymentProviderUnavailable, ProviderRefusal
from services.billing.means import Means, means_of
from services.billing.models import Order
from services.billing.settings import Settings

if TYPE_CHECKING:
    from stripe.params.checkout import (
        SessionCreateParams,
        SessionCreateParamsLineItem,
        SessionCreateParamsLineItemPriceData,
        SessionCreateParamsPaymentIntentData,
    )

__all__ = ["PaymentProviderUnavailable", "Provider", "ProviderRefusal", "provider_of"]

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

API_VERSION = "2026-10-28.endive"
SANDBOX_KEY = "sk_test_heika_sandbox"
SESSION_LIFE = timedelta(minutes=75)
"""Stripe refuses less than 30 minutes from the call, and the call may be repeated until the order expires."""


@dataclass(frozen=True)
class ProviderSession:
    """A checkout session: `payment` is the intent that paid it, None until then."""

    id: str
    url: str | None
    status: str
    paid: bool
    payment: str | None
    amount: int
    currency: str


@dataclass(frozen=True)
class ProviderRefund:
    """A refund at the provider: pending, requires_action, succeeded, failed or canceled."""

    id: str
    status: str
    failure: str | None = None


class Provider:
    """The calls billing makes; PaymentProviderUnavailable when the outcome is unknown, ProviderRefusal when it is no."""

    def __init__(self, settings: Settings, *, api_base: str, key: str) -> None:
        self._settings = settings
        self._line = Line()
        self._asked: dict[str, asyncio.Task[Means]] = {}
        self.client = stripe.StripeClient(
            key,
            stripe_version=API_VERSION,
            base_addresses={"api": api_base} if api_base else None,
            max_network_retries=RETRIES,
            http_client=self._line.http,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._line.http.close_async()  # type: ignore[no-untyped-call]  # the SDK forgot

    async def open_session(self, order: Order) -> ProviderSession:
        """The order's checkout session; asking again for the same order answers the same session."""
        payment: SessionCreateParamsPaymentIntentData = {
            "metadata": {"order_id": str(order.id), "member_id": str(order.member_id)}
        }
        params: SessionCreateParams = {
            "mode": "payment",
            "allowed_payment_method_types": [order.payment_method],
            "client_reference_id": str(order.id),
            "metadata": {"order_id": str(order.id), "member_id": str(order.member_id)},
            "payment_intent_data": payment,
            "line_items": [line_item(order)],
            "expires_at": self.epoch(order.created_at + SESSION_LIFE),
        }
        if order.auto_renew:
            # The card is kept, to be charged again while its owner is away.
            payment["setup_future_usage"] = "off_session"
            params["customer_creation"] = "always"
        if order.payment_method == "wechat_pay":
            params["payment_method_options"] = {"wechat_pay": {"client": "web"}}
        self.way_back(params, order.success_url, order.cancel_url)
        sessions = self.client.v1.checkout.sessions
        return session_of(await self.ask(sessions.create_async(params, {"idempotency_key": f"order-{order.id}"})))

    def epoch(self, at: datetime) -> int:
        """An instant by the provider's clock: Stripe's is the real one, the sandbox's moves with the product's."""
        lead = timedelta(0) if self._settings.simulated else clock.offset()
        return int((at - lead).timestamp())

    def way_back(self, params: "SessionCreateParams", success_url: str | None, cancel_url: str | None) -> None:
        """Say where a session's page leads; the sandbox's shows the result itself, Stripe's insists on a way back."""
        own = None if self._settings.simulated else self._settings.public_url
        if after := success_url or self._settings.return_url or own:
            params["success_url"] = after
        if cancel_url:
            params["cancel_url"] = cancel_url

    async def session(self, session_id: str) -> ProviderSession:
        """How a checkout session stands now; one the provider does not know cannot be paid and counts as expired."""
        try:
            return session_of(await self.ask(self.client.v1.checkout.sessions.retrieve_async(session_id)))
        except ProviderRefusal as refusal:
            log.exception("session refused", session=session_id, refusal=refusal.code)
            if refusal.code == "resource_missing":
                return ProviderSession(session_id, None, "expired", paid=False, payment=None, amount=0, currency="")
            raise PaymentProviderUnavailable(retry_after=5) from refusal

    async def close_session(self, session_id: str) -> ProviderSession:
        """End an open session so that it cannot be paid; one that was paid or ended already is answered as it is."""
        try:
            return session_of(await self.ask(self.client.v1.checkout.sessions.expire_async(session_id)))
        except ProviderRefusal:
            return await self.session(session_id)

    async def means(self, payment_id: str) -> Means:
        """What a payment was made with, as far as the provider says; one call for all who ask at the same moment."""
        # Two events tell of every payment, and mostly come together.
        asked = self._asked.get(payment_id)
        if asked is None:
            asked = self._asked[payment_id] = asyncio.create_task(self._means(payment_id))
            asked.add_done_callback(lambda _: self._asked.pop(payment_id, None))
        return await asyncio.shield(asked)

    async def _means(self, payment_id: str) -> Means:
        intents = self.client.v1.payment_intents
        try:
            intent = await self.ask(intents.retrieve_async(payment_id, {"expand": ["latest_charge"]}))
        except ProviderRefusal:
            # Whoever said that it was paid is proof enough of the money; what it was paid with then stays unknown.
            return Means()
        return means_of(intent.to_dict())

    async def refund(self, refund_id: str, payment_id: str, amount: int) -> ProviderRefund:
        """Send money back; asking again with the same `refund_id` answers the same refund."""
        made = await self.ask(
            self.client.v1.refunds.create_async(
                {"payment_intent": payment_id, "amount": amount, "metadata": {"refund_id": refund_id}},
                {"idempotency_key": f"refund-{refund_id}"},
            )
        )
        return ProviderRefund(made.id, made.status or "pending")

    async def refund_made(self, refund_id: str, payment_id: str) -> ProviderRefund | None:
        """The refund that an earlier call made after all; None when none did."""
        refunds = await self.ask(self.client.v1.refunds.list_async({"payment_intent": payment_id, "limit": 100}))
        for made in refunds.data:
            if made.to_dict().get("metadata", {}).get("refund_id") == refund_id:
                return ProviderRefund(made.id, made.status or "pending")
        return None

    async def refund_state(self, provider_ref: str) -> ProviderRefund:
        """How a refund stands now."""
        found = await self.ask(self.client.v1.refunds.retrieve_async(provider_ref))
        return ProviderRefund(found.id, found.status or "pending")

    def room(self, most: int) -> int:
        """How many calls periodic work should make now, `most` at the most; none while the provider is left alone."""
        return self._line.circuit.room(most)

    async def ask(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer to a call of `client`; ProviderRefusal, or PaymentProviderUnavailable when the outcome is unknown."""
        return await self._line.ask(call)


def line_item(order: Order) -> "SessionCreateParamsLineItem":
    """What an order sells, at its price."""
    price: SessionCreateParamsLineItemPriceData = {
        "currency": order.currency.lower(),
        "unit_amount": order.total,
        "product_data": {"name": order.title},
    }
    return {"quantity": 1, "price_data": price}


def session_of(session: stripe.checkout.Session) -> ProviderSession:
    """A session of the SDK as billing knows it."""
    intent = session.payment_intent
    return ProviderSession(
        id=session.id,
        url=session.url,
        status=session.status or "open",
        paid=session.payment_status == "paid",
        payment=intent.id if isinstance(intent, stripe.PaymentIntent) else intent,
        amount=session.amount_total or 0,
        currency=(session.currency or "").upper(),
    )


@asynccontextmanager
async def payment_provider(rt: Runtime) -> AsyncIterator[None]:
    """Hold the provider for the life of the process; ValueError when production has none."""
    settings: Settings = rt.settings
    async with AsyncExitStack() as stack:
        if settings.simulated:
            # Imported here, because production never loads the sandbox.
            from services.billing.sandbox.provider import running_provider  # noqa: PLC0415

            provider = Provider(
                settings, api_base=await stack.enter_async_context(running_provider(rt)), key=SANDBOX_KEY
            )
        elif settings.stripe_secret_key:
            provider = Provider(settings, api_base=settings.stripe_api_base, key=settings.stripe_secret_key)
        else:
            raise ValueError("STRIPE_SECRET_KEY is required in production")
        settings.webhook_secrets  # noqa: B018 - missing secrets must stop the start, not the first webhook
        rt.state["payment_provider"] = provider
        try:
            yield
        finally:
            await provider.close()


def provider_of(rt: Runtime) -> Provider:
    """The provider this process talks to."""
    provider: Provider = rt.state["payment_provider"]
    return provider
