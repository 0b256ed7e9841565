"""Who left, and what is paid of theirs afterwards: the money is booked, and nothing says what it was paid with."""

import asyncio
from datetime import timedelta

from sqlalchemy import text

from contracts.erasing import PASSES_AFTER
from contracts.members import MemberErased, MembershipChanged
from kit.ids import new_id
from tests.services.billing.till import Till

_FINGERPRINTS = "SELECT fingerprint FROM payment WHERE status = 'applied'"


async def test_what_is_paid_after_an_erasure_names_no_card_in_the_end(till: Till) -> None:
    quick, slow = new_id(), new_id()
    open_still = (await till.order(quick, gift=True)).json()
    days_later = (await till.order(slow, gift=True)).json()
    assert (await till.pay(days_later, settles_in="P1D")).status_code == 200
    await till.api.handle(MemberErased(member_id=quick), MemberErased(member_id=slow))
    till.api.clock.advance(timedelta(minutes=25))
    await till.api.run_due()
    # Past what an old token, or an event on its way, may have written.
    assert (await till.pay(open_still)).status_code == 200
    assert [row for (row,) in await till.api.sql(_FINGERPRINTS)] != [None]
    till.api.clock.advance(timedelta(days=2))
    await till.api.run_due()
    till.api.clock.advance(PASSES_AFTER[-1])
    await till.api.run_due()
    assert await till.api.sql(_FINGERPRINTS) == [(None,), (None,)]
    await till.balanced()
    assert await till.api.run_due() == 0


async def test_news_of_who_left_waits_for_no_order_that_a_refund_holds(till: Till) -> None:
    """A refund takes its order's lock and then the schedule's, which this news holds: waiting would be a deadlock."""
    leaver = new_id()
    await till.buy(leaver)
    waiting = (await till.order(leaver, plan_code="black-card-3m", auto_renew=True)).json()
    await till.api.handle(MemberErased(member_id=leaver))
    async with till.api.rt.db.session() as refund, refund.begin():
        locked = await refund.execute(text('SELECT auto_renew FROM "order" ORDER BY id FOR UPDATE'))
        assert locked.scalars().all() == [False, False]
        await refund.execute(text("SELECT FROM payment FOR UPDATE"))
        async with asyncio.timeout(10):
            await till.api.handle(MembershipChanged(member_id=leaver, version=1, segments=()))
    assert (await till.read(leaver, waiting["id"]))["status"] == "pending"
