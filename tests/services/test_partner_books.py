"""Partners' statements and the ledger: two services' sums of the same events, equal to the fen at every moment."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.billing import OrderPaid
from kit import clock
from services.referrals.app import service as referrals
from tests.harness import Api, Run
from tests.services.billing.conftest import till
from tests.services.billing.till import Till
from tests.services.referrals.test_partners import (
    brought,
    by,
    commissions,
    disputed,
    partner,
    refunded,
    run_payouts,
)
from tests.services.referrals.world import lesson, paid

__all__ = ["till"]

ACCOUNTS = ("commission_expense", "commissions_payable", "cash")


class Books:
    """Billing and referrals with what each tells the other, in any order and more than once."""

    def __init__(self, till: Till, programme: Api) -> None:
        self.till = till
        self.programme = programme
        self.partners: list[dict[str, Any]] = []
        self.chance = random.Random(0)

    async def carry(self) -> None:
        """Tell each what the other has to tell, shuffled and twice, until there is nothing left."""
        while True:
            sales, owed = await self.till.api.emitted(), await self.programme.emitted()
            if not sales and not owed:
                return
            for events, listener in ((sales, self.programme), (owed, self.till.api)):
                told = events * 2
                self.chance.shuffle(told)
                await listener.handle(*told)

    async def agree(self) -> dict[str, int]:
        """The partners' accounts in the ledger, after checking that all statements together say the same."""
        await self.carry()
        balance = await self.till.balanced()
        kept = {name: balance.get(name, 0) for name in ACCOUNTS}
        sums = dict.fromkeys(("accrued", "reversed", "voided", "paid", "closing"), 0)
        first = (clock.today() - timedelta(days=400)).isoformat()
        for who in self.partners:
            answer = await self.programme.client.get(
                "/v1/partner/statement", headers=by(self.programme, who), params={"from": first}
            )
            told = answer.json()
            assert told["opening"] == 0
            assert told["closing"] == told["accrued"] - told["reversed"] - told["voided"] - told["paid"]
            listed = await commissions(self.programme, who, limit="100")
            owed = sum(amount for _, amount, status in listed if status not in {"voided", "paid"})
            assert told["closing"] == owed
            for name in sums:
                sums[name] += told[name]
        assert kept == {
            "commission_expense": sums["accrued"] - sums["reversed"] - sums["voided"],
            "commissions_payable": -sums["closing"],
            "cash": -sums["paid"],
        }
        return kept

    async def pay_out(self) -> int:
        """Run the payouts and pay them; what left the house."""
        run = await run_payouts(self.programme)
        if run.status_code == 409:
            return 0
        path = f"/v1/admin/payout-runs/{run.json()['id']}/paid"
        answer = await self.programme.client.post(path, headers=self.programme.admin("partners:write"))
        assert answer.status_code == 200, answer.text
        return int(answer.json()["amount"])


@pytest.fixture
async def books(till: Till, run: Run) -> AsyncIterator[Books]:
    """Both services, and two partners on different terms."""
    async with run(referrals, seed=True, coupon_keys=("k" * 32,)) as programme:
        books = Books(till, programme)
        books.partners = [
            await partner(programme),
            await partner(programme, commission={"percent": 33, "months": 1}, hold_days=10),
        ]
        await programme.emitted()
        yield books


async def test_orders_paid_refunded_and_paid_out_add_up_in_both(books: Books) -> None:
    till, programme = books.till, books.programme
    one, other = books.partners
    keeps, returns, half = [await brought(programme, one) for _ in range(3)]
    third = await brought(programme, other)
    await programme.handle(lesson(keeps), lesson(third))
    await till.buy(keeps, plan_code="black-card-3m")
    returned = await till.buy(returns)
    parted = await till.buy(half, plan_code="black-card-12m")
    late = await till.buy(third)
    earned = 300 + 980 + 398 + 3780 + 656
    assert await books.agree() == {"commission_expense": earned, "commissions_payable": -earned, "cash": 0}

    assert (await till.admin_refund(returned["id"])).status_code == 201
    assert (await till.admin_refund(parted["id"], amount=901)).status_code == 201
    await till.api.run_due()
    # All of a month's is given up; of 179.99 a fifth is 35.99.
    earned -= 398 + (3780 - 3599)
    assert await books.agree() == {"commission_expense": earned, "commissions_payable": -earned, "cash": 0}

    books.till.api.clock.advance(timedelta(days=8))
    assert await books.pay_out() == (paid_out := 300 + 980 + 3599)
    assert await books.agree() == {
        "commission_expense": earned,
        "commissions_payable": paid_out - earned,
        "cash": -paid_out,
    }
    assert await books.pay_out() == 0
    # Money that goes back after the payout is kept back from the next one.
    assert (await till.admin_refund(parted["id"], amount=17_999)).status_code == 201
    assert (await till.admin_refund(late["id"], amount=1990)).status_code == 201
    await till.api.run_due()
    earned -= 3599 + 656
    assert await books.agree() == {
        "commission_expense": earned,
        "commissions_payable": paid_out - earned,
        "cash": -paid_out,
    }
    assert paid_out - earned == 3599
    till.api.clock.advance(timedelta(days=30))
    assert await books.pay_out() == 0
    await programme.run_due()
    await books.agree()
    assert await programme.run_due() == 0


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_in_whatever_order_both_say_the_same(books: Books, seed: int) -> None:
    programme, chance = books.programme, books.chance
    chance.seed(seed)
    members: list[UUID] = [await brought(programme, chance.choice(books.partners)) for _ in range(4)]
    orders: list[OrderPaid] = []
    for step in range(40):
        order = chance.choice(orders) if orders else None
        match chance.randrange(9):
            case 0 | 1 | 2:
                orders.append(
                    paid(chance.choice(members), total=chance.randrange(1, 20_000), address_prefix="203.0.113.0/24")
                )
                await programme.handle(orders[-1])
            case 3 | 4 if order is not None:
                await programme.handle(refunded(order, chance.randrange(1, order.total + 1)))
            case 5 if order is not None:
                await programme.handle(disputed(order, chance.choice(["opened", "won", "lost"])))
            case 6:
                await programme.handle(lesson(chance.choice(members)))
            case 7:
                await books.pay_out()
            case _:
                books.till.api.clock.advance(timedelta(days=chance.randrange(5)))
                await programme.run_due()
        if step % 10 == 9:
            await books.agree()
    cases = await programme.client.get("/v1/admin/fraud-cases?status=open", headers=programme.admin())
    for case in cases.json()["items"]:
        verdict = {"decision": chance.choice(["release", "void"]), "reason": "看过了"}
        path = f"/v1/admin/fraud-cases/{case['id']}/resolution"
        assert (await programme.client.post(path, headers=programme.admin(), json=verdict)).status_code == 200
    await books.agree()
