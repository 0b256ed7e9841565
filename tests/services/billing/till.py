"""The steps of a purchase that many billing tests begin with."""

import hashlib
import hmac
import json
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from contracts.coupon import CouponClaims, sign
from kit import clock
from kit.ids import new_id
from services.billing import webhooks
from services.billing.sandbox import courier
from tests.harness import Api

COUPON_KEY = "a coupon key of thirty-two letters or more"
WEBHOOK_SECRET = "whsec_test_of_billing"
NEWS = (courier.due, webhooks.due)
"""What brings the provider's news and handles it."""


class Till:
    """A running billing service and how people use it."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.client = api.client

    def coupon(self, member_id: UUID, /, **changes: Any) -> str:
        """A signed coupon of 500 fen for this member."""
        now = clock.now()
        claims: dict[str, Any] = {
            "id": new_id(),
            "member_id": member_id,
            "campaign_id": new_id(),
            "title": "新人券",
            "kind": "amount",
            "value": 500,
            "min_amount": 0,
            "plan_codes": (),
            "starts_at": now - timedelta(days=1),
            "ends_at": now + timedelta(days=30),
        }
        return sign(CouponClaims(**(claims | changes)), [COUPON_KEY])

    async def order(self, member_id: UUID, *, key: str | None = None, **body: Any) -> httpx.Response:
        """Place an order, for the monthly card by card unless told otherwise."""
        headers = self.api.member(member_id) | {"Idempotency-Key": key or str(new_id())}
        wanted = {"plan_code": "black-card-1m", "payment_method": "card"} | body
        return await self.client.post("/v1/orders", json=wanted, headers=headers)

    async def read(self, member_id: UUID, order_id: str, *, refresh: bool = False) -> dict[str, Any]:
        """The order as its buyer sees it."""
        answer = await self.client.get(
            f"/v1/orders/{order_id}", params={"refresh": refresh}, headers=self.api.member(member_id)
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def pay(self, order: dict[str, Any], **how: Any) -> httpx.Response:
        """Press the cashier's button, and let the webhooks arrive and be handled; nothing else that is due is done."""
        path = order["checkout"]["url"].partition("/v1/")[2]
        answer = await self.client.post(f"/v1/{path}/pay", json=how)
        await self.api.run_due(NEWS)
        return answer

    async def buy(self, member_id: UUID, **body: Any) -> dict[str, Any]:
        """An order that is paid."""
        placed = await self.order(member_id, **body)
        assert placed.status_code == 201, placed.text
        paid = await self.pay(placed.json())
        assert paid.status_code == 200, paid.text
        order = await self.read(member_id, placed.json()["id"])
        assert order["status"] == "paid"
        return order

    async def tell(self, kind: str, subject: dict[str, Any], *, event_id: str | None = None) -> httpx.Response:
        """A webhook that the provider signed, handled."""
        event = {"id": event_id or f"evt_{new_id().hex}", "object": "event", "type": kind, "data": {"object": subject}}
        answer = await self.post_webhook(json.dumps(event).encode())
        await self.api.run_due(NEWS)
        return answer

    async def post_webhook(self, body: bytes, header: str | None = None) -> httpx.Response:
        """These bytes at the webhook, well signed unless a header is given."""
        signature = signed(body) if header is None else header
        headers = {b"Stripe-Signature": signature.encode()}
        return await self.client.post("/v1/webhooks/stripe", content=body, headers=headers)

    async def break_calls(self, kind: str, *, times: int = 100, seconds: float = 1.0, match: str = "") -> None:
        """Let the provider's next calls go wrong; 0 times mends it."""
        fault = {"target": "calls", "kind": kind, "times": times, "seconds": seconds, "match": match}
        answer = await self.client.put("/v1/sandbox/faults", json={"faults": [fault] if times else []})
        assert answer.status_code == 200, answer.text

    async def lose_webhooks(self) -> None:
        """Let no webhook arrive any more."""
        fault = {"target": "deliveries", "kind": "delay", "times": 100, "seconds": 86_000.0}
        assert (await self.client.put("/v1/sandbox/faults", json={"faults": [fault]})).status_code == 200

    async def cancel(self, member_id: UUID, order_id: str) -> httpx.Response:
        """Give an order up."""
        return await self.client.post(f"/v1/orders/{order_id}/cancel", headers=self.api.member(member_id))

    async def refund(self, member_id: UUID, order_id: str, *, key: str | None = None, **body: Any) -> httpx.Response:
        """Ask for the money back."""
        headers = self.api.member(member_id) | {"Idempotency-Key": key or str(new_id())}
        return await self.client.post(
            f"/v1/orders/{order_id}/refunds", json={"reason": "不想要了"} | body, headers=headers
        )

    async def admin_refund(self, order_id: str, *, key: str | None = None, **body: Any) -> httpx.Response:
        """Give a member's money back, as an admin."""
        headers = self.api.admin("orders:write") | {"Idempotency-Key": key or str(new_id())}
        path = f"/v1/admin/orders/{order_id}/refunds"
        return await self.client.post(path, json={"reason": "客服处理"} | body, headers=headers)

    async def balanced(self) -> dict[str, int]:
        """The balance of every account, after checking that the books balance."""
        answer = await self.client.get("/v1/admin/ledger/trial-balance", headers=self.api.admin("orders:read"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["balanced"] is True
        return {row["account"]: row["debit"] - row["credit"] for row in answer.json()["accounts"]}


def signed(body: bytes, *, secret: str = WEBHOOK_SECRET, at: float | None = None) -> str:
    """The Stripe-Signature header of these bytes."""
    stamp = str(int(time.time() if at is None else at))
    mac = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={mac}"
