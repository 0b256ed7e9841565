"""Refund windows: each way of paying gives money back for so long, and past it an admin is told so before anything moves."""

from datetime import timedelta
from typing import Any

import pytest

from kit.ids import new_id
from tests.services.billing.till import Till


@pytest.mark.parametrize(("method", "days"), [("alipay", 90), ("wechat_pay", 180)])
async def test_a_wallet_gives_back_within_its_window_and_not_after(till: Till, method: str, days: int) -> None:
    member = new_id()
    order = await till.buy(member, plan_code="black-card-12m", payment_method=method)

    async def refundable() -> int:
        path = f"/v1/admin/orders/{order['id']}/refund-preview"
        answer = await till.client.post(path, headers=till.api.admin("orders:read"))
        return int(answer.json()["refundable"])

    till.api.clock.advance(timedelta(days=days, hours=-1))
    assert await refundable() > 0
    assert (await till.admin_refund(order["id"], amount=100)).status_code == 201
    till.api.clock.advance(timedelta(hours=2))
    await till.api.run_due()
    assert (await till.read(member, order["id"]))["refunded_amount"] == 100
    await till.api.emitted()
    assert await refundable() == 0
    bodies: tuple[dict[str, Any], ...] = ({}, {"amount": 1})
    for body in bodies:
        refused = await till.admin_refund(order["id"], **body)
        assert (refused.status_code, refused.json()["code"]) == (409, "provider_refund_window_over")
        assert f"{days} 天" in refused.json()["detail"]
    assert (await till.refund(member, order["id"])).json()["code"] == "refund_window_over"
    assert await till.api.sql("SELECT amount FROM refund") == [(100,)]
    assert await till.api.emitted() == []


async def test_a_card_gives_back_whenever_an_admin_asks_unless_a_limit_is_set(till: Till) -> None:
    order = await till.buy(new_id(), plan_code="black-card-12m")
    till.api.clock.advance(timedelta(days=300))
    assert (await till.admin_refund(order["id"], amount=100)).json()["status"] == "succeeded"
    till.api.rt.settings.card_refund_days = 299
    refused = await till.admin_refund(order["id"], amount=100)
    assert (refused.status_code, refused.json()["code"]) == (409, "provider_refund_window_over")
