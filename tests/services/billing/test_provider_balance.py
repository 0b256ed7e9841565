"""The provider's balance in the books: each fee and each payout once, on its day, and what is left adds up."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from kit.ids import new_id
from services.billing.provider import provider_of
from tests.services.billing.till import Till

ZONE = ZoneInfo("Asia/Shanghai")


@pytest.fixture
async def nightly(till: Till) -> Till:
    """The same service, which asks for the balance every night."""
    await till.api.sql("DELETE FROM provider_balance")
    return till


async def test_fees_and_payouts_are_booked_once(nightly: Till) -> None:
    till = nightly
    till.api.clock.set(datetime(2031, 5, 20, 12, tzinfo=ZONE))
    member = new_id()
    by_card = await till.buy(member)
    by_wallet = await till.buy(new_id(), plan_code="black-card-12m", payment_method="alipay")
    back = await till.buy(new_id())
    assert (await till.admin_refund(back["id"])).status_code == 201
    await till.api.run_due()
    assert (await till.balanced())["provider_receivable"] == 1990 + 18900
    # The next night: 2.9 % and 30 of the cards', 0.6 % of the wallet's; a refund brings no fee back.
    till.api.clock.set(datetime(2031, 5, 21, 2, tzinfo=ZONE))
    await till.api.run_due()
    fees = {"card": 58 + 30, "wallet": 113}
    paid_out = 1990 + 18900 - 2 * fees["card"] - fees["wallet"]
    balance = await till.balanced()
    assert (balance["provider_fees"], balance["cash"], balance["provider_receivable"]) == (289, paid_out, 0)
    entries = await till.api.sql(
        "SELECT e.kind, e.order_id::text, l.debit, (e.at AT TIME ZONE 'Asia/Shanghai')::date::text AS day"
        " FROM ledger_entry e JOIN ledger_line l ON l.entry_id = e.id"
        " WHERE e.kind LIKE 'provider_%' AND l.debit > 0 ORDER BY e.at, l.debit"
    )
    assert sorted(map(tuple, entries), key=str) == sorted(
        [
            ("provider_fee", by_card["id"], 88, "2031-05-20"),
            ("provider_fee", back["id"], 88, "2031-05-20"),
            ("provider_fee", by_wallet["id"], 113, "2031-05-20"),
            ("provider_payout", None, paid_out, "2031-05-21"),
        ],
        key=str,
    )
    assert await till.api.run_due() == 0
    # Asked again, with the days before, nothing is booked twice.
    till.api.clock.advance(timedelta(days=1))
    await till.api.run_due()
    assert (await till.balanced())["provider_fees"] == 289


async def test_a_provider_that_is_away_is_asked_later(nightly: Till) -> None:
    till = nightly
    till.api.clock.set(datetime(2031, 5, 20, 12, tzinfo=ZONE))
    await till.buy(new_id())
    till.api.clock.set(datetime(2031, 5, 21, 1, 45, tzinfo=ZONE))
    await till.break_calls("error", match="/v1/balance_transactions")
    await till.api.run_due()
    assert "provider_fees" not in await till.balanced()
    await till.break_calls("error", times=0)
    till.api.clock.advance(timedelta(minutes=11))
    await till.api.run_due()
    assert (await till.balanced())["provider_fees"] == 88


async def test_the_sandbox_lists_its_balance_as_stripe_does(till: Till) -> None:
    till.api.clock.set(datetime(2031, 5, 20, 12, tzinfo=ZONE))
    for _ in range(3):
        await till.buy(new_id())
    moves = provider_of(till.api.rt).client.v1.balance_transactions
    till.api.clock.set(datetime(2031, 5, 21, 2, tzinfo=ZONE))
    first = await moves.list_async({"limit": 2, "expand": ["data.source"]})
    rest = await moves.list_async({"limit": 2, "starting_after": first.data[-1].id})
    assert [move.type for move in (*first.data, *rest.data)] == ["payout", "charge", "charge", "charge"]
    assert (first.has_more, rest.has_more) == (True, False)
    payout, charge = first.data
    assert (payout.amount, payout.net, payout.fee) == (-3 * 1902, -3 * 1902, 0)
    assert (charge.amount, charge.fee, charge.net, charge.status) == (1990, 88, 1902, "pending")
    assert [move.to_dict()["source"]["object"] for move in first.data] == ["payout", "charge"]
    assert [move.id for move in (await moves.list_async({"type": "payout"})).data] == [payout.id]
