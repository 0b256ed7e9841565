"""Commissions in the books: earned, voided, reversed and paid out, each once, in any order."""

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from contracts.referrals import CommissionAccrued, CommissionReversed, CommissionVoided, PayoutPaid
from kit import clock
from kit.events import Event
from kit.ids import new_id
from tests.services.billing.till import Till


def _story() -> list[Event]:
    """Three commissions: one is voided, two are paid, and of these one is reversed."""
    partner, now = new_id(), clock.now()
    usual: dict[str, Any] = {"partner_id": partner, "currency": "CNY"}
    due_at = now + timedelta(days=14)
    voided, kept, reversed_ = new_id(), new_id(), new_id()
    earned = [
        CommissionAccrued(commission_id=id_, kind="sale", amount=amount, accrued_at=now, due_at=due_at, **usual)
        for id_, amount in ((voided, 398), (kept, 980), (reversed_, 3780))
    ]
    return [
        earned[0],
        CommissionVoided(commission_id=voided, amount=398, voided_at=now, **usual),
        PayoutPaid(payout_id=new_id(), run_id=new_id(), amount=4760, paid_at=now, **usual),
        CommissionReversed(commission_id=new_id(), reverses_id=reversed_, amount=3780, reversed_at=now, **usual),
        *earned[1:],
    ]


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
async def test_the_books_are_the_same_whatever_order_the_news_comes_in(till: Till, order: tuple[int, ...]) -> None:
    story = _story()
    told = [*(story[place] for place in order), *story[4:]]
    await till.api.handle(*told)
    # Told again under another id, it is the same fact.
    await till.api.handle(*(event.model_copy(update={"id": new_id()}) for event in told))
    balance = await till.balanced()
    # The partner has 3780 that are not theirs any more.
    assert balance == {"commission_expense": 980, "commissions_payable": 3780, "cash": -4760}
    assert await till.api.emitted() == []
    kinds = await till.api.sql("SELECT kind, count(*)::int FROM ledger_entry GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in kinds] == [
        ("commission", 3),
        ("commission_payout", 1),
        ("commission_reversed", 1),
        ("commission_voided", 1),
    ]
