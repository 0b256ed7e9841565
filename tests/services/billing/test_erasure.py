"""Who left, and what is paid of theirs afterwards: the money is booked, and nothing says what it was paid with."""

from datetime import timedelta

from contracts.erasing import PASSES_AFTER
from contracts.members import MemberErased
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
