"""Recognition: a price is earned as its time is used, to the fen, whatever comes late, moves, or is given back."""

import random
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from contracts.members import MemberMerged, MembershipChanged, SegmentPicture
from kit.ids import new_id
from tests.services.billing.till import Till

ZONE = ZoneInfo("Asia/Shanghai")
START = datetime(2031, 1, 31, 10, tzinfo=ZONE)
"""A month from here has 28 days: 672 hours, of which 14 on the first day and 10 on the last."""
MONTH = START.replace(month=2, day=28)


async def told(till: Till, member: UUID, version: int, *spans: tuple[dict[str, Any], datetime, datetime]) -> None:
    """Members says where the time of these orders lies."""
    segments = tuple(
        SegmentPicture(
            id=new_id(),
            source="gift" if order.get("gift") else "order",
            source_id=UUID(order["id"]),
            plan_code="black-card-1m",
            months=1,
            days=0,
            starts_at=starts_at,
            ends_at=ends_at,
            benefits=(),
            added_at=starts_at,
        )
        for order, starts_at, ends_at in spans
    )
    await till.api.handle(MembershipChanged(member_id=member, version=version, segments=segments))


async def earned(till: Till) -> dict[date, int]:
    """What each day brought, list prices less discounts, by the ledger; the orders' own rows must agree."""
    rows = await till.api.sql(
        "SELECT (e.at AT TIME ZONE 'Asia/Shanghai')::date AS day, sum(l.credit - l.debit)::int AS amount"
        " FROM ledger_entry e JOIN ledger_line l ON l.entry_id = e.id"
        " WHERE e.kind = 'recognition' AND l.account IN ('revenue', 'coupons') GROUP BY 1 ORDER BY 1"
    )
    own = await till.api.sql("SELECT day, sum(amount)::int FROM revenue_recognition GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in rows if row.amount] == [tuple(row) for row in own if row[1]]
    return {row.day: row.amount for row in rows}


async def bought(till: Till, at: datetime = START, **body: Any) -> tuple[UUID, dict[str, Any]]:
    """A member with a paid order of the monthly card."""
    till.api.clock.set(at)
    member = new_id()
    return member, await till.buy(member, **body)


async def test_each_day_earns_its_hours_of_the_price(till: Till) -> None:
    member, order = await bought(till)
    await told(till, member, 1, (order, START, MONTH))
    await till.api.run_due()
    assert await earned(till) == {}
    till.api.clock.set(datetime(2031, 2, 1, 0, 1, tzinfo=ZONE))
    assert await till.api.run_due() == 1
    # 1990 x 14 / 672 = 41.45
    assert await earned(till) == {date(2031, 1, 31): 41}
    assert await till.api.run_due() == 0
    till.api.clock.set(datetime(2031, 2, 2, 12, tzinfo=ZONE))
    await till.api.run_due()
    # 1990 x 38 / 672 = 112.53
    assert await earned(till) == {date(2031, 1, 31): 41, date(2031, 2, 1): 71}
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": -1878, "revenue": -112}
    till.api.clock.set(datetime(2031, 4, 1, tzinfo=ZONE))
    await till.api.run_due()
    days = await earned(till)
    assert (sum(days.values()), len(days)) == (1990, 29)
    # 1990 x 662 / 672 = 1960.38
    assert days[date(2031, 2, 28)] == 1990 - 1960
    assert await till.balanced() == {"provider_receivable": 1990, "deferred_revenue": 0, "revenue": -1990}
    assert await till.api.run_due() == 0


async def test_nothing_is_earned_before_it_was_paid(till: Till) -> None:
    member, order = await bought(till)
    # Paid within grace: the time began three days ago.
    began, ends = START - timedelta(days=3), START + timedelta(days=25)
    await told(till, member, 1, (order, began, ends))
    till.api.clock.set(datetime(2031, 2, 1, 0, 1, tzinfo=ZONE))
    await till.api.run_due()
    # 1990 x (72 + 14) / 672 = 254.67
    assert await earned(till) == {date(2031, 1, 31): 254}


async def test_days_that_were_missed_are_booked_as_if_they_had_not_been(till: Till) -> None:
    first, one = await bought(till)
    await told(till, first, 1, (one, START, MONTH))
    for day in range(1, 29):
        till.api.clock.set(datetime(2031, 2, day, 3, tzinfo=ZONE))
        await till.api.run_due()
    walked = await earned(till)
    second, two = await bought(till)
    # The news comes weeks late.
    await told(till, second, 1, (two, START, MONTH))
    till.api.clock.set(datetime(2031, 2, 28, 4, tzinfo=ZONE))
    await till.api.run_due()
    assert await earned(till) == {day: 2 * amount for day, amount in walked.items()}
    assert len(walked) == 28


async def test_a_discount_is_shown_beside_the_list_price_as_it_is_used(till: Till) -> None:
    till.api.clock.set(START)
    member = new_id()
    order = await till.buy(member, coupon_token=till.coupon(member))
    await told(till, member, 1, (order, START, MONTH))
    assert await till.balanced() == {"provider_receivable": 1490, "deferred_revenue": -1490}
    till.api.clock.set(MONTH + timedelta(days=1))
    await till.api.run_due()
    balance = await till.balanced()
    assert balance == {"provider_receivable": 1490, "deferred_revenue": 0, "revenue": -1990, "coupons": 500}


async def test_time_that_cost_nothing_is_all_discount(till: Till) -> None:
    till.api.clock.set(START)
    member = new_id()
    placed = await till.order(member, coupon_token=till.coupon(member, kind="percent", value=100))
    assert placed.json()["status"] == "paid"
    await told(till, member, 1, (placed.json(), START, MONTH))
    till.api.clock.set(MONTH + timedelta(days=1))
    await till.api.run_due()
    assert await till.balanced() == {"revenue": -1990, "coupons": 1990}


async def test_a_refund_undoes_first_what_is_not_earned(till: Till) -> None:
    member, order = await bought(till)
    await told(till, member, 1, (order, START, MONTH))
    till.api.clock.set(datetime(2031, 2, 14, 10, tzinfo=ZONE))
    # 13 days and 14 hours are over: 1990 x 326 / 672 = 965.38; no job came by before the refund.
    assert (await till.admin_refund(order["id"], amount=1000)).status_code == 201
    balance = await till.balanced()
    assert balance == {"provider_receivable": 990, "deferred_revenue": -25, "revenue": -965}
    till.api.clock.set(datetime(2031, 2, 15, 0, 1, tzinfo=ZONE))
    await till.api.run_due()
    # 25 are left for the 346 hours from the 14th on: 25 x 24 / 346 = 1.7
    assert (await earned(till))[date(2031, 2, 14)] == 1
    assert (await till.admin_refund(order["id"], amount=990)).status_code == 201
    balance = await till.balanced()
    assert balance == {"provider_receivable": 0, "deferred_revenue": 0, "revenue": -966, "refunds": 966}
    till.api.clock.set(datetime(2031, 4, 1, tzinfo=ZONE))
    await till.api.run_due()
    assert await till.balanced() == balance


async def test_time_that_moves_forward_is_earned_earlier(till: Till) -> None:
    member, order = await bought(till)
    later = MONTH + timedelta(days=31)
    await told(till, member, 1, (order, MONTH, later))
    till.api.clock.set(datetime(2031, 2, 5, 1, tzinfo=ZONE))
    await till.api.run_due()
    assert await earned(till) == {}
    # What lay before it was taken out: it runs from now on. An older picture that comes late changes nothing.
    moved = datetime(2031, 2, 5, 12, tzinfo=ZONE)
    await told(till, member, 3, (order, moved, moved + timedelta(days=28)))
    await told(till, member, 2, (order, MONTH, later))
    till.api.clock.set(datetime(2031, 2, 6, 1, tzinfo=ZONE))
    await till.api.run_due()
    assert await earned(till) == {date(2031, 2, 5): 1990 * 12 // 672}


async def test_time_that_nobody_has_any_more_is_earned_after_three_days(till: Till) -> None:
    member, order = await bought(till)
    await told(till, member, 1, (order, START, MONTH))
    till.api.clock.set(datetime(2031, 2, 1, 10, tzinfo=ZONE))
    await till.api.run_due()
    await told(till, member, 2)
    till.api.clock.set(datetime(2031, 2, 4, 9, tzinfo=ZONE))
    await till.api.run_due()
    assert sum((await earned(till)).values()) == 41
    till.api.clock.set(datetime(2031, 2, 5, 9, tzinfo=ZONE))
    await till.api.run_due()
    assert await earned(till) == {date(2031, 1, 31): 41, date(2031, 2, 4): 1949}


async def test_disputed_time_waits_and_goes_on(till: Till) -> None:
    member, order = await bought(till)
    await told(till, member, 1, (order, START, MONTH))
    till.api.clock.set(datetime(2031, 2, 1, 10, tzinfo=ZONE))
    await till.api.run_due()
    await till.api.sql("""UPDATE "order" SET status = 'disputed'""")
    await told(till, member, 2)
    till.api.clock.set(datetime(2031, 2, 11, tzinfo=ZONE))
    await till.api.run_due()
    assert await earned(till) == {date(2031, 1, 31): 41}
    await till.api.sql("""UPDATE "order" SET status = 'paid'""")
    # Given back with the ten days that were lost: 1949 for the 658 hours from now on.
    await told(till, member, 3, (order, START, MONTH + timedelta(days=10)))
    till.api.clock.set(datetime(2031, 2, 12, 1, tzinfo=ZONE))
    await till.api.run_due()
    assert await earned(till) == {date(2031, 1, 31): 41, date(2031, 2, 11): 1949 * 24 // 658}


async def test_a_lost_dispute_gives_back_what_was_not_earned(till: Till) -> None:
    member, order = await bought(till)
    await told(till, member, 1, (order, START, MONTH))
    path, headers = "/v1/sandbox/disputes", till.api.member()
    assert (await till.admin_refund(order["id"], amount=500)).status_code == 201
    for outcome in ("opened", "lost"):
        answer = await till.client.post(path, json={"order_id": order["id"], "outcome": outcome}, headers=headers)
        assert answer.status_code < 300, answer.text
        await till.api.run_due()
    await told(till, member, 2)
    till.api.clock.set(datetime(2031, 2, 2, 1, tzinfo=ZONE))
    await till.api.run_due()
    assert (await till.balanced())["deferred_revenue"] == 0


@pytest.mark.parametrize("kept_first", [True, False])
async def test_a_merge_moves_time_between_members_without_ending_it(till: Till, *, kept_first: bool) -> None:
    member, order = await bought(till)
    kept = new_id()
    await told(till, member, 1, (order, START, MONTH))
    pictures = [(kept, 1, (order, START, MONTH)), (member, 2)]
    for who, version, *spans in pictures if kept_first else reversed(pictures):
        await told(till, who, version, *spans)  # type: ignore[arg-type]
    await till.api.handle(MemberMerged(kept_id=kept, merged_id=member))
    till.api.clock.set(datetime(2031, 2, 20, tzinfo=ZONE))
    await till.api.run_due()
    assert sum((await earned(till)).values()) == 1990 * (14 + 19 * 24) // 672


async def test_a_gift_is_earned_when_it_is_used_or_can_no_longer_be(till: Till) -> None:
    used, unused = [await bought(till) for _ in range(2)]
    await till.api.sql("""UPDATE "order" SET kind = 'gift'""")
    till.api.clock.set(START + timedelta(days=40))
    await till.api.run_due()
    assert await earned(till) == {}
    redeemed = datetime(2031, 3, 20, tzinfo=ZONE)
    await told(till, new_id(), 1, (used[1] | {"gift": True}, redeemed, redeemed + timedelta(days=31)))
    till.api.clock.set(datetime(2031, 3, 21, 1, tzinfo=ZONE))
    await till.api.run_due()
    assert await earned(till) == {date(2031, 3, 20): 1990 // 31}
    till.api.clock.set(datetime(2032, 3, 1, tzinfo=ZONE))
    await till.api.run_due()
    days = await earned(till)
    # A year of 365 days after the payment.
    assert days[date(2032, 1, 31)] == 1990
    assert sum(days.values()) == 2 * 1990
    assert (
        await till.api.sql("SELECT amount - earned FROM revenue_schedule WHERE order_id = :id", id=unused[1]["id"])
    )[0] == (0,)


async def test_a_course_is_earned_when_it_cannot_be_taken_back_any_more(till: Till) -> None:
    _, order = await bought(till)
    await till.api.sql("""UPDATE "order" SET kind = 'course', plan_code = null, plan_version = null, course_id = id""")
    till.api.clock.set(START + timedelta(days=6, hours=23))
    await till.api.run_due()
    assert await earned(till) == {}
    till.api.clock.set(START + timedelta(days=8))
    await till.api.run_due()
    assert await earned(till) == {date(2031, 2, 7): order["total"]}


async def test_whatever_happens_all_that_stays_is_earned_once(till: Till) -> None:
    chance = random.Random(20310131)
    people = [await bought(till) for _ in range(6)]
    versions = dict.fromkeys((member for member, _ in people), 0)
    now = START
    for _ in range(40):
        member, order = chance.choice(people)
        match chance.randrange(4):
            case 0:
                now += timedelta(hours=chance.randrange(1, 90))
                till.api.clock.set(max(now, START))
                await till.api.run_due()
            case 1:
                await till.admin_refund(order["id"], amount=chance.randrange(1, 700), keep_time=True)
            case _:
                versions[member] += 1
                starts_at = now + timedelta(minutes=chance.randrange(-3000, 20000))
                ends_at = starts_at + timedelta(minutes=chance.randrange(1, 60000))
                spans = [] if chance.random() < 0.1 else [(order, starts_at, ends_at)]
                await told(till, member, versions[member], *spans)
        await till.balanced()
    for member, order in people:
        versions[member] += 1
        await told(till, member, versions[member], (order, now, now + timedelta(days=9)))
    till.api.clock.set(now + timedelta(days=90))
    await till.api.run_due()
    balance = await till.balanced()
    assert balance["deferred_revenue"] == 0
    assert -balance["revenue"] - balance.get("refunds", 0) == balance["provider_receivable"]
    assert await till.api.run_due() == 0
