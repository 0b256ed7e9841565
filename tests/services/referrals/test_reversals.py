"""Reversals: the inviter's days go when the newcomer's first membership is refunded in full, told in any order."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.billing import OrderPaid, OrderRefunded
from contracts.referrals import RewardGranted, RewardRevoked
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.world import invited, member, paid


def refunded(order: OrderPaid, amount: int | None = None, **fields: Any) -> OrderRefunded:
    usual: dict[str, Any] = {
        "order_id": order.order_id,
        "refund_id": new_id(),
        "member_id": order.member_id,
        "amount": order.total if amount is None else amount,
        "currency": "CNY",
        "full": amount is None,
        "removes_time": True,
        "refunded_at": clock.now(),
    }
    return OrderRefunded(**usual | fields)


async def told(api: Api) -> list[tuple[type, UUID, UUID]]:
    """The rewards given and taken since the last call."""
    return [
        (type(event), event.reward_id, event.member_id)
        for event in await api.emitted()
        if isinstance(event, (RewardGranted, RewardRevoked))
    ]


async def test_a_full_refund_takes_the_days_back_once(api: Api) -> None:
    inviter = await member(api)
    order = paid(await invited(api, inviter))
    await api.handle(order)
    [(_, reward_id, _)] = await told(api)
    refund = refunded(order)
    await api.handle(refund, refund)
    assert await told(api) == [(RewardRevoked, reward_id, inviter)]
    [reward] = await api.sql("SELECT status, reason FROM reward")
    assert tuple(reward) == ("revoked", "refunded")
    assert [row.used for row in await api.sql("SELECT used FROM reward_budget")] == [0]
    assert await api.run_due() == 0


async def test_a_part_of_the_money_takes_nothing_until_all_of_it_is_back(api: Api) -> None:
    order = paid(await invited(api, await member(api)))
    await api.handle(order)
    await told(api)
    await api.handle(refunded(order, 990))
    assert await told(api) == []
    await api.handle(refunded(order, 1000, full=True))
    assert [kind for kind, *_ in await told(api)] == [RewardRevoked]


async def test_a_refund_told_before_its_payment_ends_the_same(api: Api) -> None:
    order = paid(await invited(api, await member(api)))
    await api.handle(refunded(order), order)
    assert [kind for kind, *_ in await told(api)] == [RewardGranted, RewardRevoked]


async def test_the_refund_of_a_later_order_leaves_the_reward(api: Api) -> None:
    newcomer = await invited(api, await member(api))
    await api.handle(paid(newcomer))
    await told(api)
    api.clock.advance(timedelta(days=1))
    later = paid(newcomer)
    await api.handle(later, refunded(later))
    assert await told(api) == []
